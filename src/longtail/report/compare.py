"""Comparison: runs side by side, seeds of one configuration folded into mean and standard deviation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from longtail.errors import LongtailError
from longtail.files import write_atomically
from longtail.report.folding import fold, row_names, short_labels
from longtail.report.runs import Metrics, RunResult
from longtail.report.text import Spread, signed, spread_text

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
ENOUGH_SEEDS = 3
WIDE_ENOUGH = 100


@dataclass(frozen=True)
class Row:
    """One configuration, or what it was after an earlier stage.

    Attributes:
        name: The recipe, and the options that differ from rows of the same recipe.
        stage: The stage measured, None for the finished run.
        runs: The runs folded into this row, one per seed.
        values: Metric to mean and deviation, None where nothing was measured.
        differences: The same, minus the first row: over pairs of equal seeds where there are any.
        colour: Which colour of the run palette the row has in every figure.
        label: The name without the ``DATA/`` that all rows share, for figures.
    """

    name: str
    stage: int | None
    runs: tuple[RunResult, ...]
    values: dict[str, Spread | None]
    differences: dict[str, Spread | None]
    colour: int = 0
    label: str = ""

    @property
    def seeds(self) -> list[int]:
        """The training seeds that are known."""
        return [run.seed for run in self.runs if run.seed is not None]


@dataclass(frozen=True)
class Comparison:
    """Rows to compare and what a reader has to know before trusting them.

    Attributes:
        rows: The configurations in the order given; differences are against the first.
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

    def render(self, console: Console) -> None:
        """Print the table, differences to the first row dimmed beneath each row, and the notes."""
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
        table.add_column("run", overflow="fold", min_width=12)
        table.add_column("n", justify="right")
        for heading in HEADINGS.values():
            table.add_column(heading, justify="right", no_wrap=True)
        narrow = console.width < WIDE_ENOUGH
        for index, row in enumerate(self.rows):
            style = "dim" if row.stage else ""
            table.add_row(
                row.name, str(len(row.runs)), *(_cell(row.values[key], narrow=narrow) for key in HEADINGS), style=style
            )
            if index:
                table.add_row(Text("  difference", "dim"), "", *map(_difference_cell, row.differences.values()))
        console.print(
            Text(f"{(self.split or 'nothing').capitalize()} figures in %; differences are against {self.rows[0].name}.")
        )
        console.print(table)
        for note in self.notes:
            console.print(Text(f"Note: {note}", "yellow"))

    def to_csv(self, path: str | Path) -> Path:
        """Write one line per row: mean, deviation and difference of every metric, fractions in [0, 1].

        Raises:
            LongtailError: The file cannot be written.
        """
        target, text = Path(path), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["run", "stage", "n", "seeds", "split", *_csv_heads(), "notes"])
        writer.writerows(self._csv_rows())
        write_atomically(target, text.getvalue().encode())
        return target

    def _csv_rows(self) -> Iterator[list[str]]:
        for row in self.rows:
            seeds = " ".join(map(str, row.seeds))
            cells = [cell for key in HEADINGS for cell in _csv_cells(row, key)]
            yield [
                row.name,
                str(row.stage or ""),
                str(len(row.runs)),
                seeds,
                self.split or "",
                *cells,
                " ".join(self.notes),
            ]


