"""Comparison: a row for each configuration, with caveats; as a table in the terminal and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from longtail.compare.differences import mark
from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.evaluation.significance import ENOUGH_SEEDS, EVIDENCE, Difference
from longtail.files import output_path, write_atomically
from longtail.formatting import EN_DASH, interval_text, percent, signed
from longtail.run.result import Ends, RunResult

HEADINGS: dict[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "many": "many",
    "medium": "medium",
    "few": "few",
    "worst_class": "worst",
    "ece": "ECE",
}
"""The compared metrics and their column headings; all but ``ece`` are better when higher."""
WIDE_ENOUGH = 100


@dataclass(frozen=True)
class Row:
    """One configuration, as finished or after an earlier stage.

    Attributes:
        name: The recipe, and the options that differ from rows of the same recipe.
        stage: The stage measured, None for the finished run.
        runs: The runs folded into this row, one per seed.
        values: Metric to mean and deviation, None where nothing was measured.
        differences: The same, minus the first row: over pairs of runs with equal seed and images where there are any.
        pairs: The number of such pairs; 0 where the means were subtracted.
        color: Index into the run palette, the same in every figure.
        label: The name without the ``DATA/`` that all rows share, for figures.
        intervals: Metric to its 95% interval over test images, the mean over the runs.
    """

    name: str
    stage: int | None
    runs: tuple[RunResult, ...]
    values: dict[str, MeanStd | None]
    differences: dict[str, Difference | None]
    pairs: int = 0
    color: int = 0
    label: str = ""
    intervals: Mapping[str, Ends | None] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The known training seeds."""
        return [run.seed for run in self.runs if run.seed is not None]


@dataclass(frozen=True)
class Comparison:
    """Rows to compare, with their caveats.

    Attributes:
        rows: The baseline, which differences are against, then the other configurations in the order given.
        split: The split that was measured, or None when no run was evaluated.
        notes: One sentence each: other test images, another training subset, single seeds, repeated seeds.
    """

    rows: tuple[Row, ...]
    split: Literal["test", "validation"] | None
    notes: tuple[str, ...]

    @property
    def final(self) -> tuple[Row, ...]:
        """The rows of finished runs, without those of earlier stages."""
        return tuple(row for row in self.rows if row.stage is None)


def print_table(comparison: Comparison, console: Console) -> None:
    """Print the table, intervals and differences to the first row dimmed beneath each row, and the notes."""
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("run", overflow="fold", min_width=12)
    table.add_column("n", justify="right")
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    narrow = console.width < WIDE_ENOUGH
    for index, row in enumerate(comparison.rows):
        style = "dim" if row.stage else ""
        table.add_row(
            Text(row.name),
            str(len(row.runs)),
            *(_cell(row.values[key], narrow=narrow) for key in HEADINGS),
            style=style,
        )
        if any(row.intervals.values()):
            dash = f"{EN_DASH}\n" if narrow else EN_DASH
            intervals = [Text(interval_text(row.intervals.get(key), dash), "dim") for key in HEADINGS]
            table.add_row(Text(f"  {LEVEL_TEXT} interval", "dim"), "", *intervals)
        if index:
            changes = [_difference_cell(change, narrow=narrow) for change in row.differences.values()]
            table.add_row(Text("  difference", "dim"), Text(str(row.pairs or ""), "dim"), *changes)
    console.print(Text(_heading(comparison)))
    console.print(table)
    for note in comparison.notes:
        console.print(Text(f"Note: {note}", "yellow"))


def _heading(comparison: Comparison) -> str:
    rows = comparison.rows
    text = f"{(comparison.split or 'nothing').capitalize()} figures in %"
    if len(rows) == 1:
        return f"{text}."
    paired = ", over pairs of equal seed and images" if any(row.pairs for row in rows[1:]) else ""
    seeds = any(change and change.seeds for row in rows for change in row.differences.values())
    over = f"over the {comparison.split or 'test'} images"
    over += f" and, from {ENOUGH_SEEDS} seeds on, over seeds" if seeds else ""
    rule = (
        f"one with * is evidence: {percent(EVIDENCE, unit=False)} points or more, and a {LEVEL_TEXT} interval that "
        f"excludes zero, {over}"
    )
    alone = {mark(change) for row in rows for change in row.differences.values()} & {"i", "s"}
    if alone:
        rule += "; i and s mark differences that hold over images or over seeds alone"
    return f"{text}; differences are against {rows[0].name}{paired}; {rule}."


def write_csv(comparisons: Sequence[Comparison], path: str | Path) -> Path:
    """Write one line per row: mean, deviation and difference of every metric, fractions in [0, 1].

    A difference has the outer ends of its intervals (``low``, ``high``), the interval over images, that over seeds, and
    which of the two exclude zero (``holds``: images and seeds, images, seeds, neither; empty without an interval).

    Args:
        comparisons: One, or several that each have a baseline of their own.
        path: The file.

    Raises:
        LongtailError: The file cannot be written.
    """
    target, text = output_path(path), io.StringIO()
    rows = [_csv_row(row, comparison) for comparison in comparisons for row in comparison.rows]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(target, text.getvalue().encode())
    return target


def _cell(value: MeanStd | None, *, narrow: bool) -> str:
    # On a narrow terminal the deviation goes under the mean, or rich would drop the last column.
    return mean_std_text(value).replace(" ± ", "\n±" if narrow else "±")


def _difference_cell(change: Difference | None, *, narrow: bool) -> Text:
    text = signed(change.mean if change else None)
    under = "\n" if narrow else ""
    if change is not None and change.std is not None:
        text += f"{under}±{percent(change.std, unit=False)}"
    # A table may be read without its bold type: in a file, or by ear.
    sign = mark(change)
    return Text(text + sign, "bold" if sign == "*" else "dim")


def _csv_row(row: Row, comparison: Comparison) -> dict[str, str]:
    """The cells of a row by the heads of their columns."""
    cells = {
        "run": row.name,
        "stage": str(row.stage or ""),
        "n": str(len(row.runs)),
        "seeds": " ".join(map(str, row.seeds)),
        "split": comparison.split or "",
        "baseline": comparison.rows[0].name,
        "pairs": str(row.pairs),
    }
    for key in HEADINGS:
        value, change = row.values[key], row.differences[key]
        numbers: dict[str, float | None] = {}
        for name, part in ((key, value), (f"{key}_difference", change)):
            numbers[name], numbers[f"{name}_std"] = (part.mean, part.std) if part else (None, None)
        intervals = {
            f"{key}_difference": change and change.interval,
            key: row.intervals.get(key),
            f"{key}_difference_images": change and change.images,
            f"{key}_difference_seeds": change and change.seeds,
        }
        for name, interval in intervals.items():
            numbers[f"{name}_low"], numbers[f"{name}_high"] = interval or (None, None)
        cells |= {name: "" if number is None else f"{number:.6f}" for name, number in numbers.items()}
        cells[f"{key}_difference_holds"] = (change and change.holds) or ""
    return cells | {"notes": " ".join(comparison.notes)}
