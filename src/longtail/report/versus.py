"""Setting configurations against the first one by a number of their own: values, differences, and both as words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from longtail.evaluation.differences import Difference
from longtail.report.compare import Row
from longtail.report.findings import spoken
from longtail.report.pairing import Between, Measure, difference_between
from longtail.report.section import Key
from longtail.report.text import Spread, difference_text, percent

LINES = ("line", "dotted", "dashdot")
"""Strokes in the legend, in the order of the dashes of :func:`longtail.report.palette.run_style`."""


def run_keys(rows: Sequence[Row]) -> tuple[Key, ...]:
    """The legend of a figure that has one line a configuration."""
    return tuple(Key(f"run{row.colour % 8}", LINES[row.colour // 8 % 3], row.label) for row in rows)


def mean_of(row: Row, value: Measure) -> float | None:
    """The mean of a number over the runs of a configuration; None where none has it."""
    spread = Spread.of([value(run) for run in row.runs])
    return spread.mean if spread else None


def difference(
    row: Row, first: Row, split: str | None, value: Measure, between: Between | None = None
) -> Difference | None:
    """By how much a configuration exceeds the first one; see :func:`longtail.report.pairing.difference_between`."""
    return difference_between(row.runs, first.runs, split, value, between)


def against_first(
    rows: Sequence[Row],
    split: str | None,
    value: Measure,
    *,
    words: Callable[[float], str] = percent,
    between: Between | None = None,
) -> str:
    """A fraction of each configuration in words, those after the first with their difference to it in points.

    ``22.0% under ce; 40.1% under gcl, 18.1 points higher``; empty where nothing was measured.

    Args:
        rows: The configurations.
        split: Where they were measured.
        value: The fraction of a run.
        words: How it is written.
        between: Gives the interval over the test images; without it, fewer than three seeds are not judged.
    """
    parts: list[str] = []
    for row in spoken(rows):
        mean = mean_of(row, value)
        if mean is None:
            continue
        text = f"{words(mean)} under {row.label}"
        if parts and row is not rows[0]:
            text += f", {difference_text(difference(row, rows[0], split, value, between))}"
        parts.append(text)
    return "; ".join(parts)


def seed_note(seeds: Iterable[int]) -> str:
    """Say that of several seeds only one is drawn; empty where there is one of each.

    Args:
        seeds: How many runs each configuration has.

    Example:
        >>> seed_note([1, 3]), seed_note([1, 1])
        (' Of several seeds the first is drawn.', '')
    """
    return " Of several seeds the first is drawn." if any(count > 1 for count in seeds) else ""


def side_by_side(panels: int) -> str:
    """The layout of a section with one panel a configuration: no line of them is left with a single one for long.

    Example:
        >>> [side_by_side(panels) for panels in (1, 2, 3, 4, 9)]
        ['one', 'two', 'three', 'two', 'three']
    """
    return {1: "one", 2: "two", 4: "two"}.get(panels, "three")
