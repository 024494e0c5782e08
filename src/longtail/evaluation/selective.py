"""Selective classification: coverage and accuracy of the predictions that a confidence threshold accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.evaluation.intervals import Interval, intraclass_correlation, pooled_sample_size, share_interval
from longtail.evaluation.metrics import Groups, Mask


class Coverage(TypedDict):
    """Coverage and accuracy of some images at a threshold: fractions in [0, 1], None where they are undefined."""

    num_images: int
    coverage: float | None
    accuracy: float | None
    coverage_interval: Interval | None
    accuracy_interval: Interval | None


class SelectiveSummary(TypedDict):
    """Coverage and accuracy at a threshold, of a split and of the images whose true class is in each shot group."""

    threshold: float
    overall: Coverage
    many: Coverage
    medium: Coverage
    few: Coverage


@dataclass(frozen=True)
class CoverageCurve:
    """Coverage against accuracy, one point for every confidence that occurs, from the surest image on.

    Attributes:
        threshold: Least confidence of an accepted prediction, falling (P,).
        coverage: Share of the images accepted, rising to 1 (P,).
        accuracy: Share of those that is right (P,).
    """

    threshold: FloatArray
    coverage: FloatArray
    accuracy: FloatArray


def coverage_curve(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> CoverageCurve:
    """Return coverage and accuracy at every possible threshold; images of equal confidence are accepted together.

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
    accepted = last + 1
    return CoverageCurve(ranked[last], accepted / len(values), np.cumsum(right[order])[last] / accepted)


def threshold_for_coverage(curve: CoverageCurve, coverage: float) -> float:
    """Return the highest threshold that accepts at least this share of the images.

    Args:
        curve: From :func:`coverage_curve`, on validation data.
        coverage: In (0, 1].

    Example:
        >>> threshold_for_coverage(coverage_curve([0.9, 0.5, 0.7, 0.6], [True, False, True, False]), 0.5)
        0.7
    """
    return float(curve.threshold[np.flatnonzero(curve.coverage >= coverage - 1e-12)[0]])


def threshold_for_accuracy(curve: CoverageCurve, accuracy: float) -> float | None:
    """Return the threshold of largest coverage at which this share is right; None where there is none.

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
    confidence: npt.ArrayLike, correct: npt.ArrayLike, threshold: float, *, sizes: tuple[float, float] | None = None
) -> Coverage:
    """Return coverage and accuracy at a threshold: images with at least this confidence are accepted.

    The intervals are Wilson's. They take the threshold as given and do not account for its choice.

    Args:
        confidence: Probability of the predicted class (N,).
        correct: Whether the prediction is right (N,).
        threshold: Least confidence of an accepted prediction.
        sizes: Effective sample size of all images and of the accepted ones; their numbers when not given.

    Example:
        >>> point = coverage_at([0.9, 0.5, 0.7, 0.6], [True, False, True, False], 0.6)
        >>> point["coverage"], [round(end, 2) for end in point["coverage_interval"]]
        (0.75, [0.3, 0.95])
        >>> coverage_at([], [], 0.6)["accuracy_interval"] is None
        True
    """
    sure, right = np.asarray(confidence, dtype=np.float64) >= threshold, np.asarray(correct, dtype=bool)
    accepted, size = int(sure.sum()), len(sure)
    coverage, accuracy = accepted / size if size else None, float(right[sure].mean()) if accepted else None
    all_size, accepted_size = sizes or (float(size), float(accepted))
    return {
        "num_images": size,
        "coverage": coverage,
        "accuracy": accuracy,
        "coverage_interval": share_interval(coverage, all_size),
        "accuracy_interval": share_interval(accuracy, accepted_size),
    }


def selective_summary(
    confidence: FloatArray,
    correct: npt.NDArray[np.bool_],
    labels: IntArray,
    groups: Groups,
    threshold: float,
    *,
    cluster: IntArray | None = None,
) -> SelectiveSummary:
    """Return coverage and accuracy at a threshold, of all images and of each shot group.

    Args:
        confidence: Probability of the predicted class (N,).
        correct: Whether the prediction is right (N,).
        labels: True classes (N,).
        groups: Class indices of ``many``, ``medium`` and ``few``.
        threshold: Least confidence of an accepted prediction.
        cluster: Number of the cluster of each image, such as its film (N,): images of one are right, and accepted,
            together, and the intervals allow for it. Images are independent when not given.

    Example:
        >>> groups = {"many": [0], "few": [1]}
        >>> summary = selective_summary(np.array([0.9, 0.4]), np.array([True, False]), np.array([0, 1]), groups, 0.5)
        >>> [summary[part]["coverage"] for part in ("overall", "many", "few")]
        [0.5, 1.0, 0.0]
    """
    sure = confidence >= threshold
    if cluster is not None:  # correlations are those of all parts together
        all_correlation = intraclass_correlation(labels, sure, cluster)
        sure_correlation = intraclass_correlation(labels[sure], correct[sure], cluster[sure])

    def coverage(part: Mask) -> Coverage:
        sizes = None
        if cluster is not None:
            both = part & sure
            sizes = (
                pooled_sample_size(labels[part], cluster[part], all_correlation),
                pooled_sample_size(labels[both], cluster[both], sure_correlation),
            )
        return coverage_at(confidence[part], correct[part], threshold, sizes=sizes)

    masks = (np.isin(labels, np.asarray(groups.get(name, ()), dtype=int)) for name in GROUP_NAMES)
    many, medium, few = map(coverage, masks)
    return {"threshold": threshold, "overall": coverage(np.ones_like(sure)), "many": many, "medium": medium, "few": few}
