"""Compare finished runs: one row for each configuration over its seeds, with a caveat for all that may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeAlias

from longtail.compare.differences import (
    Pairing,
    are_independent,
    figure_difference,
    figure_interval,
    figure_of,
    mark,
    share_groups,
)
from longtail.compare.seeds import MeanStd, fold, row_names, short_labels, with_short_paths
from longtail.compare.table import HEADINGS, Comparison, Row
from longtail.counts import FEW_IMAGES
from longtail.data.splits import describe_never_judged
from longtail.errors import LongtailError, nearest
from longtail.evaluation.significance import ENOUGH_SEEDS
from longtail.formatting import listing, percent, signed
from longtail.run import read
from longtail.run.result import Metrics, RunResult

MANY = 5
"""Differences to the baseline from which on it is said that some may be marked by chance."""
Groups: TypeAlias = Mapping[str, tuple[RunResult, ...]]


def compare_runs(
    runs: Sequence[str | Path | RunResult],
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
        runs: RUN folders, or runs that are loaded already; the first is what the others are compared with, unless a
            baseline is named.
        stages: Add a row for each two-stage run after its first stage.
        names: The row of each run, in place of grouping by configuration.
        baseline: The row that the others are compared with: its name, its name without the part that all share, or a
            folder in it.

    Raises:
        LongtailError: No folder, one folder twice, a folder without a finished run, runs over different classes, or an
            unknown baseline.
    """
    paths = [Path(run).resolve() for run in runs if not isinstance(run, RunResult)]
    if not runs:
        raise LongtailError("RUN is required: name one or more RUN folders to compare.")
    if repeated := [path for path in paths if paths.count(path) > 1]:
        raise LongtailError(f"{repeated[0]} is given twice; name each run once.")
    results = with_short_paths([run if isinstance(run, RunResult) else read(run) for run in runs])
    first_run = results[0]
    for run in results[1:]:
        if run.counts.names != first_run.counts.names:
            if sorted(run.counts.names) == sorted(first_run.counts.names):
                raise LongtailError(
                    f"{run.folder} has the classes of {first_run.folder} in another order, as the source of one "
                    "of them states it: train both from one source."
                )
            raise LongtailError(
                f"{run.folder} has other classes than {first_run.folder}; compare runs over the same classes."
            )
    splits: tuple[Literal["test", "validation"], ...] = ("test", "validation")
    split = next((split for split in splits if any(run.metrics(split) for run in results)), None)
    groups = _groups(results, names, baseline)
    first = next(iter(groups.values()))
    rows: list[Row] = []
    for color, (name, group) in enumerate(groups.items()):
        rows.append(_row(name, group, first, split, color))
        if stages and split == "test":
            rows.extend(_stage_rows(name, group, first, color))
    labels = short_labels([row.name for row in rows])
    rows = [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]
    return Comparison(tuple(rows), split, (*run_caveats(results, groups, split), *evidence_caveats(rows, split)))


def _groups(
    runs: Sequence[RunResult], names: Sequence[str] | None, baseline: str | None
) -> dict[str, tuple[RunResult, ...]]:
    """The runs of each row by its name, the baseline first."""
    if names is None:
        folded = fold(runs)
        groups = dict(zip(row_names([group[0] for group in folded]), folded, strict=True))
    else:
        named = list(zip(names, runs, strict=True))
        groups = {name: tuple(run for other, run in named if other == name) for name in names}
    if baseline is None:
        return groups
    labels = dict(zip(short_labels(list(groups)), groups, strict=True))
    row_of = {run.folder.resolve(): name for name, group in groups.items() for run in group}
    called = {name for folder, name in row_of.items() if folder.name == baseline}  # seed-0 may be in every row
    row = baseline if baseline in groups else labels.get(baseline) or row_of.get(Path(baseline).resolve())
    if row is None and len(called) > 1:
        raise LongtailError(
            f"several rows have a run in a folder {baseline!r} ({listing(sorted(called))}): name a row."
        )
    row = row or next(iter(called), None)
    if row is None:
        raise LongtailError(f"{baseline!r} is not among the runs.{nearest(baseline, [*groups, *labels])}")
    return {row: groups[row]} | groups


def _row(name: str, group: tuple[RunResult, ...], first: tuple[RunResult, ...], split: str | None, color: int) -> Row:
    pairs = Pairing.of(group, first, split).pairs
    values = {key: MeanStd.of([figure_of(run, split, key) for run in group]) for key in HEADINGS}
    differences = {key: figure_difference(group, first, split, key) for key in HEADINGS}
    intervals = {key: figure_interval(group, split, key) for key in HEADINGS}
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


