"""Comparison: runs side by side, seeds of one configuration folded into mean and standard deviation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from longtail.counts import FEW_IMAGES
from longtail.errors import LongtailError, nearest
from longtail.files import write_atomically
from longtail.report.files import Value
from longtail.report.folding import fold, row_names, short_labels
from longtail.report.pairing import Pairing, difference_of_means, measured
from longtail.report.runs import Ends, Metrics, RunResult
from longtail.report.text import EN_DASH, EVIDENCE, Spread, interval_text, mean_interval, signed, spread_text

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
        differences: The same, minus the first row: over pairs of runs with equal seed and images where there are any.
        pairs: How many pairs that were; 0 where the means were subtracted.
        colour: Which colour of the run palette the row has in every figure.
        label: The name without the ``DATA/`` that all rows share, for figures.
        intervals: Metric to the 95 % interval that its number of test images leaves; the mean of those of the runs.
    """

    name: str
    stage: int | None
    runs: tuple[RunResult, ...]
    values: dict[str, Spread | None]
    differences: dict[str, Spread | None]
    pairs: int = 0
    colour: int = 0
    label: str = ""
    intervals: Mapping[str, Ends | None] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The training seeds that are known."""
        return [run.seed for run in self.runs if run.seed is not None]


@dataclass(frozen=True)
class Comparison:
    """Rows to compare and what a reader has to know before trusting them.

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

    def render(self, console: Console) -> None:
        """Print the table, intervals and differences to the first row dimmed beneath each row, and the notes."""
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
            if any(row.intervals.values()):
                ends = [_interval_cell(row.intervals.get(key), narrow=narrow) for key in HEADINGS]
                table.add_row(Text("  95 % interval", "dim"), "", *ends)
            if index:
                changes = [_difference_cell(change, narrow=narrow) for change in row.differences.values()]
                table.add_row(Text("  difference", "dim"), Text(str(row.pairs or ""), "dim"), *changes)
        console.print(Text(self._heading()))
        console.print(table)
        for note in self.notes:
            console.print(Text(f"Note: {note}", "yellow"))

    def _heading(self) -> str:
        text = f"{(self.split or 'nothing').capitalize()} figures in %"
        if len(self.rows) == 1:
            return f"{text}."
        paired = ", over pairs of equal seed and images" if any(row.pairs for row in self.rows[1:]) else ""
        weak = f"a difference under {100 * EVIDENCE:.1f} points is no evidence"
        return f"{text}; differences are against {self.rows[0].name}{paired}; {weak}."

    def to_csv(self, path: str | Path) -> Path:
        """Write the table as CSV; see :func:`write_csv`."""
        return write_csv([self], path)

    def csv_rows(self) -> Iterator[list[str]]:
        """The rows of the CSV file, in the order of its heads."""
        for row in self.rows:
            seeds = " ".join(map(str, row.seeds))
            cells = [cell for key in HEADINGS for cell in _csv_cells(row, key)]
            yield [
                row.name,
                str(row.stage or ""),
                str(len(row.runs)),
                seeds,
                self.split or "",
                self.rows[0].name,
                str(row.pairs),
                *cells,
                " ".join(self.notes),
            ]


def write_csv(comparisons: Sequence[Comparison], path: str | Path) -> Path:
    """Write one line per row: mean, deviation and difference of every metric, fractions in [0, 1].

    Args:
        comparisons: One, or several that each have a baseline of their own.
        path: The file.

    Raises:
        LongtailError: The file cannot be written.
    """
    target, text = Path(path), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "stage", "n", "seeds", "split", "baseline", "pairs", *_csv_heads(), "notes"])
    for comparison in comparisons:
        writer.writerows(comparison.csv_rows())
    write_atomically(target, text.getvalue().encode())
    return target


