"""The effective cloud of each noisy loss against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from longtail import ClassCounts
from longtail.analysis.noise import effective_cloud
from longtail.losses import (
    AngularGCLLoss,
    CrossEntropyLoss,
    DeferredReweighting,
    FBLoss,
    FeatureNoiseLoss,
    GCLLoss,
    KPSLoss,
    LDAMLoss,
)

COUNTS = [500, 50, 5]


def clamped_moments() -> tuple[float, float]:
    """E|e| and E e^2 of e = clamp(Normal(0, s), -1, 1), s = 1/3, by hand.

    E|e| = 2 s (phi(0) - phi(3)) + 2 Q(3), E e^2 = s^2 (1 - 2 Q(3) - 6 phi(3)) + 2 Q(3).
    """
    s, beyond = 1 / 3, 0.5 * math.erfc(3 / math.sqrt(2))
    top, end = (math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (0, 3))
    return 2 * s * (top - end) + 2 * beyond, s * s * (1 - 2 * beyond - 6 * end) + 2 * beyond


def test_gcl_is_the_clamped_half_normal() -> None:
    first, second = clamped_moments()
    cloud = effective_cloud(GCLLoss(COUNTS, noise=0.5, scale=30.0), draws=200_000)
    reach = 0.5 * ClassCounts(COUNTS).tail_weight
    np.testing.assert_allclose(cloud.mean, -reach * first, atol=1e-3)
    np.testing.assert_allclose(cloud.spread, reach * math.sqrt(second - first**2), atol=1e-3)


def test_signed_noise_has_no_mean() -> None:
    cloud = effective_cloud(GCLLoss(COUNTS, noise=0.5, signed=True), draws=200_000)
    np.testing.assert_allclose(cloud.mean, 0, atol=2e-3)
    assert cloud.spread[2] == pytest.approx(0.5 * math.sqrt(clamped_moments()[1]), abs=1e-3)


def test_the_scale_does_not_change_the_unit() -> None:
    unscaled, scaled = (effective_cloud(GCLLoss(COUNTS, scale=scale)).mean for scale in (1.0, 30.0))
    np.testing.assert_allclose(unscaled, scaled, atol=1e-6)


def test_noise_is_drawn_through_sample_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = GCLLoss(COUNTS, noise=0.4)
    monkeypatch.setattr(loss, "sample_noise", lambda like: torch.full_like(like, 0.5))
    cloud = effective_cloud(loss)
    np.testing.assert_allclose(cloud.mean, -0.2 * ClassCounts(COUNTS).tail_weight, atol=1e-6)
    np.testing.assert_allclose(cloud.spread, 0, atol=1e-3)


def test_angular_noise_depends_on_the_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = AngularGCLLoss(COUNTS, noise=0.5)
    monkeypatch.setattr(loss, "sample_noise", torch.ones_like)
    turn = math.pi / 4 * ClassCounts(COUNTS).tail_weight
    for cosine in (0.0, 0.6):
        expected = np.cos(math.acos(cosine) + turn) - cosine
        np.testing.assert_allclose(effective_cloud(loss, logit=cosine).mean, expected, atol=1e-5)


def test_feature_noise_follows_the_weight() -> None:
    """``|<w, noise>|`` is half-normal with standard deviation ``|w|``, times A and the log deficit."""
    weight = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    loss = FeatureNoiseLoss(COUNTS, strength=0.5)
    reach = 0.5 * ClassCounts(COUNTS).log_deficit * np.linalg.norm(weight, axis=1)
    cloud = effective_cloud(loss, weight=weight, draws=200_000)
    np.testing.assert_allclose(cloud.mean, -reach * math.sqrt(2 / math.pi), rtol=0.01)
    np.testing.assert_allclose(cloud.spread, reach * math.sqrt(1 - 2 / math.pi), rtol=0.01)
    assert np.isnan(effective_cloud(loss).mean).all()  # nothing to carry the noise through


@pytest.mark.parametrize(
    "loss", [CrossEntropyLoss(COUNTS), KPSLoss(COUNTS), FBLoss(COUNTS), LDAMLoss(COUNTS), GCLLoss(COUNTS, noise=0.0)]
)
def test_nothing_where_there_is_no_noise(loss: torch.nn.Module) -> None:
    cloud = effective_cloud(loss)  # type: ignore[arg-type]
    assert cloud.mean.shape == cloud.spread.shape == (3,)
    assert np.isnan(cloud.mean).all()
    assert np.isnan(cloud.spread).all()


def test_a_wrapped_loss_is_measured_and_left_alone() -> None:
    inner = GCLLoss(COUNTS)
    state = torch.get_rng_state()
    result = effective_cloud(DeferredReweighting(inner, COUNTS), seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert "sample_noise" not in vars(inner)
    np.testing.assert_array_equal(result.mean, effective_cloud(inner, seed=3).mean)
    assert not np.array_equal(result.mean, effective_cloud(inner, seed=4).mean)


def test_an_absent_class_counts_as_one_image() -> None:
    cloud = effective_cloud(GCLLoss([500, 0]))
    assert cloud.mean[1] < -0.1


def test_two_draws_are_needed() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        effective_cloud(GCLLoss(COUNTS), draws=1)
