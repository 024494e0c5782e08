"""A comparison as a table in the terminal and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from longtail.compare.wording import EN_DASH, SURE, Spread, interval_text, mark, signed, spread_text
from longtail.evaluation.significance import ENOUGH_SEEDS, EVIDENCE, Difference
from longtail.files import output_path, write_atomically
from longtail.run.result import Ends

if TYPE_CHECKING:
    from longtail.compare.rows import Comparison, Row

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
            row.name, str(len(row.runs)), *(_cell(row.values[key], narrow=narrow) for key in HEADINGS), style=style
        )
        if any(row.intervals.values()):
            ends = [_interval_cell(row.intervals.get(key), narrow=narrow) for key in HEADINGS]
            table.add_row(Text(f"  {SURE} interval", "dim"), "", *ends)
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
    over = f"over the test images and, from {ENOUGH_SEEDS} seeds on, over seeds" if seeds else "over the test images"
    rule = (
        f"one with * is evidence: {100 * EVIDENCE:.1f} points or more, and a {SURE} interval that excludes zero, {over}"
    )
    alone = {mark(change) for row in rows for change in row.differences.values()} & {"i", "s"}
    if alone:
        rule += "; i and s mark differences that hold over images or over seeds alone"
    return f"{text}; differences are against {rows[0].name}{paired}; {rule}."


def csv_rows(comparison: Comparison) -> Iterator[list[str]]:
    """The rows of the CSV file, in the order of its heads."""
    for row in comparison.rows:
        seeds = " ".join(map(str, row.seeds))
        cells = [cell for key in HEADINGS for cell in _csv_cells(row, key)]
        yield [
            row.name,
            str(row.stage or ""),
            str(len(row.runs)),
            seeds,
            comparison.split or "",
            comparison.rows[0].name,
            str(row.pairs),
            *cells,
            " ".join(comparison.notes),
        ]


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
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "stage", "n", "seeds", "split", "baseline", "pairs", *_csv_heads(), "notes"])
    for comparison in comparisons:
        writer.writerows(csv_rows(comparison))
    write_atomically(target, text.getvalue().encode())
    return target


def _cell(spread: Spread | None, *, narrow: bool) -> str:
    # On a narrow terminal the deviation goes under the mean, or rich would drop the last column.
    return spread_text(spread).replace(" ± ", "\n±" if narrow else "±")


def _interval_cell(ends: Ends | None, *, narrow: bool) -> Text:
    dash = f"{EN_DASH}\n" if narrow else EN_DASH
    return Text(interval_text(ends).replace(EN_DASH, dash), "dim")


def _difference_cell(change: Difference | None, *, narrow: bool) -> Text:
    text = signed(change.mean if change else None)
    under = "\n" if narrow else ""
    if change is not None and change.std is not None:
        text += f"{under}±{100 * change.std:.1f}"
    # A table may be read without its bold type: in a file, or by ear.
    sign = mark(change)
    return Text(text + sign, "bold" if sign == "*" else "dim")


def _csv_heads() -> list[str]:
    ends = ["", "_std", "_difference", "_difference_std", "_difference_low", "_difference_high", "_low", "_high"]
    ends += [f"_difference_{name}_{end}" for name in ("images", "seeds") for end in ("low", "high")]
    return [f"{key}{end}" for key in HEADINGS for end in [*ends, "_difference_holds"]]


def _csv_cells(row: Row, key: str) -> list[str]:
    value, change = row.values[key], row.differences[key]
    numbers = [n for part in (value, change) for n in ((part.mean, part.std) if part else (None, None))]
    known = [change.interval if change else None, row.intervals.get(key)]
    known += [change.images, change.seeds] if change else [None, None]
    numbers += [end for ends in known for end in ends or (None, None)]
    return ["" if number is None else f"{number:.6f}" for number in numbers] + [(change and change.holds) or ""]
