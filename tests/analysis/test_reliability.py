"""Reliability diagrams, the interval of the calibration error, and coverage curves at given coverages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longtail.analysis.reliability import LEAST, accuracy_at_coverage, reliability
from longtail.evaluation.calibration import bin_confidences, expected_calibration_error


def sample(images, over=0.0, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(2.5, 1.5, images)
    return confidence, rng.random(images) < np.clip(confidence - over, 0, 1)


def test_the_error_is_that_of_the_evaluation():
    confidence, right = sample(500, 0.1)
    bins = bin_confidences(torch.as_tensor(confidence), torch.as_tensor(right))
    found = reliability(confidence, right, draws=0)
    assert found.ece == pytest.approx(expected_calibration_error(bins).item())
    assert found.count.tolist() == bins[0].tolist()
    assert found.interval is None
    assert found.overconfidence == pytest.approx(confidence.mean() - right.mean())


def test_a_perfect_and_a_constant_predictor():
    perfect = reliability(np.ones(50), np.ones(50, dtype=bool))
    assert (perfect.ece, perfect.interval, perfect.overconfidence) == (0.0, (0.0, 0.0), 0.0)
    wrong = reliability(np.ones(50), np.zeros(50, dtype=bool))
    assert (wrong.ece, wrong.interval, wrong.overconfidence) == (1.0, (1.0, 1.0), 1.0)
    assert wrong.accuracy[-1] == 0.0
    assert np.isnan(wrong.accuracy[:-1]).all()


def test_no_image_is_unknown_and_one_image_has_no_interval():
    nothing = reliability([], [])
    assert np.isnan(nothing.ece)
    assert np.isnan(nothing.overconfidence)
    assert nothing.interval is None
    assert np.isnan(nothing.accuracy).all()
    one = reliability([0.8], [True])
    assert one.ece == pytest.approx(0.2)
    assert one.interval is None


@pytest.mark.parametrize("over", [0.0, 0.1])
def test_the_interval_holds_the_true_error(over):
    true = reliability(*sample(200_000, over, seed=99), draws=0).ece
    found = [reliability(*sample(300, over, seed), draws=100).interval for seed in range(25)]
    assert sum(low <= true <= high for low, high in found) >= 20


def test_the_interval_holds_the_measured_error_and_narrows_with_images():
    few, many = (reliability(*sample(images, 0.1), draws=100) for images in (60, 3000))
    for found in (few, many):
        assert 0 <= found.interval[0] <= found.ece <= found.interval[1] <= 1
    assert many.interval[1] - many.interval[0] < 0.4 * (few.interval[1] - few.interval[0])


def test_images_of_one_unit_are_drawn_together():
    confidence, right = sample(60, 0.2)
    frames = [np.repeat(values, 20) for values in (confidence, right)]
    apart = reliability(*frames)
    together = reliability(*frames, unit=np.repeat(np.arange(60), 20))
    alone = reliability(confidence, right)
    assert together.ece == pytest.approx(alone.ece)
    assert np.ptp(together.interval) == pytest.approx(np.ptp(alone.interval), rel=0.25)
    assert np.ptp(apart.interval) < 0.5 * np.ptp(together.interval)


def test_too_few_units_have_no_interval_however_many_images():
    confidence, right = sample(1000)
    assert reliability(confidence, right, unit=np.arange(1000) % (LEAST - 1)).interval is None
    assert reliability(confidence, right, unit=np.arange(1000) % LEAST, draws=20).interval is not None


def test_the_same_seed_gives_the_same_interval():
    assert reliability(*sample(100), seed=3).interval == reliability(*sample(100), seed=3).interval


def test_coverage_is_read_between_ties_by_their_share_of_right_ones():
    confidence, right = [0.9, 0.5, 0.5, 0.5, 0.5], [True, True, False, False, False]
    found = accuracy_at_coverage(confidence, right, np.array([0.2, 0.6, 1.0]))
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.4])


def test_coverage_agrees_with_counting_the_surest_images():
    confidence, right = sample(200, 0.1)
    order = np.argsort(-confidence)
    grid = np.array([0.1, 0.5, 1.0])
    expected = [right[order[: round(share * 200)]].mean() for share in grid]
    assert accuracy_at_coverage(confidence, right, grid).tolist() == pytest.approx(expected)


def test_a_single_image_is_covered_at_every_coverage():
    assert accuracy_at_coverage([0.7], [True], np.array([0.02, 1.0])).tolist() == [1.0, 1.0]


def test_weights_make_every_class_count_the_same_where_all_images_are_answered():
    confidence, right, weight = [0.9, 0.8, 0.7, 0.6], [True, True, True, False], [1 / 3, 1 / 3, 1 / 3, 1]
    assert accuracy_at_coverage(confidence, right, np.array([0.5, 1.0]), weight).tolist() == pytest.approx([1.0, 0.5])
