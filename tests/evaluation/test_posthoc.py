"""The one affine form against the adjustments it stands for, and the mix of classes that it says it assumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from longtail.counts import ClassCounts
from longtail.evaluation.posthoc import (
    Adjustment,
    logit_adjust,
    logit_adjustment,
    prior_shares,
    tau_normalization,
    tau_normalize,
    temperature_scale,
)

COUNTS = (500, 40, 3, 0)


def logits(count: int = 20) -> torch.Tensor:
    return 3 * torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_logit_adjustment_is_that_of_scaled_and_tempered_logits(tau: float, temperature: float, scale: float) -> None:
    z = logits() / scale
    expected = logit_adjust(temperature_scale(scale * z, temperature), COUNTS, tau)
    adjusted = logit_adjustment(COUNTS, tau, temperature=temperature, scale=scale).apply(z)
    torch.testing.assert_close(adjusted, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_tau_normalisation_is_the_classifier_with_normalised_weights_and_no_bias(
    tau: float, temperature: float
) -> None:
    source = torch.Generator().manual_seed(1)
    features, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=source) for shape in ((20, 6), (4, 6), (4,))
    )
    weight[2] = 0  # a class that was never trained
    expected = temperature_scale(F.linear(features, tau_normalize(weight, tau)), temperature)
    adjusted = tau_normalization(weight, bias, tau, temperature=temperature).apply(F.linear(features, weight, bias))
    torch.testing.assert_close(adjusted, expected, rtol=1e-10, atol=1e-10)


def test_half_precision_is_widened_and_float64_kept() -> None:
    adjustment = Adjustment((2.0,) * 4, (0.5,) * 4)
    assert adjustment.apply(logits().bfloat16()).dtype == torch.float32
    assert adjustment.apply(logits()).dtype == torch.float64


def test_what_is_assumed_is_the_prior_of_bayes_rule() -> None:
    """Probabilities of a mix q, adjusted by tau, are those of the mix that the adjustment names."""
    likelihood = torch.rand(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for prior in ("train", "uniform"):
        seen = likelihood * torch.from_numpy(prior_shares(prior, COUNTS))
        for tau in (0.0, 0.4, 1.0, 1.5):
            adjustment = logit_adjustment(COUNTS, tau, prior=prior)
            expected = likelihood * torch.from_numpy(prior_shares(adjustment.prior, COUNTS))
            torch.testing.assert_close(
                adjustment.apply(seen.log()).softmax(dim=1), expected / expected.sum(dim=1, keepdim=True)
            )


def test_the_mix_has_a_name_where_there_is_one() -> None:
    assert logit_adjustment(COUNTS, 0.0).prior == "train"
    assert logit_adjustment(COUNTS, 1.0).prior == "uniform"
    assert logit_adjustment(COUNTS, 0.0, prior="uniform").prior == "uniform"
    half = logit_adjustment(COUNTS, 0.5).prior
    frequencies = ClassCounts(COUNTS).prior
    np.testing.assert_allclose(half, frequencies**0.5 / (frequencies**0.5).sum())


def test_shares_of_any_sum() -> None:
    np.testing.assert_allclose(prior_shares((2.0, 1.0, 1.0), [1, 1, 1]), [0.5, 0.25, 0.25])
