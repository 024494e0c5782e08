"""Paired differences: a run is set against the run of the same seed on the same images, and against no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longtail.evaluation.differences import welch_interval
from longtail.report.runs import Ends, Metrics, RunResult
from longtail.report.text import Spread

Key = tuple[int, str]
Measure = Callable[[RunResult], float | None]
Between = Callable[[RunResult, RunResult], Ends | None]
"""The interval of the difference of two single runs, the first less the second."""


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

    def difference(self, value: Measure) -> Spread | None:
        """Mean and deviation of the differences between partners; None where no pair was measured."""
        found = [(value(mine), value(base)) for mine, base in self.pairs]
        return Spread.of([a - b if a is not None and b is not None else None for a, b in found])


def difference_between(
    runs: Sequence[RunResult],
    baseline: Sequence[RunResult],
    split: str | None,
    value: Measure,
    between: Between | None = None,
) -> Spread | None:
    """By how much a number of some runs exceeds that of others, with the interval that decides what may be said of it.

    Of several pairs it is the paired t-interval over seeds, of several runs on each side without partners that of
    Welch, and of one run on each side what ``between`` says of their images.

    Args:
        runs: Of one configuration.
        baseline: Of the other.
        split: Where they were measured.
        value: The number.
        between: Gives the interval for two single runs, where there can be one.
    """
    pairs = [pair for pair in Pairing.of(runs, baseline, split).pairs if None not in map(value, pair)]
    if not pairs:
        mine, base = ([run for run in side if value(run) is not None] for side in (runs, baseline))
        found = difference_of_means([value(run) for run in mine], [value(run) for run in base])
        pairs = [(mine[0], base[0])] if len(mine) == len(base) == 1 else []
    else:
        found = Pairing(tuple(pairs), ()).difference(value)
    if found is None or between is None or len(pairs) != 1:
        return found
    return replace(found, ends=between(*pairs[0]))


def difference_of_means(mine: Sequence[float | None], base: Sequence[float | None]) -> Spread | None:
    """What is left where there are no pairs: the deviations of both sides add up, and hide small differences.

    Example:
        >>> difference_of_means([0.5, 0.5], [0.25])
        Spread(mean=0.25, std=None, n=1, ends=None)
    """
    one, two = Spread.of(mine), Spread.of(base)
    if one is None or two is None:
        return None
    std = ((one.std or 0.0) ** 2 + (two.std or 0.0) ** 2) ** 0.5
    ends = welch_interval(*[[value for value in side if value is not None] for side in (mine, base)])
    return Spread(one.mean - two.mean, std if ends and std else None, min(one.n, two.n), ends)


def measured(run: RunResult, split: str | None) -> Metrics | None:
    """The metrics of a run on a split, None where there is no split to compare."""
    return run.metrics(split) if split else None


def _measured(runs: Sequence[RunResult], split: str | None) -> list[RunResult]:
    return [run for run in runs if measured(run, split) is not None]


def _key(run: RunResult) -> Key | None:
    return None if run.seed is None else (run.seed, run.data_hash)
