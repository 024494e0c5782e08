"""Coverage and accuracy at a threshold against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.evaluation.coverage import (
    coverage_curve,
    kept_at,
    sure_summary,
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
        kept = confidence >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert accuracy == pytest.approx(correct[kept].mean())
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
    found = sure_summary(np.array([0.9, 0.2, 0.9, 0.9, 0.9]), correct, labels, {"many": [0, 1], "few": [2]}, 0.5)
    assert found["threshold"] == 0.5
    assert found["overall"] == {"num_images": 5, "coverage": 0.8, "accuracy": 0.75}
    assert found["many"] == {"num_images": 3, "coverage": pytest.approx(2 / 3), "accuracy": 1.0}
    assert found["medium"] == {"num_images": 0, "coverage": None, "accuracy": None}
    assert found["few"] == {"num_images": 2, "coverage": 1.0, "accuracy": 0.5}


def test_a_confidence_at_the_threshold_is_sure_and_none_above_it_has_no_accuracy() -> None:
    assert kept_at([0.5, 0.4], [True, True], 0.5) == {"num_images": 2, "coverage": 0.5, "accuracy": 1.0}
    assert kept_at([0.5, 0.4], [True, True], 0.6) == {"num_images": 2, "coverage": 0.0, "accuracy": None}


def test_no_image_and_shapes_that_differ_are_refused() -> None:
    for confidence, correct in (([], []), ([0.5], [True, False]), ([[0.5]], [[True]])):
        with pytest.raises(ValueError, match="N > 0 confidences"):
            coverage_curve(confidence, correct)
