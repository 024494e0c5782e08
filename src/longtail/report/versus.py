"""Setting configurations against the first one by a number of their own: values, differences, and both as words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longtail.report.compare import Row
from longtail.report.findings import spoken
from longtail.report.pairing import Pairing, difference_of_means
from longtail.report.runs import RunResult
from longtail.report.text import Spread, difference_text, percent

Measure = Callable[[RunResult], float | None]


def mean_of(row: Row, value: Measure) -> float | None:
    """The mean of a number over the runs of a configuration; None where none has it."""
    spread = Spread.of([value(run) for run in row.runs])
    return spread.mean if spread else None


def difference(row: Row, first: Row, split: str | None, value: Measure) -> Spread | None:
    """By how much a configuration exceeds the first one: over pairs of equal seed and images where there are any."""
    pairing = Pairing.of(row.runs, first.runs, split)
    if pairing.pairs:
        return pairing.difference(value)
    return difference_of_means([value(run) for run in row.runs], [value(run) for run in first.runs])


def against_first(
    rows: Sequence[Row], split: str | None, value: Measure, *, words: Callable[[float], str] = percent
) -> str:
    """A fraction of each configuration in words, those after the first with their difference to it in points.

    ``22.0% under ce; 40.1% under gcl, 18.1 points higher``; empty where nothing was measured.
    """
    parts: list[str] = []
    for row in spoken(rows):
        mean = mean_of(row, value)
        if mean is None:
            continue
        text = f"{words(mean)} under {row.label}"
        if parts and row is not rows[0]:
            text += f", {difference_text(difference(row, rows[0], split, value))}"
        parts.append(text)
    return "; ".join(parts)


def side_by_side(panels: int) -> str:
    """The layout of a section with one panel a configuration: no line of them is left with a single one for long.

    Example:
        >>> [side_by_side(panels) for panels in (1, 2, 3, 4, 9)]
        ['one', 'two', 'three', 'two', 'three']
    """
    return {1: "one", 2: "two", 4: "two"}.get(panels, "three")
