"""Caveats of a comparison: one sentence for each thing that may mislead its reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from longtail.compare.differences import Pairing, mark
from longtail.compare.table import Row
from longtail.counts import FEW_IMAGES
from longtail.data.splits import describe_never_judged
from longtail.evaluation.significance import ENOUGH_SEEDS
from longtail.formatting import listing, percent, signed
from longtail.run.folder import Value
from longtail.run.result import Metrics, RunResult

Groups: TypeAlias = Mapping[str, tuple[RunResult, ...]]


def run_caveats(runs: Sequence[RunResult], groups: Groups, split: str | None) -> Iterator[str]:
    """Describe what the runs do not share, and what too few seeds or images leave open.

    Args:
        runs: All of them.
        groups: The runs of each row by its name, the baseline first.
        split: Where they were measured.
    """
    if split is None:
        yield "no run was evaluated: none has a test or a validation split."
    if split == "validation":
        yield "no run has a test split: these are validation figures."
    if any(run.metrics(split) is None for run in runs if split):
        yield f"some runs have no {split} split and count for nothing here."
    if split == "test":
        yield from _other_images_caveats([run for run in runs if run.test], groups)
    yield from _image_caveats([metrics for run in runs if (metrics := run.metrics(split)) is not None], runs)
    if len({run.data_hash for run in runs}) > 1:
        yield "the runs were not trained on the same images: a difference may come from the data."
    yield from _adjustment_caveats(groups)
    yield from _fold_caveats(groups)
    for name, group in groups.items():
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            yield f"{name} has runs of the same seed: their deviation says nothing about chance."
    yield from _pairing_caveats(groups, split)
    if len(groups) > 1 and min(map(len, groups.values())) < ENOUGH_SEEDS:
        which = "all" if max(map(len, groups.values())) < ENOUGH_SEEDS else "some"
        yield (
            f"fewer than {ENOUGH_SEEDS} seeds for {which} rows: their differences are judged over test images alone, "
            "and another seed may differ by more."
        )


def evidence_caveats(rows: Sequence[Row]) -> Iterator[str]:
    """Name differences that hold over images or over seeds alone, and those judged over seeds only.

    Args:
        rows: The baseline first.
    """
    reasons = {
        "i": "over the test images but not over seeds, which vary too much: add seeds",
        "s": "over seeds but not over the test images, which are too few",
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
        change = row.differences.get("accuracy")
        if change is not None and change.images is None and change.seeds is not None:
            yield f"differences of {row.name} are judged over seeds alone: no predictions of the same images were kept."


def _other_images_caveats(runs: Sequence[RunResult], groups: Groups) -> Iterator[str]:
    """Note runs with different test images: between seeds, or between configurations."""
    if all(first.was_tested_as(second) for first, second in combinations(runs, 2)):
        return
    baseline, *others = groups.values()
    pairs = [pair for group in others for pair in Pairing.of(group, baseline, "test").pairs]
    if pairs and all(run.was_tested_as(partner) for run, partner in pairs):
        yield "each seed has its own test images: an interval over images is the mean over seeds."
    else:
        yield "the runs were not tested on the same images: a difference may come from the images."


def _image_caveats(measured_splits: Sequence[Metrics], runs: Sequence[RunResult]) -> Iterator[str]:
    """Name small classes and images that are not independent."""
    small = max((metrics.small for metrics in measured_splits), default=0)
    if small:
        have, say = ("class has", "its figure says") if small == 1 else ("classes have", "their figures say")
        yield (
            f"{small} {have} fewer than {FEW_IMAGES} test images (marked * where classes are listed): {say} next to "
            "nothing."
        )
    units = {metrics.unit for metrics in measured_splits} - {"image"}
    for unit in sorted(units):
        yield f"images of one {unit} are right or wrong together; the intervals allow for it."
    columns = {str(_group_column(run)) for run in runs if _group_column(run)} - units
    for column in sorted(columns):
        yield (
            f"images of one {column} are not independent, which the intervals do not know: they are too narrow "
            "('longtail evaluate' measures them anew)."
        )


def _adjustment_caveats(groups: Groups) -> Iterator[str]:
    """Name the rows whose figures are those before ``longtail adjust``."""
    rows = []
    for name, group in groups.items():
        methods = dict.fromkeys(run.adjustment for run in group if run.adjustment)
        number = sum(bool(run.adjustment) for run in group)
        if number:
            some = f"{number} of the {len(group)} runs of " if number < len(group) else ""
            rows.append(f"{some}{name} ({', '.join(methods)})")
    if rows:
        yield (
            f"figures are those before the adjustment of {listing(rows)}: 'longtail evaluate RUN' measures those "
            "after it."
        )


def _fold_caveats(groups: Groups) -> Iterator[str]:
    """Count the images that a cross-validation never tested on."""
    for name, group in groups.items():
        for run in group:
            if run.never_judged and run.test is not None:
                column = _group_column(run)
                words = describe_never_judged(run.never_judged, run.test.num_images, str(column) if column else None)
                yield f"{name}: {words}"


def _group_column(run: RunResult) -> Value:
    data = run.config.get("data")
    return data.get("group_column") if isinstance(data, dict) else None


def _pairing_caveats(groups: Groups, split: str | None) -> Iterator[str]:
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
