"""Intervals of differences, against scipy, formulas worked out by hand, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from longtail.evaluation.significance import (
    Difference,
    images_interval,
    paired_means_interval,
    seeds_interval,
    t_quantile,
    unpaired_interval,
    welch_interval,
)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)])
def test_quantiles_are_those_of_a_printed_table(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_seeds_are_judged_by_the_paired_t_interval() -> None:
    first, second = np.array([0.51, 0.55, 0.59]), np.array([0.50, 0.52, 0.60])
    gain = first - second
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert seeds_interval(gain.mean(), gain.std(ddof=1), 3) == pytest.approx((expected.low, expected.high))


def test_means_without_partners_are_judged_by_welch() -> None:
    first, second = [0.3, 0.34, 0.29, 0.31], [0.5, 0.42]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert welch_interval(first, second) == pytest.approx((expected.low, expected.high))
    assert welch_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)


def test_all_images_together_are_the_adjusted_interval_of_matched_pairs() -> None:
    # Agresti and Min by hand: 30 images only the first has right, 10 only the second, of 1,000.
    first = np.arange(1_000) < 30
    second = (np.arange(1_000) >= 30) & (np.arange(1_000) < 40)
    gain, loss = 30.5 / 1_002, 10.5 / 1_002
    half = 1.95996 * ((gain + loss - (gain - loss) ** 2) / 1_002) ** 0.5
    assert images_interval(first, second) == pytest.approx((gain - loss - half, gain - loss + half), rel=0.01)


def test_a_mean_over_classes_counts_each_class_the_same() -> None:
    # 400 images of one class without a change, 4 of another of which all are won.
    first, second = np.r_[np.ones(400), np.ones(4)] > 0, np.r_[np.ones(400), np.zeros(4)] > 0
    low, high = images_interval(first, second, np.repeat([7, 9], [400, 4]))  # type: ignore[misc]
    assert low < 0.5 < high
    assert images_interval(first, second)[1] < 0.03  # type: ignore[index]
    assert images_interval([], []) is None


@pytest.mark.parametrize(("classes", "images", "low", "high"), [(1, 20, 0.9, 0.9), (10, 2, 0.8, 0.9), (35, 20, 0, 0.4)])
def test_the_truth_is_held_about_as_often_as_the_level_says(classes: int, images: int, low: float, high: float) -> None:
    draw, held = np.random.default_rng(0), 0
    label = np.repeat(np.arange(classes), images)
    for _ in range(200):
        base = draw.uniform(low, high, classes)
        shared, separate = draw.random(label.size), draw.random(label.size)
        # Half the images are hard for both.
        second = np.where(draw.random(label.size) < 0.5, shared, separate) < base[label]
        low_end, high_end = images_interval(shared < base[label] + 0.05, second, label)  # type: ignore[misc]
        held += low_end <= 0.05 <= high_end
    assert held >= 184  # 0.95 of 200, less two standard errors


def test_shares_that_cannot_be_matched_are_judged_by_newcombe() -> None:
    # Newcombe 1998, table II, (a): 56/70 less 48/80 has the score interval 0.0524 to 0.3339.
    interval = unpaired_interval(0.8, (0.6920, 0.8768), 0.6, (0.4904, 0.7003))
    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_one_seed_has_the_interval_it_had_before_seeds_were_averaged() -> None:
    # Worked out with the formula for single pairs: how many images only one of the two has right.
    draw = np.random.default_rng(0)
    label = np.repeat(np.arange(4), [40, 20, 5, 1])
    first, second = draw.random(66) < 0.7, draw.random(66) < 0.5
    assert images_interval(first, second) == pytest.approx((0.1542323302, 0.4334868000))
    assert images_interval(first, second, label) == pytest.approx((0.0658656256, 0.6767603161))
    assert images_interval([first], [second], label) == images_interval(first, second, label)
    counted = np.r_[np.ones(30), np.zeros(36)]
    interval = paired_means_interval(first, counted, second, 1 - counted, most=1.0)
    assert interval == pytest.approx((-0.0574175936, 0.4463064825))
    assert paired_means_interval([first], [counted], [second], [1 - counted], most=1.0) == interval


def models(draw: np.random.Generator, label: np.ndarray, chances: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """Whether each seed has each image right, shape (S, N): half the images are as hard for every model."""
    shared, separate = draw.random(label.size), draw.random((len(chances), label.size))
    return np.where(hard, shared, separate) < chances[:, label]


@pytest.mark.parametrize(("seeds", "classes", "images"), [(1, 5, 40), (2, 1, 300), (3, 10, 4), (5, 20, 10)])
def test_over_images_the_truth_of_these_models_is_held_as_often_as_the_level_says(
    seeds: int, classes: int, images: int
) -> None:
    draw, held, label = np.random.default_rng(1), 0, np.repeat(np.arange(classes), images)
    for _ in range(200):
        base = draw.uniform(0.3, 0.8, classes)
        # Each model is as good as its seed happens to make it; the interval is of these, not of others.
        chances = [np.clip(base + gain + draw.normal(0, 0.05, (seeds, classes)), 0, 1) for gain in (0.1, 0.0)]
        hard = draw.random(label.size) < 0.5
        first, second = np.split(models(draw, label, np.concatenate(chances), hard), 2)
        low, high = images_interval(first, second, label)  # type: ignore[misc]
        held += low <= chances[0].mean() - chances[1].mean() <= high
    assert held >= 184  # 0.95 of 200, less two standard errors


def test_over_seeds_the_truth_on_these_images_is_held_as_often_as_the_level_says() -> None:
    draw, held = np.random.default_rng(2), 0
    for _ in range(400):
        shared, gains = draw.random(500), []
        for _ in range(3):
            chance = 0.6 + draw.normal(0, 0.03)
            first, second = (shared < chance + gain for gain in (0.05 + draw.normal(0, 0.02), 0.0))
            gains.append(float(first.mean() - second.mean()))
        low, high = Difference.of(gains).seeds  # type: ignore[misc]
        better = stats.norm.cdf((0.65 - shared) / np.hypot(0.03, 0.02)) - stats.norm.cdf((0.6 - shared) / 0.03)
        held += low <= better.mean() <= high
    assert held >= 371  # 0.95 of 400, less two standard errors


def test_two_seeds_that_each_are_evidence_are_evidence_together() -> None:
    draw, label = np.random.default_rng(3), np.repeat(np.arange(10), 50)
    hard = draw.random(500) < 0.5
    second = models(draw, label, np.full((2, 10), 0.5), hard)
    first = second | (draw.random((2, 500)) < [[0.1], [0.3]])  # both better, and unlike
    singles = [Difference.of([gain(first[s], second[s])], images_interval(first[s], second[s])) for s in range(2)]
    both = Difference.of([gain(first[s], second[s]) for s in range(2)], images_interval(first, second))
    assert all(single.is_evidence for single in singles)
    assert both.is_evidence
    assert (both.holds, both.seeds) == ("images", None)
    low, high = seeds_interval(both.mean, both.std or 0.0, 2)
    assert low < 0 < high  # Student's with one degree of freedom sees nothing


def test_three_seeds_that_scatter_take_evidence_back_and_say_why() -> None:
    single = Difference.of([0.05], (0.02, 0.08))
    scattered = Difference.of([0.05, 0.02, -0.01], (0.01, 0.03))
    close = Difference.of([0.05, 0.045, 0.052], (0.02, 0.08))
    assert (single.is_evidence, single.holds) == (True, "images")
    assert (scattered.is_evidence, scattered.holds) == (False, "images")
    assert (close.is_evidence, close.holds) == (True, "images and seeds")
    few_images = Difference.of([0.05, 0.045, 0.052], (-0.01, 0.11))
    assert (few_images.is_evidence, few_images.holds) == (False, "seeds")
    assert few_images.interval == (-0.01, 0.11)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_runs_that_are_the_same_differ_by_nothing(seeds: int) -> None:
    right = np.random.default_rng(4).random((seeds, 1_000)) < 0.6
    same = Difference.of([0.0] * seeds, images_interval(right, right))
    assert same.mean == 0.0
    assert same.holds == "neither"
    assert same.is_none
    assert same.seeds == ((0.0, 0.0) if seeds == 3 else None)


def test_more_seeds_narrow_the_interval_and_copies_of_one_do_not() -> None:
    draw, label = np.random.default_rng(5), np.repeat(np.arange(5), 100)
    hard = draw.random(500) < 0.5
    chances = np.repeat([np.full(5, 0.6), np.full(5, 0.5)], 9, axis=0)
    first, second = np.split(models(draw, label, chances, hard), 2)
    widths = [width(images_interval(first[:seeds], second[:seeds], label)) for seeds in (1, 3, 9)]
    assert widths[0] > widths[1] > widths[2]
    assert width(images_interval(first[[0, 0, 0]], second[[0, 0, 0]], label)) == pytest.approx(widths[0])
    assert Difference.of([0.04, 0.05, 0.06, 0.05]).seeds[0] > Difference.of([0.04, 0.05, 0.06]).seeds[0]  # type: ignore[index]


def test_images_of_a_group_widen_the_interval_as_far_as_they_agree() -> None:
    draw, film = np.random.default_rng(6), np.repeat(np.arange(50), 10)
    label = film % 5
    alone = draw.random((2, 500)) < 0.6, draw.random((2, 500)) < 0.5
    plain, grouped = (width(images_interval(*alone, label, cluster=group)) for group in (None, film))
    assert plain <= grouped < 1.2 * plain  # images of a film agree by chance only
    together = tuple(np.repeat(draw.random((2, 50)) < chance, 10, axis=1) for chance in (0.6, 0.5))
    plain, grouped = (width(images_interval(*together, label, cluster=group)) for group in (None, film))
    assert grouped > 2.5 * plain  # 10 images are worth one: by the root of 10
    intervals = [
        paired_means_interval(together[0], np.ones((2, 500)), together[1], np.ones((2, 500)), cluster=g)
        for g in (None, film)
    ]
    assert width(intervals[1]) > 2.5 * width(intervals[0])
    assert images_interval(*together, label, cluster=np.arange(500)) == images_interval(*together, label)


def test_films_hold_the_truth_where_single_frames_would_not() -> None:
    draw, film = np.random.default_rng(7), np.repeat(np.arange(40), 8)
    held = {"frames": 0, "films": 0}
    for _ in range(200):
        first, second = (np.repeat(draw.random((2, 40)) < chance, 8, axis=1) for chance in (0.6, 0.5))
        for name, group in (("frames", None), ("films", film)):
            low, high = images_interval(first, second, cluster=group)  # type: ignore[misc]
            held[name] += low <= 0.1 <= high
    assert held["films"] >= 184
    assert held["frames"] < 150


def gain(first: np.ndarray, second: np.ndarray) -> float:
    return float(first.mean() - second.mean())


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]
