"""Losses that change weights and priors: class-balanced, weighted, deferred, focal, LDAM, balanced softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from longtail.losses import (
    ClassBalancedLoss,
    CrossEntropyLoss,
    DeferredReweighting,
    KPSLoss,
    WeightedLoss,
)
from longtail.losses.reweighting import effective_number_weights, inverse_count_weights

COUNTS = [500, 50, 5]


LOGITS = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.1, -1.0], [0.0, 2.0, 0.5]], dtype=torch.float64)


TARGET = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-12])
def test_effective_number_weights(beta: float) -> None:
    weights = effective_number_weights(COUNTS, beta)
    raw = np.array([1 / sum(beta**power for power in range(n)) for n in COUNTS])
    np.testing.assert_allclose(weights, raw / raw.mean(), rtol=1e-9)


def test_effective_number_weights_want_beta_below_one() -> None:
    with pytest.raises(ValueError, match="WeightedLoss"):
        effective_number_weights(COUNTS, 1.0)


def test_inverse_count_weights_have_mean_one_and_take_zero_as_one() -> None:
    np.testing.assert_allclose(inverse_count_weights([4, 1, 0]), np.array([0.25, 1, 1]) / 0.75)


@pytest.mark.parametrize("make", [ClassBalancedLoss, WeightedLoss])
def test_reweighted_losses_are_weighted_cross_entropy(make: type[ClassBalancedLoss | WeightedLoss]) -> None:
    loss = make(COUNTS)
    assert loss.weight is not None
    torch.testing.assert_close(loss(LOGITS, TARGET), functional.cross_entropy(LOGITS, TARGET, loss.weight.double()))
    doubled = make(COUNTS, weight=[2.0, 2.0, 1.0])
    torch.testing.assert_close(doubled.weight, loss.weight * torch.tensor([2.0, 2.0, 1.0]))


def test_deferred_reweighting_starts_when_told() -> None:
    loss = DeferredReweighting(CrossEntropyLoss(COUNTS), COUNTS, start=0.5)
    plain, balanced = CrossEntropyLoss(COUNTS), ClassBalancedLoss(COUNTS)
    for progress, same in ((0.0, plain), (0.49, plain), (0.5, balanced), (1.0, balanced)):
        loss.progress = progress
        torch.testing.assert_close(loss(LOGITS, TARGET), same(LOGITS, TARGET))


def test_deferred_reweighting_passes_progress_and_traits_on() -> None:
    inner = KPSLoss(COUNTS)
    loss = DeferredReweighting(inner, COUNTS)
    loss.progress = 0.7
    assert inner.progress == pytest.approx(0.7)
    assert (loss.head, loss.logit_scale, loss.needs_features) == ("cosine", 15.0, False)


def test_deferred_reweighting_multiplies_the_weights_of_the_loss() -> None:
    loss = DeferredReweighting(CrossEntropyLoss(COUNTS, weight=[1.0, 3.0, 2.0]), COUNTS, start=0.0)
    weight = torch.tensor([1.0, 3.0, 2.0]) * torch.as_tensor(effective_number_weights(COUNTS)).float()
    torch.testing.assert_close(loss(LOGITS, TARGET), functional.cross_entropy(LOGITS, TARGET, weight.double()))


def test_deferred_reweighting_wants_the_same_classes() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        DeferredReweighting(CrossEntropyLoss(COUNTS), [5, 3])
