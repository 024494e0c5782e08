"""Coverage and accuracy at a threshold against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.evaluation.intervals import wilson
from longtail.evaluation.selective import (
    coverage_at,
    coverage_curve,
    selective_summary,
    threshold_for_accuracy,
    threshold_for_coverage,
)


def draw(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    confidence = random.integers(1, 40, count) / 40  # many ties
    return confidence, random.random(count) < confidence


def test_every_point_of_the_curve_is_what_counting_gives() -> None:
    confidence, correct = draw()
    curve = coverage_curve(confidence, correct)
    assert curve.threshold.tolist() == sorted(set(confidence), reverse=True)
    for threshold, coverage, accuracy in zip(curve.threshold, curve.coverage, curve.accuracy, strict=True):
        accepted = confidence >= threshold
        assert coverage == pytest.approx(accepted.mean())
        assert accuracy == pytest.approx(correct[accepted].mean())
    assert (curve.coverage[-1], curve.accuracy[-1]) == (1.0, correct.mean())


@pytest.mark.parametrize("wanted", [1e-9, 0.3, 0.5, 0.77, 1.0])
def test_the_threshold_of_a_coverage_keeps_enough_and_the_next_one_too_few(wanted: float) -> None:
    confidence, correct = draw()
    threshold = threshold_for_coverage(coverage_curve(confidence, correct), wanted)
    assert (confidence >= threshold).mean() >= wanted
    assert (confidence > threshold).mean() < wanted


@pytest.mark.parametrize("wanted", [0.0, 0.6, 0.75, 0.9])
def test_the_threshold_of_an_accuracy_keeps_as_many_as_it_can(wanted: float) -> None:
    confidence, correct = draw()
    threshold = threshold_for_accuracy(coverage_curve(confidence, correct), wanted)
    assert threshold is not None
    assert correct[confidence >= threshold].mean() >= wanted
    lower = [value for value in set(confidence) if value < threshold]
    assert all(correct[confidence >= value].mean() < wanted for value in lower)


def test_an_accuracy_that_no_confidence_gives() -> None:
    assert threshold_for_accuracy(coverage_curve([0.9, 0.8], [False, True]), 0.9) is None


def test_groups_are_those_of_the_true_classes_and_an_empty_one_has_no_figures() -> None:
    labels = np.array([0, 0, 1, 2, 2])
    correct = np.array([True, False, True, False, True])
    summary = selective_summary(np.array([0.9, 0.2, 0.9, 0.9, 0.9]), correct, labels, {"many": [0, 1], "few": [2]}, 0.5)
    assert summary["threshold"] == 0.5
    figures = {
        name: (summary[name]["num_images"], summary[name]["coverage"], summary[name]["accuracy"])  # type: ignore[literal-required]
        for name in ("overall", "many", "medium", "few")
    }
    assert figures == {
        "overall": (5, 0.8, 0.75),
        "many": (3, pytest.approx(2 / 3), 1.0),
        "medium": (0, None, None),
        "few": (2, 1.0, 0.5),
    }
    assert summary["medium"]["coverage_interval"] is None
    # Wilson's center is (p + z^2 / 2n) / (1 + z^2 / n), z = 1.96; of 3 images all right, the low end is 3 / (3 + z^2).
    assert summary["overall"]["accuracy_interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert summary["many"]["accuracy_interval"] == pytest.approx([2 / (2 + 1.96**2), 1.0], abs=1e-4)


def test_frames_that_are_right_and_kept_together_make_intervals_as_wide_as_so_many_films() -> None:
    labels, film = np.repeat([0, 1], 40), np.repeat(np.arange(20), 4)
    right, sure = (np.repeat(np.tile([True, True, each], 7)[:20], 4) for each in (False, True))
    sure &= np.repeat(np.arange(20) != 0, 4)
    summary = selective_summary(np.where(sure, 0.9, 0.1), right, labels, {"many": [0], "few": [1]}, 0.5, cluster=film)
    plain = selective_summary(np.where(sure, 0.9, 0.1), right, labels, {"many": [0], "few": [1]}, 0.5)
    assert summary["overall"]["accuracy"] == plain["overall"]["accuracy"]
    interval = wilson(19 * plain["overall"]["accuracy"], 19)
    assert summary["overall"]["accuracy_interval"] == pytest.approx(interval.tolist())
    assert summary["few"]["coverage_interval"] == pytest.approx(wilson(10, 10).tolist())
    assert plain["few"]["coverage_interval"] == pytest.approx(wilson(40, 40).tolist())


def test_a_confidence_at_the_threshold_is_sure_and_none_above_it_has_no_accuracy() -> None:
    at, above = coverage_at([0.5, 0.4], [True, True], 0.5), coverage_at([0.5, 0.4], [True, True], 0.6)
    assert (at["num_images"], at["coverage"], at["accuracy"]) == (2, 0.5, 1.0)
    assert (above["num_images"], above["coverage"], above["accuracy"]) == (2, 0.0, None)
    assert above["accuracy_interval"] is None


def test_no_image_and_shapes_that_differ_are_refused() -> None:
    for confidence, correct in (([], []), ([0.5], [True, False]), ([[0.5]], [[True]])):
        with pytest.raises(ValueError, match="N > 0"):
            coverage_curve(confidence, correct)