def compare_runs(folders: Sequence[str | Path], *, stages: bool = False) -> Comparison:
    """Compare finished runs.

    Runs whose configuration differs only in seeds (and in options of speed) become one row. The test split is compared;
    where no run has one, the validation split is, and a note says so.

    Args:
        folders: RUN folders; the first is what the others are compared with.
        stages: Also give a row to what each two-stage run was after its first stage.

    Raises:
        LongtailError: No folder, one folder twice, a folder that is no finished run, or runs over different classes.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if not paths:
        raise LongtailError("there is nothing to compare; give one or more RUN folders.")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise LongtailError(f"{twice} is given twice; name each run once.")
    return compare_results([RunResult.load(folder) for folder in folders], stages=stages)


def compare_results(runs: Sequence[RunResult], *, stages: bool = False) -> Comparison:
    """Compare runs that are loaded already; see :func:`compare_runs`."""
    _refuse_other_classes(runs)
    split = _measured_split(runs)
    folded = fold(runs)
    names = row_names([group[0] for group in folded])
    first = folded[0]
    rows: list[Row] = []
    for colour, (name, group) in enumerate(zip(names, folded, strict=True)):
        rows.append(_row(name, group, first, split, colour))
        if stages and split == "test":
            rows.extend(_stage_rows(name, group, first, colour))
    labels = short_labels([row.name for row in rows])
    rows = [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]
    return Comparison(tuple(rows), split, tuple(_notes(runs, folded, names, split)))


def _row(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], split: str | None, colour: int) -> Row:
    mine = _measured(group, split)
    base = _measured(first, split)
    values = {key: Spread.of([metrics[key] for _, metrics in mine]) for key in HEADINGS}
    return Row(name, None, group, values, {key: _difference(mine, base, key) for key in HEADINGS}, colour)


def _stage_rows(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], colour: int) -> list[Row]:
    last = max((max(run.stages, default=1) for run in group), default=1)
    rows = []
    for stage in range(1, last):
        kept = tuple(replace(run, test=run.stages.get(stage)) for run in group)
        row = _row(f"{name} (stage {stage})", kept, first, "test", colour)
        if any(value is not None for value in row.values.values()):
            rows.append(replace(row, stage=stage, runs=group))
    return rows


def _measured(group: Sequence[RunResult], split: str | None) -> list[tuple[int | None, Metrics]]:
    found = [(run.seed, run.metrics(split)) for run in group] if split else []
    return [(seed, metrics) for seed, metrics in found if metrics is not None]


def _difference(
    mine: Sequence[tuple[int | None, Metrics]], base: Sequence[tuple[int | None, Metrics]], key: str
) -> Spread | None:
    """Mine minus base: over pairs of equal seeds where each seed occurs once, else the difference of the means."""
    left = {seed: metrics[key] for seed, metrics in mine if seed is not None}
    right = {seed: metrics[key] for seed, metrics in base if seed is not None}
    unique = len(left) == len(mine) and len(right) == len(base)
    pairs = [(left[seed], right[seed]) for seed in left if seed in right] if unique else []
    paired = [a - b for a, b in pairs if a is not None and b is not None]
    if paired:
        return Spread.of(paired)
    one, two = Spread.of([metrics[key] for _, metrics in mine]), Spread.of([metrics[key] for _, metrics in base])
    if one is None or two is None:
        return None
    std = ((one.std or 0.0) ** 2 + (two.std or 0.0) ** 2) ** 0.5
    return Spread(one.mean - two.mean, std if one.std or two.std else None, min(one.n, two.n))


def _measured_split(runs: Sequence[RunResult]) -> Literal["test", "validation"] | None:
    if any(run.test for run in runs):
        return "test"
    return "validation" if any(run.validation for run in runs) else None


def _refuse_other_classes(runs: Sequence[RunResult]) -> None:
    for run in runs[1:]:
        if run.counts.names != runs[0].counts.names:
            raise LongtailError(
                f"{run.folder} has other classes than {runs[0].folder}; compare runs over the same classes."
            )


def _notes(
    runs: Sequence[RunResult], folded: Sequence[tuple[RunResult, ...]], names: Sequence[str], split: str | None
) -> Iterator[str]:
    if split is None:
        yield "no run was evaluated: none has a test or a validation split."
    if split == "validation":
        yield "no run has a test split: these are validation figures."
    if any(run.metrics(split) is None for run in runs if split):
        yield f"some runs have no {split} split and count for nothing here."
    if split == "test" and len({run.test_fingerprint for run in runs if run.test}) > 1:
        yield "the runs were not tested on the same images: their differences are no evidence."
    if len({run.data_hash for run in runs}) > 1:
        yield "the runs were not trained on the same images: a difference may come from the data."
    for name, group in zip(names, folded, strict=True):
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            yield f"{name} has runs of the same seed: their deviation says nothing about chance."
    if len(folded) > 1 and min(map(len, folded)) < ENOUGH_SEEDS:
        yield f"fewer than {ENOUGH_SEEDS} seeds for some rows: a small difference may be chance."


def _cell(spread: Spread | None, *, narrow: bool) -> str:
    # On a narrow terminal the deviation goes under the mean, or rich would drop the last column.
    return spread_text(spread).replace(" ± ", "\n±" if narrow else "±")


def _difference_cell(spread: Spread | None) -> Text:
    return Text(signed(spread.mean if spread else None), "bold" if spread and spread.is_evidence else "dim")


def _csv_heads() -> list[str]:
    return [f"{key}{end}" for key in HEADINGS for end in ("", "_std", "_difference", "_difference_std")]


def _csv_cells(row: Row, key: str) -> list[str]:
    value, change = row.values[key], row.differences[key]
    numbers = [n for spread in (value, change) for n in ((spread.mean, spread.std) if spread else (None, None))]
    return ["" if number is None else f"{number:.6f}" for number in numbers]
