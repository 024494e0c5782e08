"""Evaluate a finished run again: on a split of its own source, or on another source with the same class names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longtail.counts import ClassCounts
from longtail.data.image_data import ImageData, Split
from longtail.data.loaders import Decoder, build_loader
from longtail.data.sources import load_source
from longtail.errors import LongtailError, nearest
from longtail.inference.load import load_run
from longtail.training.config import RunConfig
from longtail.training.engine import Engine
from longtail.training.evaluate import evaluate
from longtail.training.prepare import prepare_data
from longtail.training.recipe import config_from_dict, read_config
from longtail.training.stages import make_transform


def evaluate_run(run: Path, source: str | None = None, *, split: str = "test") -> dict[str, Any]:
    """Evaluate a run.

    Args:
        run: RUN folder of a finished run.
        source: Another SOURCE, whose classes are matched by name; the run's own when None.
        split: Split to evaluate on; a source with one split only is taken whole.

    Returns:
        What ``metrics.json`` holds for a split.

    Raises:
        LongtailError: The run or split is missing, or a class name is unknown to the model.
    """
    model, info = load_run(run)
    config = config_from_dict(read_config(run / "config.yaml"), str(run / "config.yaml"))
    counts = ClassCounts(info.counts, info.classes)
    rows = _own_split(config, split) if source is None else _foreign_split(source, split, info.classes)
    engine = Engine(config.training)
    model.to(engine.device)
    size = info.preprocessing
    loader = build_loader(
        Decoder(rows, size.resize, size.size), engine.device,
        workers=config.data.workers, resident_gigabytes=config.data.resident_gigabytes,
    )  # fmt: skip
    groups = counts.groups(many=config.data.many, few=config.data.few, by=config.data.groups)
    result = evaluate(
        engine, model, loader, make_transform(config.data),
        num_images=len(rows), counts=counts, groups=groups, logit_scale=info.logit_scale,
    )  # fmt: skip
    return dict(result.summary)


def _own_split(config: RunConfig, name: str) -> Split:
    prepared = prepare_data(config.data)
    found = prepared.split(name)
    if found is None:
        raise LongtailError(f"{config.data.source!r} has no split {name!r}.{nearest(name, prepared.data.splits)}")
    return found


def _foreign_split(source: str, name: str, classes: tuple[str, ...]) -> Split:
    data = load_source(source)
    if name not in data.splits and len(data.splits) > 1:
        raise LongtailError(f"{source!r} has no split {name!r}.{nearest(name, data.splits)}")
    rows = data.splits.get(name, data.splits["train"])
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
