"""Configurations whose runs were analysed, the run of each that is drawn, and trends over classes as words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.analysis.collected import AnalysedSplit, Analysis
from longtail.analysis.norms import RankTrend, is_cosine, rank_trend
from longtail.counts import GROUP_NAMES
from longtail.report.compare import Comparison, Row
from longtail.report.findings import named
from longtail.report.palette import GROUP_LABELS, GROUP_SYMBOLS
from longtail.report.runs import RunResult
from longtail.report.section import Key
from longtail.report.text import listing, number


@dataclass(frozen=True)
class Learned:
    """A configuration, and what of it is drawn.

    Attributes:
        row: The configuration.
        run: Its first run that was analysed.
        name: The split that is drawn, ``"test"`` where there is one.
        split: What was measured on it.
        seeds: How many runs of the configuration were analysed.
    """

    row: Row
    run: RunResult
    name: str
    split: AnalysedSplit
    seeds: int

    @property
    def is_cosine(self) -> bool:
        """Whether its classifier sees nothing of a feature but its direction."""
        model = self.run.config.get("model")
        return isinstance(model, dict) and is_cosine(str(model.get("head")))


def learned_rows(comparison: Comparison) -> list[Learned]:
    """The configurations with an analysed run, each with the first one; all on one split."""
    known = [(row, _analysed(row)) for row in comparison.final]
    found = [(row, runs) for row, runs in known if runs]
    name = "test" if all(analysis.test for _, runs in found for _, analysis in runs) else "train"
    return [
        Learned(row, runs[0][0], name, split, len(runs))
        for row, runs in found
        if (split := runs[0][1].split(name)) is not None
    ]


def _analysed(row: Row) -> list[tuple[RunResult, Analysis]]:
    return [(run, run.analysis) for run in row.runs if run.analysis is not None]


def absent_notes(comparison: Comparison) -> list[str]:
    """Which configurations some sections leave out, and how they get in; nothing where those show all or none."""
    rows, notes = comparison.final, []
    without = [row.label for row in rows if not _analysed(row)]
    if 0 < len(without) < len(rows):
        missing = listing(without)
        notes.append(f"Not analysed, and so not in the sections on features: {missing}. longtail analyse RUN adds it.")
    without = [row.label for row in rows if all(run.dynamics is None for run in row.runs)]
    if 0 < len(without) < len(rows):
        how = "--training.record_dynamics true records them while it trains"
        notes.append(f"Without recorded gradients, and so not in the sections on them: {listing(without)}; {how}.")
    return notes


def said_of(found: Sequence[Learned]) -> list[Learned]:
    """Those that a sentence names: all of a few, else the first and the one best on few-shot classes."""
    return named(found, lambda one: one.row)


def trend(one: Learned, values: npt.NDArray[np.floating]) -> RankTrend:
    """The rank correlation of something with the training images of its class."""
    return rank_trend(values, one.run.counts.array)


def trend_sentence(what: str, found: Sequence[tuple[str, RankTrend]]) -> str:
    """How something goes with the size of a class in each configuration, and that it does not where it does not.

    Example:
        >>> found = [("ce", RankTrend(0.8, 1e-9, 100)), ("fbl", RankTrend(0.1, 0.4, 100))]
        >>> print(trend_sentence("Feature norm", found))
        Feature norm rises with the number of training images under ce (rank correlation 0.80); there is no clear
        difference between large and small classes under fbl (0.10).
    """
    kinds: dict[str, list[str]] = {"rises": [], "falls": [], "no clear": [], "no": []}
    for label, one in found:
        if one.classes and np.isfinite(one.rho):
            none = "no" if one.is_none else "no clear"
            kind = none if not one.is_evidence else "rises" if one.rho > 0 else "falls"
            kinds[kind].append(f"under {label} ({number(one.rho)})")
    parts = [
        f"{kind} with the number of training images {listing(kinds[kind])}"
        for kind in ("rises", "falls")
        if kinds[kind]
    ]
    same = " and ".join(
        f"{kind} difference between large and small classes {listing(kinds[kind])}"
        for kind in ("no clear", "no")
        if kinds[kind]
    )
    if parts:
        text = f"{what} {' and '.join(parts)}" + (f"; there is {same}" if same else "")
    elif same:
        text = f"In {what[0].lower()}{what[1:]} there is {same}"
    else:
        return ""
    return text.replace(" (", " (rank correlation ", 1) + "."


def group_keys(run: RunResult) -> tuple[Key, ...]:
    """The legend of the shot groups that have classes."""
    return tuple(Key(name, GROUP_SYMBOLS[name], GROUP_LABELS[name]) for name in GROUP_NAMES if name in run.group_of)


def shared_range(found: Sequence[npt.NDArray[np.floating]], *, room: float = 0.06) -> list[float] | None:
    """The range of an axis that holds the finite values of all panels; None where there are none.

    Example:
        >>> shared_range([np.array([1.0, np.nan]), np.array([3.0])], room=0.5)
        [0.0, 4.0]
    """
    known = np.concatenate([values[np.isfinite(values)] for values in found]) if found else np.zeros(0)
    if not known.size:
        return None
    low, high = float(known.min()), float(known.max())
    pad = room * (high - low or abs(high) or 1.0)
    return [low - pad, high + pad]
