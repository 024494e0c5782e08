"""Compare finished runs: one row for each configuration, with mean and standard deviation over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from longtail.compare.caveats import evidence_caveats, run_caveats
from longtail.compare.differences import Pairing, figure_difference, figure_of
from longtail.compare.seeds import MeanStd, fold, mean_interval, row_names, short_labels, with_short_paths
from longtail.compare.table import HEADINGS, Comparison, Row
from longtail.errors import LongtailError, nearest
from longtail.run.result import RunResult


def compare_runs(
    folders: Sequence[str | Path],
    *,
    stages: bool = False,
    names: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compare finished runs.

    Runs whose configuration differs only in seeds and execution options become one row. The test split is compared;
    where no run has one, the validation split is, and a note says so. Differences are paired: a run is set against the
    baseline's run of the same seed on the same images, and runs without such a partner are left out of the difference.

    Args:
        folders: RUN folders; the first is what the others are compared with, unless a baseline is named.
        stages: Add a row for each two-stage run after its first stage.
        names: The row of each folder, in place of grouping by configuration.
        baseline: The row that the others are compared with: its name, its name without the part that all share, or a
            folder in it.

    Raises:
        LongtailError: No folder, one folder twice, a folder that is no finished run, runs over different classes, or no
            such baseline.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if not paths:
        raise LongtailError("there is nothing to compare; give one or more RUN folders.")
    if repeated := [path for path in paths if paths.count(path) > 1]:
        raise LongtailError(f"{repeated[0]} is given twice; name each run once.")
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
    for run in runs[1:]:
        if run.counts.names != runs[0].counts.names:
            raise LongtailError(
                f"{run.folder} has other classes than {runs[0].folder}; compare runs over the same classes."
            )
    runs = with_short_paths(runs)
    split: Literal["test", "validation"] | None = "validation" if any(run.validation for run in runs) else None
    if any(run.test for run in runs):
        split = "test"
    groups = _baseline_first(_groups(runs, names), baseline)
    first = next(iter(groups.values()))
    rows: list[Row] = []
    for color, (name, group) in enumerate(groups.items()):
        rows.append(_row(name, group, first, split, color))
        if stages and split == "test":
            rows.extend(_stage_rows(name, group, first, color))
    labels = short_labels([row.name for row in rows])
    rows = [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]
    return Comparison(tuple(rows), split, (*run_caveats(runs, groups, split), *evidence_caveats(rows)))


def _groups(runs: Sequence[RunResult], names: Sequence[str] | None) -> dict[str, tuple[RunResult, ...]]:
    """The runs of each row, by its name."""
    if names is None:
        folded = fold(runs)
        return dict(zip(row_names([group[0] for group in folded]), folded, strict=True))
    named = list(zip(names, runs, strict=True))
    return {name: tuple(run for other, run in named if other == name) for name in names}


def _baseline_first(groups: dict[str, tuple[RunResult, ...]], baseline: str | None) -> dict[str, tuple[RunResult, ...]]:
    if baseline is None:
        return groups
    labels = dict(zip(short_labels(list(groups)), groups, strict=True))
    folders = {run.folder.name: name for name, group in groups.items() for run in group}
    paths = {str(run.folder): name for name, group in groups.items() for run in group}
    names = paths | folders | labels | {name: name for name in groups}
    if baseline not in names:
        raise LongtailError(f"there is no run {baseline!r} to compare with.{nearest(baseline, [*groups, *labels])}")
    name = names[baseline]
    return {name: groups[name]} | groups


def _row(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], split: str | None, color: int) -> Row:
    pairs = Pairing.of(group, first, split).pairs
    values = {key: MeanStd.of([figure_of(run, split, key) for run in group]) for key in HEADINGS}
    differences = {key: figure_difference(group, first, split, key) for key in HEADINGS}
    splits = [metrics for run in group if (metrics := run.metrics(split)) is not None]
    intervals = {key: mean_interval([metrics.intervals.get(key) for metrics in splits]) for key in HEADINGS}
    return Row(name, None, group, values, differences, len(pairs), color, intervals=intervals)


def _stage_rows(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], color: int) -> list[Row]:
    last = max((max(run.stages, default=1) for run in group), default=1)
    rows = []
    for stage in range(1, last):
        after_stage = tuple(replace(run, test=run.stages.get(stage)) for run in group)
        row = _row(f"{name} (stage {stage})", after_stage, first, "test", color)
        if any(value is not None for value in row.values.values()):
            rows.append(replace(row, stage=stage, runs=group))
    return rows
