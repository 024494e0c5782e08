"""Evaluate a finished run again: on a split of its own source, or on another source with the same class names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longtail.counts import ClassCounts, IntArray
from longtail.data.columns import split_name
from longtail.data.decoding import Decoder
from longtail.data.image_data import ImageData, Split
from longtail.data.loaders import Loader, ResidentBudget, build_loader
from longtail.data.sources import load_source
from longtail.errors import LongtailError, UsageError, nearest
from longtail.evaluation.coverage import SureSummary, coverage_curve, sure_summary, threshold_for_coverage
from longtail.evaluation.summary import Groups
from longtail.inference.info import ModelInfo
from longtail.inference.load import load_run, refuse_swapped
from longtail.training.config import RunConfig
from longtail.training.engine import Engine
from longtail.training.evaluate import Evaluation, evaluate
from longtail.training.grouped import units, with_group_intervals
from longtail.training.prepare import PreparedData, prepare_data
from longtail.training.recipe import config_from_dict, read_config
from longtail.training.run import make_engine
from longtail.training.stages import make_transform

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the images for which the coverage table says how many of those kept are right."""


def evaluate_run(
    run: Path,
    source: str | None = None,
    *,
    split: str = "test",
    label_column: str | None = None,
    image_column: str | None = None,
    adjustment: bool = True,
    coverage: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Evaluate a run, with the adjustment and the threshold that its model.json holds.

    Args:
        run: RUN folder of a finished run.
        source: Another SOURCE, whose classes are matched by name; the run's own when None.
        split: Split to evaluate on; a source with one split only is taken whole.
        label_column: The column of the other source that holds the class, where it is not found by its name.
        image_column: The column that holds the image, likewise.
        adjustment: False evaluates the model as it was trained.
        coverage: Also return how many images are kept, and how many of them are right, at some thresholds.
        say: Called with what the user should know about the images, one sentence at a time.

    Returns:
        What ``metrics.json`` holds for a split; where the model has a threshold, also ``sure``, what it keeps; and
        with ``coverage`` a list of the same for other thresholds.

    Raises:
        LongtailError: The run or split is missing, or a class name is unknown to the model.
    """
    split = split_name(split) or split
    if source is not None:
        refuse_swapped(run, source)
    model, info = load_run(run)
    info = info if adjustment else info.unadjusted()
    config = run_config(run)
    counts = ClassCounts(info.counts, info.classes)
    if source is None:
        rows = _own_split(run, config, split, say)
    else:
        data = load_source(source, label_column=label_column, image_column=image_column)
        rows = _foreign_split(data, split, info.classes, say)
    engine = make_engine(config)
    groups = counts.groups(many=config.data.many, few=config.data.few, by=config.data.groups)
    result = evaluate(
        engine, model.to(engine.device), split_loader(rows, config, info, engine, say), make_transform(config.data),
        num_images=len(rows), counts=counts, groups=groups, scores=info.scores,
        keep_predictions=coverage or info.threshold is not None or config.data.group_column is not None,
    )  # fmt: skip
    column = config.data.group_column
    result = with_group_intervals(result, rows, column)
    return dict(result.summary) | _certainty(result, groups, units(rows, column), info.threshold, coverage=coverage)


def _certainty(
    result: Evaluation, groups: Groups, unit: IntArray | None, threshold: float | None, *, coverage: bool
) -> dict[str, Any]:
    if not result.predictions:
        return {}
    said = result.predictions
    right = said["prediction"] == said["label"]
    together = None if unit is None else unit[said["index"]]

    def at(value: float) -> SureSummary:
        return sure_summary(said["confidence"], right, said["label"], groups, value, unit=together)

    found: dict[str, Any] = {} if threshold is None else {"sure": at(threshold)}
    if coverage:
        curve = coverage_curve(said["confidence"], right)
        found["coverage"] = [at(threshold_for_coverage(curve, share)) for share in COVERAGES]
    return found


def run_config(run: Path) -> RunConfig:
    """Return the configuration that a run was made from.

    Raises:
        LongtailError: ``config.yaml`` is missing or no configuration.
    """
    return config_from_dict(read_config(run / "config.yaml"), str(run / "config.yaml"))


def split_loader(
    rows: Split, config: RunConfig, info: ModelInfo, engine: Engine, say: Callable[[str], object]
) -> Loader:
    """Return the batches of a split, for the network of a run."""
    size = info.preprocessing
    return build_loader(
        Decoder(rows, size.resize, size.size, size.interpolation), engine.device,
        workers=config.data.workers, budget=ResidentBudget(engine.device, config.data.resident_gigabytes),
        cache=config.data.cache, keep_workers=False, warn=say,
    )  # fmt: skip


def own_data(run: Path, config: RunConfig, say: Callable[[str], object]) -> PreparedData:
    """Return the splits of the run's own source, as it was trained; ``say`` hears where the images have changed."""
    prepared = prepare_data(config.data)
    if data_hash(run) not in (None, prepared.data_hash):
        say(f"note: the images of {config.data.source!r} are not those that the run was trained and tested on.")
    return prepared


def _own_split(run: Path, config: RunConfig, name: str, say: Callable[[str], object]) -> Split:
    prepared = own_data(run, config, say)
    found = prepared.split(name)
    if found is None:
        raise UsageError(f"{config.data.source!r} has no split {name!r}.{nearest(name, prepared.data.splits)}")
    return found


def data_hash(run: Path) -> str | None:
    """The hash of the images that a run was made with; None where its metrics.json is gone: evaluation does without."""
    try:
        return str(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["data_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _foreign_split(data: ImageData, name: str, classes: tuple[str, ...], say: Callable[[str], object]) -> Split:
    rows = data.splits.get(name)
    if rows is None:
        if len(data.splits) > 1:
            raise UsageError(f"{data.source!r} has no split {name!r}.{nearest(name, data.splits)}")
        rows = data.splits["train"]
        say(f"note: {data.source!r} is not divided into splits: all of its {len(rows)} images are evaluated.")
    if not len(rows):
        raise LongtailError(f"{data.source!r} has no images in its split {name!r}: add some, or name another --split.")
    return _relabel(data, rows, classes)


def _relabel(data: ImageData, rows: Split, classes: tuple[str, ...]) -> Split:
    """Give the rows the label numbers of the model, by class name."""
    number = {name: index for index, name in enumerate(classes)}
    present = sorted({data.classes[label] for label in rows.labels})
    unknown = [name for name in present if name not in number]
    if unknown:
        raise LongtailError(
            f"{data.source!r} has the class {unknown[0]!r}, which the model was not trained on."
            f"{nearest(unknown[0], classes)}"
        )
    table = np.array([number.get(name, -1) for name in data.classes], dtype=np.int64)
    labelled = rows.rows.remove_columns("label").add_column("label", table[rows.labels])
    return replace(rows, rows=labelled)
