"""K-fold cross-validation: one run per fold, and one table over all images tested by a model not trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longtail.config.build import with_options
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts, IntArray
from longtail.data.dataset import ImageData, Split
from longtail.data.splits import never_judged
from longtail.device import processes
from longtail.errors import LongtailError, resume_hint
from longtail.evaluation.metrics import bin_confidences, figures, summarize_figures, tally_classes
from longtail.experiments.grid_plan import Grid, PlannedRun
from longtail.experiments.grid_runner import run_grid
from longtail.run.layout import METRICS_FILE, fold_name, log_file, refuse_existing, write_config
from longtail.run.result import read_metrics, write_metrics
from longtail.run.tables import pool_examples, pool_predictions, retrain_hint, write_confusion, write_predictions
from longtail.training.prepared_data import folds_of, prepare_data, read_source, without_unreadable
from longtail.training.split_evaluation import Evaluation, with_group_intervals


def start_folds(config: RunConfig, out: Path, reporter: Reporter, source: ImageData | None = None) -> dict[str, Any]:
    """Train the folds of a configuration into a new folder; see :func:`train_folds`.

    Raises:
        LongtailError: The folder holds something already.
    """
    refuse_existing(out)
    return train_folds(config, out, reporter, source)


def train_folds(config: RunConfig, out: Path, reporter: Reporter, source: ImageData | None = None) -> dict[str, Any]:
    """Train one run for each fold into ``out/fold-0`` and so on, then write their pooled results.

    Folds that are finished stay as they are, and those that were started continue from their checkpoints.

    Args:
        config: The configuration of all runs; ``data.folds`` is their number.
        out: The folder; its ``metrics.json``, ``predictions.parquet`` and ``examples.parquet`` are those of a run.
        reporter: Shows the progress.
        source: The source of the images, where it has been read already.

    Returns:
        The content of ``metrics.json``.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the checkpoints are saved.
        LongtailError: The images cannot be divided, differ from those of a finished fold, or a fold failed.
    """
    if processes() > 1:
        raise LongtailError("--folds trains each fold in a process of its own: start it once, without torchrun.")
    data = without_unreadable(config.data, source or read_source(config.data), reporter)
    grid = plan_folds(config, out)
    _require_same(grid, data)
    fold_of = folds_of(config.data, data)
    write_config(out, config)
    if config.is_open:
        reporter.say(
            "each fold chooses for itself, on its own training images, so that the figures judge the choice too"
        )
    problems = run_grid(grid, reporter)
    if problems:
        first = next(run for run in grid.runs if run.folder in problems)
        raise LongtailError(
            f"{len(problems)} of {len(grid.runs)} folds failed, {first.name} with: {problems[first.folder]} "
            f"({log_file(first.folder)}) Once that is fixed, continue with: {resume_hint(out)}"
        )
    return _pool(config, out, [run.folder for run in grid.runs], data.splits["train"], fold_of)


def plan_folds(config: RunConfig, out: Path) -> Grid:
    """Plan one run for each fold.

    Example:
        >>> config = with_options(RunConfig(), {"data.folds": 2})
        >>> [run.folder.as_posix() for run in plan_folds(config, Path("cv")).runs]
        ['cv/fold-0', 'cv/fold-1']
    """
    runs = []
    for number in range(config.data.folds):
        fold_config = with_options(config, {"data.fold": number})
        name = fold_name(number)
        runs.append(PlannedRun(name, config.training.seed, name, out / name, fold_config))
    return Grid(out, tuple(runs), {})


def _require_same(grid: Grid, data: ImageData) -> None:
    """Check that finished folds were trained on the current images and classes."""
    for run in grid.runs:
        if not (run.folder / METRICS_FILE).is_file():
            continue
        trained_on = read_metrics(run.folder)
        same_classes = trained_on.classes == data.classes
        options = replace(run.config.data, skip_unreadable=False)  # what cannot be decoded is left out already
        if not same_classes or trained_on.data_hash != prepare_data(options, source=data).data_hash:
            changed = "images" if same_classes else "classes"
            raise LongtailError(
                f"the {changed} of {data.source!r} are not those that {run.folder} was trained on: put them back to "
                "continue, or train into a new --out."
            )


def _pool(config: RunConfig, out: Path, folders: Sequence[Path], whole: Split, fold_of: IntArray) -> dict[str, Any]:
    """Write the results of all folds together, as those of one run."""
    parts = [read_metrics(folder).plain() for folder in folders]
    for folder, part in zip(folders, parts, strict=True):
        if part["test"] is None or part["test"]["nll"] is None:
            raise LongtailError(f"{folder / METRICS_FILE} has no figures of test images: {retrain_hint(folder)}")
    mean_counts = np.mean([part["train_counts"] for part in parts], axis=0)
    counts = ClassCounts([int(value) for value in np.rint(mean_counts)], parts[0]["classes"])
    groups = counts.groups(many=config.data.many, few=config.data.few, by=config.data.groups)
    nll = sum(part["test"]["nll"] * part["test"]["num_images"] for part in parts)
    size = counts.num_classes
    rows = [np.flatnonzero(fold_of == number) for number in range(len(folders))]
    predictions = pool_predictions(folders, rows, size)
    label, prediction = (torch.from_numpy(predictions[name].copy()) for name in ("label", "prediction"))
    tallies = tally_classes(label, prediction, size)
    bins = bin_confidences(torch.from_numpy(predictions["confidence"].copy()), prediction == label)
    summary = summarize_figures(figures(tallies, torch.tensor(nll), bins), counts, groups)
    test = with_group_intervals(Evaluation(summary, predictions), whole, config.data.group_column).summary
    metrics = {
        "recipe": config.recipe,
        "classes": list(counts.names),
        "train_counts": list(counts),
        "groups": {name: [int(i) for i in rows] for name, rows in groups.items()},
        "test": test,
        "validation": None,
        "stages": {},
        "folds": [
            {key: value for key, value in part["test"].items() if key not in {"per_class", "intervals"}}
            for part in parts
        ],
        "never_judged": never_judged(whole.labels, fold_of, counts.names),
        "seeds": parts[0]["seeds"],
        "data_hash": "sha256:" + hashlib.sha256("".join(part["data_hash"] for part in parts).encode()).hexdigest(),
        "notes": parts[0]["notes"],
        "unreadable": parts[0].get("unreadable", []),
        "versions": parts[0]["versions"],
        "hardware": parts[0]["hardware"],
        "seconds": {"total": round(sum(part["seconds"].get("total") or 0.0 for part in parts), 3)},
    }
    pool_examples(out, folders, size)
    write_predictions(out, predictions)
    write_confusion(out, predictions, counts.names)
    write_metrics(out, metrics)  # last: its presence says that all of it is there
    return metrics
