"""Calibration in more detail: a reliability diagram, its error with an interval, and coverage curves to average."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.counts import FloatArray, IntArray
from longtail.evaluation.intervals import LEVEL

BINS = 15
DRAWS = 200
LEAST = 30
"""From fewer independent images an interval would be too narrow."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: bins of equal width of the confidence, and what they add up to.

    Attributes:
        count: Images in each bin, shape (B,).
        confidence: Their mean confidence, shape (B,); NaN for an empty bin.
        accuracy: Share of them that is right, shape (B,); NaN for an empty bin.
        ece: Expected calibration error, in [0, 1]; NaN without images.
        interval: Its 95% interval; None for fewer than ``LEAST`` independent images.
        overconfidence: Mean confidence minus accuracy, over all images; NaN without images.
    """

    count: IntArray
    confidence: FloatArray
    accuracy: FloatArray
    ece: float
    interval: tuple[float, float] | None
    overconfidence: float


def reliability(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    bins: int = BINS,
    unit: npt.ArrayLike | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Reliability:
    """Compare confidence and accuracy, with a bootstrap interval of the expected calibration error.

    The error ``e = sum_b |d_b|`` of a finite sample is too large on average: gaps ``d_b`` between accuracy and
    confidence that are there by chance count as well, the more so the fewer images. Resampling shows how much the gaps
    vary, and adding that variation to gaps taken for true shows what chance adds to the error; the interval takes it
    out again. True gaps lie between two extremes: all that was measured, and only what exceeds two standard errors. The
    interval holds what follows from either, and the measured ``e``. In simulations with 30 to 3,500 images it held the
    true error in 85 to 100 of 100 samples; quantiles of resampled errors held it in none where a model was calibrated.

    References:
        [1] Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, ICML 2017, section 2.
        [2] Davison, Hinkley, Bootstrap Methods and their Application, 1997, section 5.2 (the basic interval).

    Args:
        confidence: Probability of the predicted class, shape (N,).
        correct: Whether the prediction is right, shape (N,).
        bins: The number of bins B.
        unit: What is independent of each other, one number an image, shape (N,): whole units are drawn (the frames of
            a film stay together). The image when not given.
        draws: Resamples; 0 for no interval.
        seed: Of the resamples.

    Example:
        >>> found = reliability([0.75, 0.75, 0.95, 0.95], [True, False, True, True], bins=4)
        >>> found.count.tolist(), round(found.ece, 3), round(found.overconfidence, 3)
        ([0, 0, 2, 2], 0.15, 0.1)
    """
    import torch

    from longtail.evaluation.calibration import bin_confidences, expected_calibration_error, reliability_table

    sure = torch.as_tensor(np.array(confidence, dtype=np.float64))
    right = torch.as_tensor(np.array(correct, dtype=bool))

    def gaps(rows: IntArray) -> FloatArray:
        count, confidences, hits = bin_confidences(sure[rows], right[rows], num_bins=bins).numpy()
        return np.asarray((hits - confidences) / count.sum(), dtype=np.float64)

    sums = bin_confidences(sure, right, num_bins=bins)
    table = reliability_table(sums)
    resampled = [gaps(rows) for rows in _resamples(len(sure), unit, draws, seed)]
    measured = gaps(np.arange(len(sure))) if resampled else None
    return Reliability(
        np.array([row.count for row in table], dtype=np.int64),
        np.array([row.confidence for row in table], dtype=np.float64),
        np.array([row.accuracy for row in table], dtype=np.float64),
        float(expected_calibration_error(sums)),
        None if measured is None else _interval(measured, np.stack(resampled)),
        float(sure.mean() - right.double().mean()),
    )


def accuracy_at_coverage(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, coverage: FloatArray, weight: npt.ArrayLike | None = None
) -> FloatArray:
    """Accuracy of the surest images at given coverages, so that curves of several runs can be averaged.

    Where a coverage falls among images of equal confidence, as many of these are taken as it needs, in the proportion
    of right ones that they have.

    Args:
        confidence: Probability of the predicted class, shape (N,).
        correct: Whether the prediction is right, shape (N,).
        coverage: In (0, 1].
        weight: How much each image counts, shape (N,); all the same when not given.

    Returns:
        Of the shape of ``coverage``.

    Example:
        >>> right = [True, True, False, False]
        >>> accuracy_at_coverage([0.9, 0.7, 0.7, 0.5], right, np.array([0.25, 0.5, 1.0])).tolist()
        [1.0, 0.75, 0.5]
    """
    sure = np.asarray(confidence, dtype=np.float64)
    worth = np.ones(len(sure)) if weight is None else np.asarray(weight, dtype=np.float64)
    order = np.argsort(-sure, kind="stable")
    last = np.append(np.diff(sure[order]) != 0, True)  # of each run of equal confidences
    kept, right = (np.cumsum(part[order])[last] / worth.sum() for part in (worth, worth * np.asarray(correct)))
    return np.asarray(np.interp(coverage, np.append(0.0, kept), np.append(0.0, right)) / coverage, dtype=np.float64)


def _resamples(images: int, unit: npt.ArrayLike | None, draws: int, seed: int) -> Iterator[IntArray]:
    """Row numbers of one resample after the other: as many units as there are, with replacement."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(images) if unit is None else np.unique(np.asarray(unit), return_inverse=True)[1]
    units = int(numbers.max(initial=-1)) + 1
    if units < LEAST:
        return
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    for _ in range(draws):
        drawn = rng.integers(units, size=units)
        yield drawn if unit is None else np.concatenate([members[number] for number in drawn])


def _interval(gaps: FloatArray, resampled: FloatArray) -> tuple[float, float]:
    """The interval of ``sum |gaps|``, shape (B,), from gaps of resamples, shape (draws, B)."""
    value, noise = float(np.abs(gaps).sum()), resampled - gaps
    large = np.abs(gaps) > 2 * resampled.std(axis=0)
    low, high = value, value
    for centre in (gaps, np.where(large, gaps, 0.0)):
        added = np.abs(centre + noise).sum(axis=1) - np.abs(centre).sum()
        least, most = np.quantile(added, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = min(low, value - float(most)), max(high, value - float(least))
    return max(low, 0.0), min(high, 1.0)
