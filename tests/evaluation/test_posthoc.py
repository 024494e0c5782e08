"""Post-hoc adjustments against their equations, and the temperature against an independent search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from longtail.counts import ClassCounts
from longtail.evaluation.posthoc import (
    Adjustment,
    fit_temperature,
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
def test_tau_normalization_is_the_classifier_with_normalized_weights_and_no_bias(
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


def test_logit_adjustment_divides_the_posterior_by_the_prior() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    adjusted = logit_adjust(logits, [70, 20, 10]).softmax(dim=1)
    expected = logits.softmax(dim=1) / torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(adjusted, expected / expected.sum(dim=1, keepdim=True))


def test_logit_adjustment_without_strength_or_imbalance_changes_no_prediction() -> None:
    logits = torch.randn(5, 3)
    assert torch.equal(logit_adjust(logits, [70, 20, 10], tau=0.0), logits)
    torch.testing.assert_close(logit_adjust(logits, [9, 9, 9]).softmax(1), logits.softmax(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logit_adjustment_keeps_dtype_and_takes_empty_classes_and_more_axes(dtype: torch.dtype) -> None:
    adjusted = logit_adjust(torch.zeros(2, 4, 3, dtype=dtype), [70, 20, 0], tau=0.5)
    assert adjusted.dtype == dtype
    assert adjusted.shape == (2, 4, 3)
    assert adjusted.isfinite().all()


def test_logit_adjustment_follows_a_permutation_of_classes() -> None:
    logits, counts, order = torch.randn(4, 3), [70, 20, 10], [2, 0, 1]
    permuted = logit_adjust(logits[:, order], [counts[i] for i in order])
    torch.testing.assert_close(permuted, logit_adjust(logits, counts)[:, order])


def test_logit_adjustment_refuses_other_classes() -> None:
    with pytest.raises(ValueError, match="4 classes"):
        logit_adjust(torch.zeros(1, 4), [3, 2, 1])


def test_tau_normalization() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    assert tau_normalize(weight).norm(dim=1).tolist() == pytest.approx([1, 1, 0])
    assert torch.equal(tau_normalize(weight, tau=0.0), weight)
    assert tau_normalize(weight, tau=0.5).norm(dim=1).tolist() == pytest.approx([5**0.5, 0.5**0.5, 0])


def overconfident(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``scale`` times those the labels were drawn from, so that the best temperature is about ``scale``."""
    source = torch.Generator().manual_seed(1)
    honest = 2 * torch.randn(4000, 10, generator=source)
    target = torch.multinomial(honest.softmax(dim=1), 1, generator=source).squeeze(1)
    return scale * honest, target


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0, 40.0])
def test_the_temperature_is_the_best_of_a_fine_grid(scale: float) -> None:
    logits, target = overconfident(scale)
    fitted = fit_temperature(logits, target)
    assert fitted == pytest.approx(scale, rel=0.1)

    def loss(temperature: float) -> float:
        return float(F.cross_entropy(temperature_scale(logits.double(), temperature), target))

    best = loss(fitted)
    assert all(best <= loss(fitted * factor) for factor in (0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2))


def test_weights_count_an_image_as_often_as_they_say() -> None:
    logits, target = overconfident(3.0)
    weight = torch.randint(0, 4, target.shape, generator=torch.Generator().manual_seed(2))
    repeated = fit_temperature(logits.repeat_interleave(weight, dim=0), target.repeat_interleave(weight))
    assert fit_temperature(logits, target, weight=weight) == pytest.approx(repeated, rel=1e-6)
    assert fit_temperature(logits, target, weight=0.1 * torch.ones(4000)) == pytest.approx(
        fit_temperature(logits, target), rel=1e-6
    )


def test_temperature_scaling_changes_no_prediction() -> None:
    logits, _ = overconfident(1.0)
    assert torch.equal(temperature_scale(logits, 7.0).argmax(1), logits.argmax(1))


def test_data_without_a_best_temperature_gives_an_end_of_the_range() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == pytest.approx(1e-3)
    assert fit_temperature(logits, torch.tensor([1, 0])) == pytest.approx(1e3)
    assert fit_temperature(torch.zeros(2, 2), torch.tensor([1, 0])) > 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        temperature_scale(torch.zeros(1, 2), 0.0)
    with pytest.raises(ValueError, match="N > 0"):
        fit_temperature(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="logits"):
        fit_temperature(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]))
    for weight in (torch.zeros(2), torch.tensor([1.0, -1.0]), torch.ones(3), torch.tensor([1.0, float("nan")])):
        with pytest.raises(ValueError, match="weight"):
            fit_temperature(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), weight=weight)