def run_caveats(runs: Sequence[RunResult], groups: Groups, split: str | None) -> Iterator[str]:
    """Describe what the runs do not share, and what too few seeds or images leave open.

    Args:
        runs: All of them.
        groups: The runs of each row by its name, the baseline first.
        split: The split they were measured on.
    """
    measured = [metrics for run in runs if (metrics := run.metrics(split)) is not None]
    if split is None:
        yield "no run was evaluated: none has a test or a validation split."
    elif split == "validation":
        yield "no run has a test split: these are validation figures."
    if split is not None and len(measured) < len(runs):
        yield f"some runs have no {split} split and count for nothing here."
    baseline, *others = groups.values()
    pairings = [Pairing.of(group, baseline, split) for group in others]
    tested = [run for run in runs if run.test] if split == "test" else []
    if not all(first.was_tested_as(second) for first, second in combinations(tested, 2)):
        pairs = [pair for each in pairings for pair in each.pairs]
        if pairs and all(run.was_tested_as(partner) for run, partner in pairs):
            yield "each seed has its own test images: an interval over images is the mean over seeds."
        else:
            yield "the runs were not tested on the same images: a difference may come from the images."
    yield from _image_caveats(measured, runs, split)
    if not all(share_groups(group, baseline, split) for group in others):
        yield "many-, medium- and few-shot are other classes in some rows: differences of groups are left out."
    is_paired = bool(pairings) and all(each.pairs and not each.alone for each in pairings)
    if len({run.record.data_hash for run in runs}) > 1 and not is_paired:
        yield "the runs were not trained on the same images: a difference may come from the data."
    yield from _adjustment_caveats(groups)
    for name, group in groups.items():
        for run in group:
            never = run.record.never_judged
            if never and run.test is not None:
                yield f"{name}: {describe_never_judged(never, run.test.num_images, _group_column(run))}"
    for name, group in groups.items():
        if not are_independent(group):
            yield f"{name} has runs of the same seed: their deviation says nothing about chance."
    if split is not None:
        yield from _pairing_caveats(groups, split)
    if len(groups) > 1 and min(map(len, groups.values())) < ENOUGH_SEEDS:
        which = "all" if max(map(len, groups.values())) < ENOUGH_SEEDS else "some"
        yield (
            f"fewer than {ENOUGH_SEEDS} seeds for {which} rows: their differences are judged over {split or 'test'} "
            "images alone, and another seed may differ by more."
        )


def evidence_caveats(rows: Sequence[Row], split: str | None) -> Iterator[str]:
    """Name differences that hold over images or over seeds alone, those judged over seeds only, and many of them.

    Args:
        rows: The baseline first.
        split: The split they were measured on.
    """
    differences = sum(row.stage is None for row in rows) - 1
    if differences >= MANY:
        yield (
            f"{differences} rows are compared with {rows[0].name}, each by intervals of its own: where nothing "
            "differs, up to one in twenty is still marked."
        )
    reasons = {
        "i": f"over the {split} images but not over seeds, which vary too much: add seeds",
        "s": f"over seeds but not over the {split} images, which are too few",
    }
    for row in rows[1:]:
        for sign, reason in reasons.items():
            figures = [
                f"{key.replace('_', ' ')} ({signed(change.mean)} ± {percent(change.std or 0.0, unit=False)})"
                for key, change in row.differences.items()
                if change is not None and mark(change) == sign
            ]
            if figures:
                yield f"{row.name} differs in {listing(figures)} {reason}."
        change = row.differences["accuracy"]
        if change is not None and change.images is None and change.seeds is not None:
            yield f"differences of {row.name} are judged over seeds alone: no predictions of the same images were kept."


def _image_caveats(measured: Sequence[Metrics], runs: Sequence[RunResult], split: str | None) -> Iterator[str]:
    """Name small classes and images that are not independent."""
    small = max((metrics.small for metrics in measured), default=0)
    if small:
        have, say = ("class has", "its figure says") if small == 1 else ("classes have", "their figures say")
        yield (
            f"{small} {have} fewer than {FEW_IMAGES} {split} images (marked * where classes are listed): {say} next to "
            "nothing."
        )
    units = {metrics.unit for metrics in measured} - {"image"}
    for unit in sorted(units):
        yield f"images of one {unit} are right or wrong together; the intervals allow for it."
    for column in sorted({column for run in runs if (column := _group_column(run))} - units):
        yield (
            f"images of one {column} are not independent, which the intervals do not know: they are too narrow "
            "('longtail evaluate' measures them anew)."
        )


def _adjustment_caveats(groups: Groups) -> Iterator[str]:
    """Name the rows whose figures are those before ``longtail adjust``."""
    rows = []
    for name, group in groups.items():
        adjusted = [run.adjustment for run in group if run.adjustment]
        if adjusted:
            some = f"{len(adjusted)} of the {len(group)} runs of " if len(adjusted) < len(group) else ""
            rows.append(f"{some}{name} ({', '.join(dict.fromkeys(adjusted))})")
    if rows:
        yield (
            f"figures are those before the adjustment of {listing(rows)}: 'longtail evaluate RUN' measures those "
            "after it."
        )


def _group_column(run: RunResult) -> str | None:
    data = run.config.get("data")
    return str(data["group_column"]) if isinstance(data, dict) and data.get("group_column") else None


def _pairing_caveats(groups: Groups, split: str) -> Iterator[str]:
    (baseline, first), *others = groups.items()
    for name, group in others:
        pairing = Pairing.of(group, first, split)
        if not pairing.pairs:
            yield (
                f"no runs of {name} and {baseline} can be paired by seed and images: the difference is that of "
                "the means, which needs more runs to show as much."
            )
        elif pairing.alone:
            seeds = f"{'seed' if len(pairing.alone) == 1 else 'seeds'} {', '.join(map(str, pairing.alone))}"
            yield f"{seeds} of {name} or {baseline} have no partner and are left out of the difference."
