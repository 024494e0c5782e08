"""How far a figure differs between configurations, and the interval of it from the images where there is one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES
from longtail.evaluation.differences import apart_interval, images_interval, means_interval
from longtail.evaluation.intervals import wilson
from longtail.report.pairing import Between, difference_between, measured
from longtail.report.runs import Ends, Predictions, RunResult
from longtail.report.text import Spread

Counted = Callable[[RunResult, Predictions], tuple[npt.ArrayLike, npt.ArrayLike]]
ROUNDED = 1e-4
"""A figure counted again from the predictions may be so far from the one that was kept."""


def figure_of(run: RunResult, split: str | None, key: str) -> float | None:
    """A figure of ``metrics.json``; None where it was not measured."""
    metrics = measured(run, split)
    return None if metrics is None else metrics[key]


def figure_difference(
    runs: Sequence[RunResult], baseline: Sequence[RunResult], split: str | None, key: str
) -> Spread | None:
    """By how much a figure of some runs exceeds that of others; see :func:`longtail.report.pairing.difference_between`.

    Args:
        runs: Of one configuration.
        baseline: Of the other.
        split: Where they were measured.
        key: A figure of ``metrics.json``.
    """
    return difference_between(
        runs,
        baseline,
        split,
        lambda run: figure_of(run, split, key),
        lambda one, two: figure_interval(one, two, split, key),
    )


def figure_interval(one: RunResult, two: RunResult, split: str | None, key: str) -> Ends | None:
    """By how much a figure of one run exceeds that of another, as an interval.

    Where both kept their predictions of the same test images, those are matched. Where not, and where images belong
    together, it is made of the interval of each, which is wider.

    Args:
        one: The first run.
        two: The second.
        split: Where they were measured.
        key: A figure of ``metrics.json``.

    Returns:
        None for a figure that has no interval, as the calibration error.
    """
    mine, base = measured(one, split), measured(two, split)
    if mine is None or base is None or mine[key] is None or base[key] is None:
        return None
    first, second = mine[key] or 0.0, base[key] or 0.0
    if split == "test" and mine.unit == base.unit == "image":
        found = matched_interval(one, two, key)
        # Predictions are those of the finished run: after an earlier stage they are of another model.
        if found is not None and math.isclose(found[0], first - second, abs_tol=ROUNDED):
            return found[1]
    ends = [metrics.intervals.get(key) for metrics in (mine, base)]
    return apart_interval(first, ends[0], second, ends[1]) if ends[0] and ends[1] else None


def matched_interval(one: RunResult, two: RunResult, key: str) -> tuple[float, Ends] | None:
    """The difference of two runs by their predictions of the same images, and its interval.

    Args:
        one: The first run.
        two: The second.
        key: ``"accuracy"``, ``"balanced_accuracy"`` or a shot group.

    Returns:
        None for another figure, and where the runs did not keep predictions of the same images in the same order.
    """
    mine, base = one.predictions, two.predictions
    grouped = key in GROUP_NAMES
    if mine is None or base is None or not np.array_equal(mine.label, base.label) or one.group_of != two.group_of:
        return None
    if not grouped and key not in ("accuracy", "balanced_accuracy"):
        return None
    kept = np.array([not grouped or name == key for name in one.group_of])[mine.label]
    label = mine.label[kept]
    right = [(found.prediction == found.label)[kept] for found in (mine, base)]
    images = np.bincount(label)
    # With as many images of each class the two accuracies are one figure, which gets one interval.
    alike = np.unique(images[images > 0]).size == 1
    ends = images_interval(right[0], right[1], label if alike or key != "accuracy" else None)
    if ends is None:
        return None
    gain = right[0].astype(np.float64) - right[1]
    by_class = np.bincount(label, weights=gain)[images > 0] / images[images > 0]
    return float(gain.mean() if key == "accuracy" else by_class.mean()), ends


def difference_of_shares(one: float, images: float, two: float, base: float) -> Spread:
    """The difference of two shares of images that cannot be matched, with its interval.

    Args:
        one: The first share.
        images: Of so many images.
        two: The second.
        base: Likewise.

    Example:
        >>> difference_of_shares(0.5, 100, 0.2, 100).is_evidence, difference_of_shares(0.5, 4, 0.2, 5).is_evidence
        (True, False)
    """
    ends = [wilson(share * count, count).tolist() for share, count in ((one, images), (two, base))]
    return Spread(one - two, None, 1, apart_interval(one, ends[0], two, ends[1]))


def counted_between(counted: Counted, *, most: float = 1.0) -> Between:
    """The interval of the difference of two runs in a mean over some of their test images, from the images matched.

    Args:
        counted: A number of each test image of a run, and whether the image counts, shape (N,) each.
        most: By how much two such means can differ at most, 1 for shares.

    Returns:
        A function of two runs: None where they kept no predictions of the same images, or images belong together.
    """

    def between(one: RunResult, two: RunResult) -> Ends | None:
        mine, base = one.predictions, two.predictions
        if mine is None or base is None or not np.array_equal(mine.label, base.label):
            return None
        if any(run.test is None or run.test.unit != "image" for run in (one, two)):
            return None
        return means_interval(*counted(one, mine), *counted(two, base), most=most)

    return between
