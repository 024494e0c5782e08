"""Norms, angles and rank trends with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from longtail.analysis.norms import RankTrend, class_norms, rank_trend


def test_norms_of_features_are_those_of_the_images_not_of_their_mean() -> None:
    features = np.array([[3.0, 4.0], [-3.0, -4.0], [0.0, 2.0]])
    norms = class_norms(features, np.array([0, 0, 2]), np.array([[1.0, 0], [0, 2], [0, 3]]), np.array([1.0, 2, 3]), 3)
    assert norms.feature_norm[[0, 2]].tolist() == [5, 2]
    assert norms.feature_norm_std[0] == 0
    assert np.isnan(norms.feature_norm[1])
    assert np.isnan(norms.feature_norm_std[1:]).all()  # absent, and one image
    assert norms.weight_norm.tolist() == [1, 2, 3]
    assert norms.bias.tolist() == [1, 2, 3]


def test_angles_of_equal_opposite_and_right_directions() -> None:
    features = np.array([[2.0, 0], [0, 5], [1, 1], [0, 0]])
    weight = np.array([[7.0, 0], [0, -1], [1, -1], [1, 0]])
    norms = class_norms(features, np.arange(4), weight, None, 5 - 1)
    assert norms.angle[:3] == pytest.approx([0, 180, 90])
    assert math.isnan(norms.angle[3])  # a mean of norm zero has no direction
    assert np.isnan(norms.bias).all()


def test_a_small_angle_is_not_rounded_away() -> None:
    tiny = 1e-6
    norms = class_norms(np.array([[1.0, tiny]]), np.array([0]), np.array([[1.0, 0.0]]), None, 1)
    assert norms.angle[0] == pytest.approx(math.degrees(tiny), rel=1e-4)


def test_the_deviation_is_that_of_a_sample() -> None:
    norms = class_norms(np.array([[1.0], [3.0]]), np.array([0, 0]), np.ones((1, 1)), None, 1)
    assert norms.feature_norm_std[0] == pytest.approx(np.std([1, 3], ddof=1))


def test_rank_trend_leaves_out_what_is_not_known() -> None:
    rng = np.random.default_rng(0)
    counts, values = np.arange(40), rng.normal(size=40)
    values[[3, 7]] = np.nan, np.inf
    finite = np.isfinite(values)
    expected = spearmanr(values[finite], counts[finite])
    trend = rank_trend(values, counts)
    assert (trend.rho, trend.p_value, trend.classes) == pytest.approx((expected.statistic, expected.pvalue, 38))
    assert rank_trend(-np.log(counts + 1.0), counts).rho == pytest.approx(-1)


@pytest.mark.parametrize("values", [[1.0, 2.0, np.nan, np.nan], [5.0] * 4])
def test_no_trend_without_three_classes_or_variation(values: list[float]) -> None:
    trend = rank_trend(values, [1, 2, 3, 4])
    assert math.isnan(trend.rho)
    assert not trend.is_evidence
    assert math.isnan(rank_trend([1.0, 2, 3, 4], [7] * 4).rho)


@pytest.mark.parametrize(
    ("values", "p_value"),  # of all orders: tables of Spearman's rank correlation
    [([1, 2, 3], 1 / 3), ([4, 3, 2, 1], 1 / 12), ([1, 2, 3, 4, 6, 5], 1 / 60), ([1, 2, 3, 4, 5, 6, 8, 7], 16 / 40320)],
)
def test_the_p_value_of_few_classes_is_exact(values: list[float], p_value: float) -> None:
    trend = rank_trend(values, range(len(values)))
    assert trend.p_value == pytest.approx(p_value)
    assert trend.is_evidence == (p_value < 0.01)


def test_what_counts_as_evidence() -> None:
    assert RankTrend(-0.3, 0.001, 100).is_evidence
    assert not RankTrend(0.3, 0.02, 60).is_evidence  # may be chance
    assert not RankTrend(0.09, 1e-9, 8142).is_evidence  # is none to speak of
