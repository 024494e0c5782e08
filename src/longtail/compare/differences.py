"""Differences of figures between configurations, with intervals over their common test images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from longtail.compare.pairing import Between, Runs, Sides, difference_between, measured
from longtail.compare.wording import Spread, mean_interval
from longtail.counts import GROUP_NAMES, IntArray
from longtail.evaluation.intervals import wilson
from longtail.evaluation.significance import Difference, apart_interval, matched_gain, means_interval
from longtail.run.result import Ends, Metrics, Predictions, RunResult

Counted = Callable[[RunResult, Predictions], tuple[npt.ArrayLike, npt.ArrayLike]]
ROUNDED = 1e-4
"""A figure counted again from the predictions may be so far from the one that was kept."""


def figure_of(run: RunResult, split: str | None, key: str) -> float | None:
    """A figure of ``metrics.json``; None where it was not measured."""
    metrics = measured(run, split)
    return None if metrics is None else metrics[key]


def figure_difference(runs: Runs, baseline: Runs, split: str | None, key: str) -> Difference | None:
    """By how much a figure of some runs exceeds that of others; see :func:`difference_between`.

    If the runs kept predictions of the same test images, those are matched. If not, the interval over images can only
    be derived from the interval of each side. As that is too wide, it is used only if there are too few seeds, or if
    the sides were tested on different images, which could explain the whole difference.

    Args:
        runs: Of one configuration.
        baseline: Of the other.
        split: Where they were measured.
        key: A figure of ``metrics.json``.
    """

    def value(run: RunResult) -> float | None:
        return figure_of(run, split, key)

    def matched(mine: Runs, base: Runs) -> Ends | None:
        difference = matched_interval(mine, base, key) if split == "test" else None
        gain = (mean_figure(mine, split, key) or 0.0) - (mean_figure(base, split, key) or 0.0)
        # Predictions are those of the finished run: after an earlier stage they are of another model.
        if difference is None or not math.isclose(difference[0], gain, abs_tol=ROUNDED):
            return None
        return difference[1]

    change = difference_between(runs, baseline, split, value, matched)
    if change is None or change.images is not None:
        return change
    sides = Sides.of(runs, baseline, split, value)
    if change.seeds is not None and _tested_alike(sides.mine, sides.base, split):
        return change
    return replace(change, images=_apart(sides.mine, sides.base, split, key))


def mean_figure(runs: Runs, split: str | None, key: str) -> float | None:
    """The mean of a figure over runs; None if no run has it."""
    spread = Spread.of([figure_of(run, split, key) for run in runs])
    return spread.mean if spread else None


def _tested_alike(mine: Runs, base: Runs, split: str | None) -> bool:
    return split != "test" or all(one.was_tested_as(two) for one in mine for two in base)


def _apart(mine: Runs, base: Runs, split: str | None, key: str) -> Ends | None:
    """The interval of a difference of means from the interval of each figure; None for a figure without one."""
    sides = [(mean_figure(runs, split, key), mean_interval(_intervals(runs, split, key))) for runs in (mine, base)]
    (first, ends), (second, other) = sides
    if first is None or second is None or ends is None or other is None:
        return None
    return apart_interval(first, ends, second, other)


def _intervals(runs: Runs, split: str | None, key: str) -> list[Ends | None]:
    figures: list[Metrics | None] = [measured(run, split) for run in runs]
    return [metrics.intervals.get(key) if metrics else None for metrics in figures]


def matched_interval(mine: Runs, base: Runs, key: str) -> tuple[float, Ends] | None:
    """The difference of two configurations by their predictions of the same images, and its interval over images.

    Args:
        mine: Runs of the first. If every seed has its own test images, each needs a partner at the same position in
            ``base``, and the interval is the mean over the pairs.
        base: Runs of the second.
        key: ``"accuracy"``, ``"balanced_accuracy"`` or a shot group.

    Returns:
        None for another figure, and where the runs did not keep predictions of the same images in the same order.
    """
    if key not in (*GROUP_NAMES, "accuracy", "balanced_accuracy"):
        return None
    if key in GROUP_NAMES and len({run.group_of for run in (*mine, *base)}) > 1:
        return None
    parts = _same_images(mine, base)
    differences = [_matched(first, second, key) for first, second in parts or []]
    measured_parts = [part for part in differences if part is not None]
    ends = mean_interval([part[1] for part in measured_parts])
    if ends is None or len(measured_parts) < len(differences):
        return None
    return float(np.mean([part[0] for part in measured_parts])), ends


def _same_images(mine: Runs, base: Runs) -> list[tuple[Runs, Runs]] | None:
    """Divide runs into parts with the same test images: one of all runs, or one per pair; None if neither works."""
    if any(run.predictions is None for run in (*mine, *base)):
        return None
    if any(run.test is None or (run.test.unit != "image" and _group([run]) is None) for run in (*mine, *base)):
        return None
    hashes = [[run.predictions.images for run in side if run.predictions] for side in (mine, base)]
    if len(set(hashes[0] + hashes[1])) == 1:
        return [(mine, base)]
    return [([one], [two]) for one, two in zip(mine, base, strict=True)] if hashes[0] == hashes[1] else None


def _group(runs: Runs) -> IntArray | None:
    """The group of each test image; None if images are independent or groups were not kept."""
    together = [run for run in runs if run.test is not None and run.test.unit != "image"]
    return next((run.predictions.group for run in together if run.predictions is not None), None)


def _matched(mine: Runs, base: Runs, key: str) -> tuple[float, Ends] | None:
    """The matched difference of runs that were all tested on the same images."""
    assert mine[0].predictions is not None
    label, group = mine[0].predictions.label, _group([*mine, *base])
    kept = np.array([key not in GROUP_NAMES or name == key for name in mine[0].group_of])[label]
    right = [np.stack([_right(run)[kept] for run in side]) for side in (mine, base)]
    group = None if group is None else group[kept]
    return matched_gain(label[kept], right[0], right[1], balanced=key != "accuracy", group=group)


def _right(run: RunResult) -> npt.NDArray[np.bool_]:
    assert run.predictions is not None
    return np.asarray(run.predictions.prediction == run.predictions.label)


def difference_of_shares(one: float, images: float, two: float, base: float) -> Difference:
    """The difference of two shares of images that cannot be matched, with its interval.

    Args:
        one: The first share.
        images: Number of images of the first.
        two: The second share.
        base: Number of images of the second.

    Example:
        >>> difference_of_shares(0.5, 100, 0.2, 100).is_evidence, difference_of_shares(0.5, 4, 0.2, 5).is_evidence
        (True, False)
    """
    ends = [wilson(share * count, count).tolist() for share, count in ((one, images), (two, base))]
    return Difference(one - two, None, 1, images=apart_interval(one, ends[0], two, ends[1]))


def counted_between(counted: Counted, *, most: float = 1.0) -> Between:
    """Return a function for the interval of a difference of means over some test images, matched by image.

    Args:
        counted: A number of each test image of a run, and whether the image counts, shape (N,) each.
        most: By how much two such means can differ at most, 1 for shares.

    Returns:
        A function of the runs of two configurations: None if they kept no predictions of the same images, or if images
        form groups that were not kept.
    """

    def sums(runs: Runs) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        parts = [counted(run, run.predictions) for run in runs if run.predictions is not None]
        return np.array([number for number, _ in parts]), np.array([counts for _, counts in parts])

    def between(mine: Runs, base: Runs) -> Ends | None:
        parts = _same_images(mine, base) or []
        return mean_interval(
            [means_interval(*sums(one), *sums(two), most=most, group=_group([*one, *two])) for one, two in parts]
        )

    return between
