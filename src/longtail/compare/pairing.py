"""Paired differences: a run is set against the run of the same seed on the same images, and against no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from longtail.evaluation.significance import ENOUGH_SEEDS, Difference, welch_interval
from longtail.run.result import Ends, Metrics, RunResult

Key = tuple[int, str]
Runs = Sequence[RunResult]
Measure = Callable[[RunResult], float | None]
Between = Callable[[Runs, Runs], Ends | None]
"""Gives the interval over test images of the mean of some runs minus that of others; partners in the same order."""


@dataclass(frozen=True)
class Pairing:
    """Which runs of two configurations belong together.

    Attributes:
        pairs: A run, and the run of the baseline with its seed and its training images.
        alone: Seeds of runs on either side that have no partner, rising.
    """

    pairs: tuple[tuple[RunResult, RunResult], ...]
    alone: tuple[int, ...]

    @classmethod
    def of(cls, runs: Sequence[RunResult], baseline: Sequence[RunResult], split: str | None) -> Pairing:
        """Pair the runs that were measured on ``split``; none where a seed occurs twice, as its partner is unknown."""
        mine, base = _measured(runs, split), _measured(baseline, split)
        left, right = {_key(run): run for run in mine}, {_key(run): run for run in base}
        if len(left) < len(mine) or len(right) < len(base) or None in left | right:
            return cls((), ())
        shared = [key for key in left if key in right]
        alone = {key[0] for key in [*left, *right] if key is not None and key not in shared}
        return cls(tuple((left[key], right[key]) for key in shared), tuple(sorted(alone)))


@dataclass(frozen=True)
class Sides:
    """The runs on both sides of a difference between two configurations.

    Attributes:
        mine: Runs of the first.
        base: Runs of the second; the partners of the first in the same order if there are pairs.
        paired: Whether there are pairs.
    """

    mine: Runs
    base: Runs
    paired: bool

    @classmethod
    def of(cls, runs: Runs, baseline: Runs, split: str | None, value: Measure) -> Sides:
        """Keep the pairs with both runs measured; without pairs, all measured runs."""
        pairs = [pair for pair in Pairing.of(runs, baseline, split).pairs if None not in map(value, pair)]
        if pairs:
            return cls([mine for mine, _ in pairs], [base for _, base in pairs], True)
        mine, base = ([run for run in side if value(run) is not None] for side in (runs, baseline))
        return cls(mine, base, False)


def difference_between(
    runs: Runs, baseline: Runs, split: str | None, value: Measure, between: Between | None = None
) -> Difference | None:
    """By how much a number of some runs exceeds that of others, with the intervals that decide whether it is evidence.

    From three seeds on, the interval over seeds is Student's of the pairs, or Welch's of the means if no run has a
    partner. The interval over images is that of ``between`` for the average over seeds.

    Args:
        runs: Of one configuration.
        baseline: Of the other.
        split: Where they were measured.
        value: The number.
        between: Gives the interval over the test images, if there is one.

    Returns:
        None if either side was not measured.
    """
    sides = Sides.of(runs, baseline, split, value)
    mine, base = ([number for run in side if (number := value(run)) is not None] for side in (sides.mine, sides.base))
    if not (mine and base):
        return None
    images = between(sides.mine, sides.base) if between else None
    if sides.paired:
        return Difference.of([a - b for a, b in zip(mine, base, strict=True)], images)
    repeated = any(_repeats(side) for side in (sides.mine, sides.base))
    return replace(difference_of_means(mine, base, judge=not repeated), images=images)


def difference_of_means(mine: Sequence[float], base: Sequence[float], *, judge: bool = True) -> Difference:
    """What is left where there are no pairs: the deviations of both sides add up, and hide small differences.

    Args:
        mine: Numbers of one side, at least one.
        base: Of the other.
        judge: Whether they are independent, so that from three seeds on Welch's interval applies.

    Example:
        >>> difference_of_means([0.5, 0.5], [0.25])
        Difference(mean=0.25, std=None, n=1, images=None, seeds=None)
    """
    n = min(len(mine), len(base))
    std = (variance(mine) + variance(base)) ** 0.5 if n > 1 else None
    seeds = welch_interval(mine, base) if judge and n >= ENOUGH_SEEDS else None
    return Difference(fmean(mine) - fmean(base), std or None, n, seeds=seeds)


def _repeats(runs: Runs) -> bool:
    seeds = [run.seed for run in runs if run.seed is not None]
    return len(set(seeds)) < len(seeds)


def measured(run: RunResult, split: str | None) -> Metrics | None:
    """The metrics of a run on a split, None where there is no split to compare."""
    return run.metrics(split) if split else None


def _measured(runs: Sequence[RunResult], split: str | None) -> list[RunResult]:
    return [run for run in runs if measured(run, split) is not None]


def _key(run: RunResult) -> Key | None:
    return None if run.seed is None else (run.seed, run.data_hash)