def compare_runs(
    folders: Sequence[str | Path],
    *,
    stages: bool = False,
    names: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compare finished runs.

    Runs whose configuration differs only in seeds (and in options of speed) become one row. The test split is compared;
    where no run has one, the validation split is, and a note says so. Differences are paired: a run is set against the
    baseline's run of the same seed on the same images, and runs without such a partner are left out of the difference.

    Args:
        folders: RUN folders; the first is what the others are compared with, unless a baseline is named.
        stages: Also give a row to what each two-stage run was after its first stage.
        names: The row of each folder, where you know better what belongs together.
        baseline: The row that the others are compared with: its name, its name without the part that all share, or a
            folder in it.

    Raises:
        LongtailError: No folder, one folder twice, a folder that is no finished run, runs over different classes, or no
            such baseline.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if not paths:
        raise LongtailError("there is nothing to compare; give one or more RUN folders.")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise LongtailError(f"{twice} is given twice; name each run once.")
    runs = [RunResult.load(folder) for folder in folders]
    return compare_results(runs, stages=stages, names=names, baseline=baseline)


def compare_results(
    runs: Sequence[RunResult],
    *,
    stages: bool = False,
    names: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compare runs that are loaded already; see :func:`compare_runs`."""
    _refuse_other_classes(runs)
    split = _measured_split(runs)
    groups = _baseline_first(_groups(runs, names), baseline)
    first = next(iter(groups.values()))
    rows: list[Row] = []
    for colour, (name, group) in enumerate(groups.items()):
        rows.append(_row(name, group, first, split, colour))
        if stages and split == "test":
            rows.extend(_stage_rows(name, group, first, colour))
    labels = short_labels([row.name for row in rows])
    rows = [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]
    return Comparison(tuple(rows), split, tuple(_notes(runs, groups, split)))


def _groups(runs: Sequence[RunResult], names: Sequence[str] | None) -> dict[str, tuple[RunResult, ...]]:
    """The runs of each row, by its name."""
    if names is None:
        folded = fold(runs)
        return dict(zip(row_names([group[0] for group in folded]), folded, strict=True))
    groups: dict[str, list[RunResult]] = {}
    for name, run in zip(names, runs, strict=True):
        groups.setdefault(name, []).append(run)
    return {name: tuple(group) for name, group in groups.items()}


def _baseline_first(groups: dict[str, tuple[RunResult, ...]], baseline: str | None) -> dict[str, tuple[RunResult, ...]]:
    if baseline is None:
        return groups
    labels = dict(zip(short_labels(list(groups)), groups, strict=True))
    folders = {run.folder.name: name for name, group in groups.items() for run in group}
    paths = {str(run.folder): name for name, group in groups.items() for run in group}
    known = paths | folders | labels | {name: name for name in groups}
    if baseline not in known:
        raise LongtailError(f"there is no run {baseline!r} to compare with.{nearest(baseline, [*groups, *labels])}")
    name = known[baseline]
    return {name: groups[name]} | groups


def _row(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], split: str | None, colour: int) -> Row:
    pairing = Pairing.of(group, first, split)

    def value(run: RunResult, key: str) -> float | None:
        metrics = measured(run, split)
        return None if metrics is None else metrics[key]

    def difference(key: str) -> Spread | None:
        if pairing.pairs:
            return pairing.difference(lambda run: value(run, key))
        return difference_of_means([value(run, key) for run in group], [value(run, key) for run in first])

    values = {key: Spread.of([value(run, key) for run in group]) for key in HEADINGS}
    differences = {key: difference(key) for key in HEADINGS}
    known = [metrics for run in group if (metrics := measured(run, split)) is not None]
    intervals = {key: mean_interval([metrics.intervals.get(key) for metrics in known]) for key in HEADINGS}
    return Row(name, None, group, values, differences, len(pairing.pairs), colour, intervals=intervals)


def _stage_rows(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], colour: int) -> list[Row]:
    last = max((max(run.stages, default=1) for run in group), default=1)
    rows = []
    for stage in range(1, last):
        kept = tuple(replace(run, test=run.stages.get(stage)) for run in group)
        row = _row(f"{name} (stage {stage})", kept, first, "test", colour)
        if any(value is not None for value in row.values.values()):
            rows.append(replace(row, stage=stage, runs=group))
    return rows


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


def _notes(runs: Sequence[RunResult], groups: Mapping[str, tuple[RunResult, ...]], split: str | None) -> Iterator[str]:
    if split is None:
        yield "no run was evaluated: none has a test or a validation split."
    if split == "validation":
        yield "no run has a test split: these are validation figures."
    if any(run.metrics(split) is None for run in runs if split):
        yield f"some runs have no {split} split and count for nothing here."
    if split == "test" and len({run.test_fingerprint for run in runs if run.test}) > 1:
        yield "the runs were not tested on the same images: their differences are no evidence."
    yield from _image_notes([metrics for run in runs if (metrics := measured(run, split)) is not None], runs)
    if len({run.data_hash for run in runs}) > 1:
        yield "the runs were not trained on the same images: a difference may come from the data."
    for name, group in groups.items():
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            yield f"{name} has runs of the same seed: their deviation says nothing about chance."
    yield from _pairing_notes(groups, split)
    if len(groups) > 1 and min(map(len, groups.values())) < ENOUGH_SEEDS:
        yield f"fewer than {ENOUGH_SEEDS} seeds for some rows: a small difference may be chance."


def _image_notes(found: Sequence[Metrics], runs: Sequence[RunResult]) -> Iterator[str]:
    """What the number of test images leaves open."""
    small = max((metrics.small for metrics in found), default=0)
    if small:
        have = "class has" if small == 1 else "classes have"
        yield (
            f"{small} {have} fewer than {FEW_IMAGES} test images (marked * where classes are listed): "
            f"{'its figure says' if small == 1 else 'their figures say'} next to nothing."
        )
    units = {metrics.unit for metrics in found} - {"image"}
    for unit in sorted(units):
        yield f"images of one {unit} are right or wrong together; the intervals allow for it."
    columns = {str(_group_column(run)) for run in runs if _group_column(run)} - units
    for column in sorted(columns):
        yield (
            f"images of one {column} are not independent, which the intervals do not know: they are too narrow "
            "('longtail evaluate' measures them anew)."
        )


def _group_column(run: RunResult) -> Value:
    data = run.config.get("data")
    return data.get("group_column") if isinstance(data, dict) else None


def _pairing_notes(groups: Mapping[str, tuple[RunResult, ...]], split: str | None) -> Iterator[str]:
    (baseline, first), *others = groups.items()
    for name, group in others if split else []:
        pairing = Pairing.of(group, first, split)
        if not pairing.pairs:
            yield (
                f"no runs of {name} and {baseline} can be paired by seed and images: the difference is that of "
                "the means, which needs more runs to show as much."
            )
        elif pairing.alone:
            seeds = f"{'seed' if len(pairing.alone) == 1 else 'seeds'} {', '.join(map(str, pairing.alone))}"
            yield f"{seeds} of {name} or {baseline} have no partner and are left out of the difference."


def _cell(spread: Spread | None, *, narrow: bool) -> str:
    # On a narrow terminal the deviation goes under the mean, or rich would drop the last column.
    return spread_text(spread).replace(" ± ", "\n±" if narrow else "±")


def _interval_cell(ends: Ends | None, *, narrow: bool) -> Text:
    dash = f"{EN_DASH}\n" if narrow else EN_DASH
    return Text(interval_text(ends).replace(EN_DASH, dash), "dim")


def _difference_cell(spread: Spread | None, *, narrow: bool) -> Text:
    text = signed(spread.mean if spread else None)
    under = "\n" if narrow else ""
    if spread is not None and spread.std is not None:
        text += f"{under}±{100 * spread.std:.1f}"
    return Text(text, "bold" if spread and spread.is_evidence else "dim")


def _csv_heads() -> list[str]:
    ends = ("", "_std", "_difference", "_difference_std", "_low", "_high")
    return [f"{key}{end}" for key in HEADINGS for end in ends]


def _csv_cells(row: Row, key: str) -> list[str]:
    value, change = row.values[key], row.differences[key]
    numbers = [n for spread in (value, change) for n in ((spread.mean, spread.std) if spread else (None, None))]
    numbers += row.intervals.get(key) or (None, None)
    return ["" if number is None else f"{number:.6f}" for number in numbers]
