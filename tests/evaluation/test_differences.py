"""Intervals of differences, against scipy, formulas worked out by hand, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from longtail.evaluation.differences import apart_interval, images_interval, seeds_interval, t_reach, welch_interval


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)])
def test_quantiles_are_those_of_a_printed_table(freedom: int, quantile: float) -> None:
    assert t_reach(freedom) == pytest.approx(quantile, abs=5e-4)


def test_seeds_are_judged_by_the_paired_t_interval() -> None:
    one, two = np.array([0.51, 0.55, 0.59]), np.array([0.50, 0.52, 0.60])
    gain = one - two
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert seeds_interval(gain.mean(), gain.std(ddof=1), 3) == pytest.approx((expected.low, expected.high))


def test_means_without_partners_are_judged_by_welch() -> None:
    one, two = [0.3, 0.34, 0.29, 0.31], [0.5, 0.42]
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    assert welch_interval(one, two) == pytest.approx((expected.low, expected.high))
    assert welch_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)


def test_all_images_together_are_the_adjusted_interval_of_matched_pairs() -> None:
    # Agresti and Min by hand: 30 images only the first has right, 10 only the second, of 1,000.
    one = np.arange(1_000) < 30
    two = (np.arange(1_000) >= 30) & (np.arange(1_000) < 40)
    gain, loss = 30.5 / 1_002, 10.5 / 1_002
    half = 1.95996 * ((gain + loss - (gain - loss) ** 2) / 1_002) ** 0.5
    assert images_interval(one, two) == pytest.approx((gain - loss - half, gain - loss + half), rel=0.01)


def test_a_mean_over_classes_counts_each_class_the_same() -> None:
    # 400 images of one class without a change, 4 of another of which all are won.
    one, two = np.r_[np.ones(400), np.ones(4)] > 0, np.r_[np.ones(400), np.zeros(4)] > 0
    low, high = images_interval(one, two, np.repeat([7, 9], [400, 4]))  # type: ignore[misc]
    assert low < 0.5 < high
    assert images_interval(one, two)[1] < 0.03  # type: ignore[index]
    assert images_interval([], []) is None


@pytest.mark.parametrize(("classes", "images", "low", "high"), [(1, 20, 0.9, 0.9), (10, 2, 0.8, 0.9), (35, 20, 0, 0.4)])
def test_the_truth_is_held_about_as_often_as_the_level_says(classes: int, images: int, low: float, high: float) -> None:
    draw, held = np.random.default_rng(0), 0
    label = np.repeat(np.arange(classes), images)
    for _ in range(200):
        base = draw.uniform(low, high, classes)
        shared, own = draw.random(label.size), draw.random(label.size)
        second = np.where(draw.random(label.size) < 0.5, shared, own) < base[label]  # half the images are hard for both
        low_end, high_end = images_interval(shared < base[label] + 0.05, second, label)  # type: ignore[misc]
        held += low_end <= 0.05 <= high_end
    assert held >= 184  # 0.95 of 200, less two standard errors


def test_shares_that_cannot_be_matched_are_judged_by_newcombe() -> None:
    # Newcombe 1998, table II, (a): 56/70 less 48/80 has the score interval 0.0524 to 0.3339.
    ends = apart_interval(0.8, (0.6920, 0.8768), 0.6, (0.4904, 0.7003))
    assert ends == pytest.approx((0.0524, 0.3339), abs=5e-4)
