"""When to say "not sure": how many predictions a threshold on the confidence keeps, and how many of those are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.clustered import intraclass_correlation, pooled_sample_size
from longtail.evaluation.intervals import Interval, wilson


class Coverage(TypedDict):
    """What a threshold keeps of some images: fractions in [0, 1], None where there is nothing to divide by."""

    num_images: int
    coverage: float | None
    accuracy: float | None
    coverage_interval: Interval | None
    accuracy_interval: Interval | None


class SelectiveSummary(TypedDict):
    """What a threshold keeps of a split and of the images whose true class is in each shot group."""

    threshold: float
    overall: Coverage
    many: Coverage
    medium: Coverage
    few: Coverage


@dataclass(frozen=True)
class CoverageCurve:
    """Coverage against accuracy, one point for every confidence that occurs, from the surest image on.

    Attributes:
        threshold: Confidence from which a prediction is kept, falling (P,).
        coverage: Share of the images kept, rising to 1 (P,).
        accuracy: Share of those that is right (P,).
    """

    threshold: FloatArray
    coverage: FloatArray
    accuracy: FloatArray


def coverage_curve(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> CoverageCurve:
    """Return what every possible threshold keeps. Images of equal confidence are kept together or not at all.

    References:
        [1] Geifman, El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017, section 2.

    Args:
        confidence: Probability of the predicted class (N,), N > 0.
        correct: Whether the prediction is right (N,).

    Raises:
        ValueError: There is no image, or the shapes do not fit.

    Example:
        >>> curve = coverage_curve([0.9, 0.5, 0.7, 0.7], [True, False, True, False])
        >>> curve.threshold.tolist(), curve.coverage.tolist()
        ([0.9, 0.7, 0.5], [0.25, 0.75, 1.0])
        >>> curve.accuracy.round(2).tolist()
        [1.0, 0.67, 0.5]
    """
    values, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise ValueError(f"coverage takes N > 0 confidences and N answers, got {values.shape} and {right.shape}.")
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal confidences
    kept = last + 1
    return CoverageCurve(ranked[last], kept / len(values), np.cumsum(right[order])[last] / kept)


def threshold_for_coverage(curve: CoverageCurve, coverage: float) -> float:
    """Return the highest threshold that keeps at least this share of the images.

    Args:
        curve: From :func:`coverage_curve`, on validation data.
        coverage: In (0, 1].

    Example:
        >>> threshold_for_coverage(coverage_curve([0.9, 0.5, 0.7, 0.6], [True, False, True, False]), 0.5)
        0.7
    """
    return float(curve.threshold[np.flatnonzero(curve.coverage >= coverage - 1e-12)[0]])


def threshold_for_accuracy(curve: CoverageCurve, accuracy: float) -> float | None:
    """Return the threshold that keeps most images while this share of them is right; None where none does.

    Args:
        curve: From :func:`coverage_curve`, on validation data.
        accuracy: In [0, 1].

    Example:
        >>> threshold_for_accuracy(coverage_curve([0.9, 0.5, 0.7, 0.6], [True, False, True, False]), 0.6)
        0.6
    """
    enough = np.flatnonzero(curve.accuracy >= accuracy - 1e-12)
    return float(curve.threshold[enough[-1]]) if len(enough) else None


def coverage_at(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, threshold: float, *, worth: tuple[float, float] | None = None
) -> Coverage:
    """Return what a threshold keeps: images whose confidence is at least that.

    The intervals are Wilson's. They take the threshold as given, and know nothing of how it was chosen.

    Args:
        confidence: Probability of the predicted class (N,).
        correct: Whether the prediction is right (N,).
        threshold: Confidence from which a prediction is kept.
        worth: How many independent images all of them, and those kept, are worth; their numbers when not given.

    Example:
        >>> found = coverage_at([0.9, 0.5, 0.7, 0.6], [True, False, True, False], 0.6)
        >>> found["coverage"], [round(end, 2) for end in found["coverage_interval"]]
        (0.75, [0.3, 0.95])
        >>> coverage_at([], [], 0.6)["accuracy_interval"] is None
        True
    """
    sure, right = np.asarray(confidence, dtype=np.float64) >= threshold, np.asarray(correct, dtype=bool)
    kept, size = int(sure.sum()), len(sure)
    coverage, accuracy = kept / size if size else None, float(right[sure].mean()) if kept else None
    of_all, of_kept = worth or (float(size), float(kept))
    return {
        "num_images": size,
        "coverage": coverage,
        "accuracy": accuracy,
        "coverage_interval": _ends(coverage, of_all),
        "accuracy_interval": _ends(accuracy, of_kept),
    }


def _ends(share: float | None, worth: float) -> Interval | None:
    return None if share is None else [float(end) for end in wilson(share * worth, worth)]


def selective_summary(
    confidence: FloatArray,
    correct: npt.NDArray[np.bool_],
    labels: IntArray,
    groups: Mapping[GroupName, Sequence[int] | IntArray],
    threshold: float,
    *,
    unit: IntArray | None = None,
) -> SelectiveSummary:
    """Return what a threshold keeps of all images and of each shot group.

    Args:
        confidence: Probability of the predicted class (N,).
        correct: Whether the prediction is right (N,).
        labels: True classes (N,).
        groups: Class indices of ``many``, ``medium`` and ``few``.
        threshold: Confidence from which a prediction is kept.
        unit: Number of what an image belongs to, as a film (N,): images of one are right, and kept, together, and the
            intervals allow for it. Images are independent when not given.

    Example:
        >>> groups = {"many": [0], "few": [1]}
        >>> found = selective_summary(np.array([0.9, 0.4]), np.array([True, False]), np.array([0, 1]), groups, 0.5)
        >>> found["overall"]["coverage"], found["many"]["coverage"], found["few"]["coverage"]
        (0.5, 1.0, 0.0)
    """
    sure = confidence >= threshold
    worth = None if unit is None else _worth(sure, correct, labels, unit)

    def kept(part: npt.NDArray[np.bool_]) -> Coverage:
        return coverage_at(confidence[part], correct[part], threshold, worth=None if worth is None else worth(part))

    many, medium, few = (kept(np.isin(labels, np.asarray(groups.get(name, ()), dtype=int))) for name in GROUP_NAMES)
    overall = kept(np.ones_like(sure))
    return {"threshold": threshold, "overall": overall, "many": many, "medium": medium, "few": few}


def _worth(
    sure: npt.NDArray[np.bool_], correct: npt.NDArray[np.bool_], labels: IntArray, unit: IntArray
) -> Callable[[npt.NDArray[np.bool_]], tuple[float, float]]:
    """What the images of a part, and those of them that are kept, are worth; correlations are those of all parts."""
    of_all = intraclass_correlation(labels, sure, unit)
    of_kept = intraclass_correlation(labels[sure], correct[sure], unit[sure])

    def worth(part: npt.NDArray[np.bool_]) -> tuple[float, float]:
        kept = part & sure
        return pooled_sample_size(labels[part], unit[part], of_all), pooled_sample_size(
            labels[kept], unit[kept], of_kept
        )

    return worth
