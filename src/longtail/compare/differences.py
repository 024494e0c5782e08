"""Differences between configurations: runs paired by seed and images, intervals over both, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean, variance

import numpy as np
import numpy.typing as npt

from longtail.compare.seeds import mean_interval
from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.evaluation import significance
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.evaluation.metrics import Mask
from longtail.formatting import percent, signed
from longtail.run.result import Ends, RunResult
from longtail.run.tables import Predictions

Runs = Sequence[RunResult]
Measure = Callable[[RunResult], float | None]
Between = Callable[[Runs, Runs], Ends | None]
"""Returns the interval over test images of the mean of some runs minus that of others; partners in the same order."""
Counted = Callable[[RunResult, Predictions], tuple[npt.ArrayLike, npt.ArrayLike]]
ROUNDED = 1e-4
"""Tolerance between a figure of ``metrics.json`` and the same figure computed from the predictions."""


@dataclass(frozen=True)
class Pairing:
    """The runs of two configurations that belong together.

    Attributes:
        pairs: A run, and the run of the baseline with its seed and its training images.
        alone: Seeds of runs on either side that have no partner, rising.
    """

    pairs: tuple[tuple[RunResult, RunResult], ...]
    alone: tuple[int, ...]

    @classmethod
    def of(cls, runs: Sequence[RunResult], baseline: Sequence[RunResult], split: str | None) -> Pairing:
        """Pair the runs that were measured on ``split``; none where a seed occurs twice, as its partner is unknown."""
        sides = [[run for run in side if run.metrics(split) is not None] for side in (runs, baseline)]
        left, right = ({(run.seed, run.record.data_hash): run for run in side} for side in sides)
        repeated = len(left) < len(sides[0]) or len(right) < len(sides[1])
        if repeated or any(run.seed is None for run in (*sides[0], *sides[1])):
            return cls((), ())
        shared = [key for key in left if key in right]
        alone = {run.seed for key, run in (*left.items(), *right.items()) if key not in shared and run.seed is not None}
        return cls(tuple((left[key], right[key]) for key in shared), tuple(sorted(alone)))


def _sides(runs: Runs, baseline: Runs, split: str | None, value: Measure) -> tuple[Runs, Runs, bool]:
    """Return the runs on both sides of a difference, and whether they are partners in the same order.

    They are the pairs with both runs measured; without pairs, all measured runs.
    """
    pairs = [pair for pair in Pairing.of(runs, baseline, split).pairs if None not in map(value, pair)]
    if pairs:
        return [mine for mine, _ in pairs], [base for _, base in pairs], True
    mine, base = ([run for run in side if value(run) is not None] for side in (runs, baseline))
    return mine, base, False


def difference_between(
    runs: Runs, baseline: Runs, split: str | None, value: Measure, between: Between | None = None
) -> significance.Difference | None:
    """Compute the difference of a number between two configurations, with the intervals that make it evidence.

    From three seeds on, the interval over seeds is Student's of the pairs, or Welch's of the means if no run has a
    partner. The interval over images is that of ``between`` for the average over seeds.

    Args:
        runs: Runs of one configuration.
        baseline: Runs of the other.
        split: The split they were measured on.
        value: The number.
        between: Gives the interval over the test images, if there is one.

    Returns:
        None if either side was not measured.
    """
    *sides, paired = _sides(runs, baseline, split, value)
    mine, base = ([number for run in side if (number := value(run)) is not None] for side in sides)
    if not (mine and base):
        return None
    images = between(*sides) if between else None
    if paired:
        return significance.Difference.of([a - b for a, b in zip(mine, base, strict=True)], images)
    # Without pairs the deviations of both sides add up.
    n = min(len(mine), len(base))
    std = (variance(mine) + variance(base)) ** 0.5 if n > 1 else None
    independent = all(are_independent([run for run in side if run.seed is not None]) for side in sides)
    seeds = significance.welch_interval(mine, base) if independent and n >= significance.ENOUGH_SEEDS else None
    return significance.Difference(fmean(mine) - fmean(base), std or None, n, images, seeds)


def are_independent(runs: Runs) -> bool:
    """Whether no two runs are the same by seed and images, so that their deviation tells of chance."""
    return len({(run.seed, run.record.data_hash) for run in runs}) == len(runs)


def were_tested_alike(runs: Runs, baseline: Runs, split: str | None) -> bool:
    """Whether all runs of both sides, or each run and its partner, may have been measured on the same images."""

    def alike(run: RunResult, other: RunResult) -> bool:
        return run.was_tested_as(other) if split == "test" else run.record.data_hash == other.record.data_hash

    pairs = zip(runs, baseline, strict=False)
    return all(alike(*pair) for pair in (pairs if len(runs) == len(baseline) else product(runs, baseline)))


def share_groups(runs: Runs, baseline: Runs, split: str | None) -> bool:
    """Whether the shot groups are the same classes on both sides: of each pair, or of all runs without pairs."""
    pairs = Pairing.of(runs, baseline, split).pairs or product(runs, baseline)
    return all(run.group_of == other.group_of for run, other in pairs)


def figure_of(run: RunResult, split: str | None, key: str) -> float | None:
    """Return a figure of ``metrics.json``; None where it was not measured."""
    metrics = run.metrics(split)
    return None if metrics is None else metrics[key]


def figure_interval(runs: Runs, split: str | None, key: str) -> Ends | None:
    """The interval of a figure over test images, the mean over the measured runs; None where one has none."""
    splits = [metrics for run in runs if (metrics := run.metrics(split)) is not None]
    return mean_interval([metrics.intervals.get(key) for metrics in splits])


def figure_difference(runs: Runs, baseline: Runs, split: str | None, key: str) -> significance.Difference | None:
    """Compute the difference of a figure between two configurations; see :func:`difference_between`.

    If the runs kept predictions of the same test images, those are matched. If not, the interval over images can only
    be derived from the interval of each side. As that is too wide, it is used only if there are too few seeds, or if
    the sides were tested on different images, which could explain the whole difference.

    Args:
        runs: Runs of one configuration.
        baseline: Runs of the other.
        split: The split they were measured on.
        key: A figure of ``metrics.json``; of a shot group there is no difference where it is other classes.
    """
    if key in GROUP_NAMES and not share_groups(runs, baseline, split):
        return None

    def value(run: RunResult) -> float | None:
        return figure_of(run, split, key)

    change = difference_between(runs, baseline, split, value)
    if change is None:
        return None
    mine, base, _ = _sides(runs, baseline, split, value)
    matched = matched_interval(mine, base, key) if split == "test" else None
    # Predictions are those of the finished run: after an earlier stage they are of another model.
    if matched is not None and math.isclose(matched[0], change.mean, abs_tol=ROUNDED):
        return replace(change, images=matched[1])
    first_ends, second_ends = (figure_interval(side, split, key) for side in (mine, base))
    seeds_decide = change.seeds is not None and were_tested_alike(mine, base, split)
    if seeds_decide or first_ends is None or second_ends is None:
        return change
    first, second = (fmean(number for run in side if (number := value(run)) is not None) for side in (mine, base))
    return replace(change, images=significance.unpaired_interval(first, first_ends, second, second_ends))


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
    parts = [_matched(first, second, key) for first, second in _same_images(mine, base)]
    interval = mean_interval([part and part[1] for part in parts])
    return interval and (float(np.mean([part[0] for part in parts if part is not None])), interval)


def prior_between(prior: FloatArray) -> Between:
    """Return a function for the interval over test images of a difference in accuracy under another test prior.

    Args:
        prior: Share of each class, above 0, shape (C,); classes without test images are left out.

    Returns:
        A function of the runs of two configurations: None if they kept no predictions of the same images, or if images
        form groups that were not kept.
    """

    def interval(first: Runs, second: Runs) -> Ends | None:
        label, mine, base = _matched_images(first, second)
        return significance.images_interval(
            mine, base, label, cluster=_cluster([*first, *second]), prior=prior[np.unique(label)]
        )

    def between(mine: Runs, base: Runs) -> Ends | None:
        return mean_interval([interval(first, second) for first, second in _same_images(mine, base)])

    return between


def _same_images(mine: Runs, base: Runs) -> list[tuple[Runs, Runs]]:
    """Divide runs into parts with the same test images: all runs, or one part per pair; none if neither works."""
    for run in (*mine, *base):
        if run.test is None or run.predictions is None or (run.test.unit != "image" and run.clusters is None):
            return []
    hashes = [[run.predictions.images for run in side if run.predictions] for side in (mine, base)]
    if len(set(hashes[0] + hashes[1])) == 1:
        return [(mine, base)]
    return [([run], [partner]) for run, partner in zip(mine, base, strict=True)] if hashes[0] == hashes[1] else []


def _cluster(runs: Runs) -> IntArray | None:
    """Return the cluster of each test image; None if images are independent or clusters were not kept."""
    return next((run.clusters for run in runs if run.clusters is not None), None)


def _matched(mine: Runs, base: Runs, key: str) -> tuple[float, Ends] | None:
    """Compute the matched difference of runs that were all tested on the same images."""
    label, *right = _matched_images(mine, base)
    cluster = _cluster([*mine, *base])
    in_group = np.array([key not in GROUP_NAMES or name == key for name in mine[0].group_of])[label]
    cluster = None if cluster is None else cluster[in_group]
    first, second = (side[:, in_group] for side in right)
    return significance.matched_gain(label[in_group], first, second, balanced=key != "accuracy", cluster=cluster)


def _matched_images(mine: Runs, base: Runs) -> tuple[IntArray, Mask, Mask]:
    """Return the class of each image, shape (N,), and whether each run of the two sides is right on it, (S, N) each."""
    sides = [[run.predictions for run in side if run.predictions] for side in (mine, base)]
    first, second = (np.stack([each.prediction == each.label for each in side]) for side in sides)
    return sides[0][0].label, first, second


def counted_between(counted: Counted, *, most: float = 1.0) -> Between:
    """Return a function for the interval of a difference of means over some test images, matched by image.

    Args:
        counted: Returns a number of each test image of a run, and whether the image counts, shape (N,) each.
        most: The largest possible difference, 1 for shares.

    Returns:
        A function of the runs of two configurations: None if they kept no predictions of the same images, or if images
        form groups that were not kept.
    """

    def sums(runs: Runs) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        parts = [counted(run, run.predictions) for run in runs if run.predictions is not None]
        return np.array([number for number, _ in parts]), np.array([counts for _, counts in parts])

    def between(mine: Runs, base: Runs) -> Ends | None:
        intervals = [
            significance.paired_means_interval(
                *sums(first), *sums(second), most=most, cluster=_cluster([*first, *second])
            )
            for first, second in _same_images(mine, base)
        ]
        return mean_interval(intervals)

    return between


def mark(change: significance.Difference | None) -> str:
    """Return the mark after a difference in a table: * for evidence, i or s if it holds over images or seeds alone.

    Example:
        >>> mark(significance.Difference(0.03, None, 1, images=(0.01, 0.05)))
        '*'
        >>> mark(significance.Difference(0.03, None, 1))
        ''
        >>> mark(significance.Difference(0.03, 0.04, 3, images=(0.01, 0.05), seeds=(-0.069, 0.129)))
        'i'
    """
    if change is None or change.holds is None or not change.is_large:
        return ""
    return "*" if change.is_evidence else {"images": "i", "seeds": "s"}.get(change.holds, "")


def difference_text(change: significance.Difference | None) -> str:
    """Phrase a difference without overclaiming, naming the intervals it holds over.

    Example:
        >>> difference_text(significance.Difference(0.031, None, 1, images=(0.01, 0.052)))
        '3.1 points higher (holds over images)'
        >>> difference_text(significance.Difference(-0.031, 0.01, 3, images=(-0.05, -0.01), seeds=(-0.056, -0.006)))
        '3.1 points lower (holds over images and seeds)'
        >>> difference_text(significance.Difference(0.03, 0.04, 3, images=(0.01, 0.05), seeds=(-0.069, 0.129)))
        'no clear difference (+3.0 points: holds over images, not over seeds, 95% interval −6.9 to +12.9)'
        >>> difference_text(significance.Difference(0.003, 0.0001, 3, images=(0.001, 0.004)))
        'no difference (+0.3 points)'
        >>> difference_text(significance.Difference(0.031, 0.01, 2))
        '+3.1 points, but 2 seeds without an interval show no more than themselves'
    """
    if change is None:
        return "not measured"
    points = f"{signed(change.mean)} points"
    if change.interval is None:
        seeds = "one seed" if change.n == 1 else f"{change.n} seeds"
        show = "shows no more than itself" if change.n == 1 else "show no more than themselves"
        return f"{points}, but {seeds} without an interval {show}"
    if change.is_evidence:
        direction = "higher" if change.mean > 0 else "lower"
        return f"{percent(abs(change.mean), unit=False)} points {direction} (holds over {change.holds})"
    if change.is_none:
        return f"no difference ({points})"
    return f"no clear difference ({points}{_why_unclear(change)})"


def _why_unclear(change: significance.Difference) -> str:
    """Explain an unclear difference: the interval that contains zero, or a difference that is small."""
    failed = {"images": change.seeds, "seeds": change.images}.get(change.holds or "")
    low, high = failed or change.interval or (0.0, 0.0)
    interval = f"{LEVEL_TEXT} interval {signed(low)} to {signed(high)}"
    if failed is not None:
        other = "seeds" if change.holds == "images" else "images"
        return f": holds over {change.holds}, not over {other}, {interval}"
    return f", {interval}" if change.holds == "neither" else f", {interval}: under half a point"
