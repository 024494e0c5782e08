"""Analyse a finished run: what its model makes of its own images, collected once and kept in RUN/analysis."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtail.analysis.columns import AnalysedSplit, Analysis, ClassColumns, ImageColumns
from longtail.analysis.geometry import alignment, class_geometry, neural_collapse, uniformity
from longtail.analysis.noise import EffectiveCloud, effective_cloud
from longtail.analysis.norms import class_norms
from longtail.analysis.projection import METHODS, check_method, drawn_sample, project
from longtail.config.schema import RunConfig
from longtail.console import Bar, Reporter
from longtail.counts import ClassCounts
from longtail.data.dataset import SPLIT_NAMES, Split
from longtail.errors import LongtailError, resume_hint
from longtail.experiments.collect import HeadArrays, Seen, see
from longtail.experiments.evaluate import split_loader
from longtail.experiments.feature_table import feature_table, write_features
from longtail.experiments.own_images import data_hash, own_images, run_config
from longtail.files import output_path
from longtail.losses.registry import build_loss
from longtail.models.model import LongTailModel
from longtail.run.environment import versions
from longtail.run.folder import ANALYSIS_FOLDER, EXAMPLES_FILE, METRICS_FILE
from longtail.run.model_files import load_run
from longtail.run.model_info import ModelInfo
from longtail.run.write import write_json, write_table
from longtail.training.engine import Engine
from longtail.training.examples import write_examples
from longtail.training.experiment import make_engine
from longtail.training.prepare import PreparedData
from longtail.training.stages import make_transform

FORMAT = 1
TRAIN_IMAGES = 20_000
"""Of a larger training split a sample is analysed, in which every class keeps what it can."""
DRAWN = 3_000
"""Images of a split that get a place in two dimensions."""


@dataclass(frozen=True)
class _Part:
    """The images of a split that are analysed, their rows in it, and how many it has."""

    images: Split
    rows: npt.NDArray[np.int64]
    available: int


def analyse_run(
    run: str | Path,
    *,
    projections: Sequence[str] = ("pca", "tsne"),
    seed: int = 0,
    features: str | Path | None = None,
    moved_to: str | None = None,
    reporter: Reporter | None = None,
) -> Analysis:
    """Measure what the model of a run learned, and write it to ``RUN/analysis``.

    All test images are passed through the network, and of the training images at most :data:`TRAIN_IMAGES`, as they
    are without augmentation. The model is taken as it was trained, without what ``longtail adjust`` chose. An analysis
    that the run had is replaced once the new one is complete; so is ``RUN/examples.parquet``, which older versions
    wrote for the hardest classes only.

    Args:
        run: RUN folder of a finished run; its images have to be where they were.
        projections: Of ``"pca"``, ``"tsne"`` and ``"umap"``; may be empty.
        seed: Of the samples and projections.
        features: A file for the features of all images, validation and the whole training split too; see
            :mod:`longtail.experiments.feature_table`.
        moved_to: New SOURCE of the run, if its images have moved.
        reporter: Tells how far it is; silent when None.

    Returns:
        What ``RunResult.analysis`` reads.

    Raises:
        LongtailError: No finished run, other images than it was made with, or an unknown projection.
    """
    for method in projections:
        check_method(method)
    begun, folder, reporter = time.perf_counter(), Path(run), reporter or Reporter(quiet=True)
    title = folder.resolve().name
    model, info = load_run(folder)
    config = run_config(folder, moved_to)
    prepared = _same_images(folder, config, info, reporter)
    engine = make_engine(config)
    parts = _parts(prepared, seed)
    passed = parts if features is None else _whole(prepared)
    model.to(engine.device)
    with reporter.bar(f"{title}: images", sum(len(part.rows) for part in passed.values())) as bar:
        seen = _collect(passed, config, model, info.unadjusted(), engine, bar)
    if features is not None:
        if engine.is_main:
            whole = {name: part.images for name, part in passed.items()}
            write_features(output_path(features), feature_table(seen, whole, info.classes))
        seen = {name: seen[name].rows(part.rows) for name, part in parts.items()}
    classifier = HeadArrays.of(model)
    cloud = _cloud(config, ClassCounts(info.counts, info.classes), classifier)
    splits = {}
    with reporter.bar(f"{title}: measures", (len(projections) + 1) * len(seen)) as bar:
        for name, one in seen.items():
            places, summary = _places(one, classifier, projections, seed, bar)
            measured, values = _measure(one, classifier, seed)
            bar.tick()
            images = ImageColumns(index=parts[name].rows.astype(np.int32), **one.columns, **places)
            classes = ClassColumns(**values, **_split_cloud(cloud, name))
            summary = {"images": len(one.label), "of": parts[name].available} | summary | measured
            splits[name] = AnalysedSplit(images, classes, summary)
    facts = {
        "format": FORMAT, "seed": seed, "projections": list(projections), "head": model.head_name,
        "features": "directions" if classifier.is_cosine else "as they are", "data_hash": prepared.data_hash,
        "versions": versions(), "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip
    if engine.is_main:
        _write(folder / ANALYSIS_FOLDER, splits, facts)
        if "test" in seen:
            sources, counts = prepared.data.splits, prepared.counts.array
            said = seen["test"].columns
            write_examples(folder / EXAMPLES_FILE, sources["train"], sources["test"], said, counts)
    engine.wait()
    return Analysis(splits.get("train"), splits.get("test"))


def _same_images(run: Path, config: RunConfig, info: ModelInfo, reporter: Reporter) -> PreparedData:
    """The splits of a run, which have to be those that it was trained and tested on."""
    if data_hash(run) is None:
        raise LongtailError(
            f"{run} has no {METRICS_FILE}, which says which images it was made with: write it with: {resume_hint(run)}"
        )
    own = own_images(run, config, info)
    own.require_same()
    for note in own.notes:
        reporter.say(f"note: {note}")
    return own.prepared


def _parts(prepared: PreparedData, seed: int) -> dict[str, _Part]:
    """What is analysed of each split; a large training split is cut down to a sample."""
    found = {}
    for name in ("train", "test"):
        split = prepared.split(name)
        if split is None or not len(split):
            continue
        rows = drawn_sample(split.labels, TRAIN_IMAGES if name == "train" else len(split), seed=seed)
        found[name] = _Part(split if len(rows) == len(split) else split.select(rows.tolist()), rows, len(split))
    return found


def _whole(prepared: PreparedData) -> dict[str, _Part]:
    """Every image of every split."""
    parts = {}
    for name in SPLIT_NAMES:
        split = prepared.split(name)
        if split is not None and len(split):
            parts[name] = _Part(split, np.arange(len(split), dtype=np.int64), len(split))
    return parts


def _collect(
    parts: Mapping[str, _Part], config: RunConfig, model: LongTailModel, info: ModelInfo, engine: Engine, bar: Bar
) -> dict[str, Seen]:
    found, before = {}, 0
    for name, part in parts.items():
        loader = split_loader(part.images, config, info, engine)
        found[name] = see(
            engine, model, loader, make_transform(config.data), num_images=len(part.rows), scores=info.scores,
            done=partial(_advance, bar, before),
        )  # fmt: skip
        before += len(part.rows)
    return found


def _advance(bar: Bar, before: int, count: int) -> None:
    bar.update(before + count)


def _cloud(config: RunConfig, counts: ClassCounts, classifier: HeadArrays) -> EffectiveCloud:
    loss = build_loss(config.stage1.loss.name, counts, config.stage1.loss.options)
    # A second stage has changed the classifier: what the noise did in the first can no longer be known.
    known = loss.needs_classifier and not config.stage2.epochs
    return effective_cloud(loss, weight=classifier.weight if known else None)


def _split_cloud(cloud: EffectiveCloud, split: str) -> dict[str, Any]:
    """The cloud is that of training: the classes of another split have none."""
    mean, spread = (values.astype(np.float32) for values in (cloud.mean, cloud.spread))
    shown = {"cloud_mean": mean, "cloud_spread": spread}
    return shown if split == "train" else {name: np.full_like(values, np.nan) for name, values in shown.items()}


def _places(
    seen: Seen, classifier: HeadArrays, projections: Sequence[str], seed: int, bar: Bar
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two columns for each method, NaN where the image is not drawn; how many are, and the variance that PCA keeps."""
    rows = drawn_sample(seen.label, DRAWN, seed=seed)
    features = classifier.sees(seen.features[rows])
    columns: dict[str, Any] = {}
    summary: dict[str, Any] = {"drawn": len(rows) if projections else 0, "explained_variance": None}
    for method in METHODS:
        place = np.full((len(seen.label), 2), np.nan, np.float32)
        if method in projections:
            bar.update(bar.done, method)
            found = project(features, method, seed=seed)
            place[rows] = found.points
            if found.explained:
                summary["explained_variance"] = list(found.explained)
            bar.tick()
        columns |= {f"{method}_x": place[:, 0], f"{method}_y": place[:, 1]}
    return columns, summary


def _measure(seen: Seen, classifier: HeadArrays, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of a split as a whole, and its columns by class."""
    features, labels, classes = classifier.sees(seen.features), seen.label, len(classifier.weight)
    geometry = class_geometry(features, labels, classes)
    norms = class_norms(seen.features, labels, classifier.weight, classifier.bias, classes)
    columns: dict[str, npt.NDArray[Any]] = asdict(geometry) | asdict(norms)
    values = {
        name: value.astype(np.int32 if value.dtype.kind == "i" else np.float32) for name, value in columns.items()
    }
    collapse = neural_collapse(features, labels, classes, weight=classifier.sees(classifier.weight))
    summary = {
        "uniformity": _plain(uniformity(features, seed=seed)),
        "alignment": _plain(alignment(features, labels, classes)),
        "neural_collapse": {name: _plain(value) for name, value in asdict(collapse).items()},
    }
    return summary, values


def _plain(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def _write(folder: Path, splits: Mapping[str, AnalysedSplit], facts: dict[str, Any]) -> None:
    images = [pa.table(_column(name, split.images.index) | vars(split.images)) for name, split in splits.items()]
    classes = []
    for name, split in splits.items():
        numbers = {"class": np.arange(len(split.classes.images), dtype=np.int32)}
        classes.append(pa.table(_column(name, split.classes.images) | numbers | vars(split.classes)))
    write_table(folder / "images.parquet", pa.concat_tables(images))
    write_table(folder / "classes.parquet", pa.concat_tables(classes))
    whole = {name: dict(split.summary) for name, split in splits.items()}
    write_json(folder / "summary.json", facts | {"splits": whole})


def _column(split: str, like: npt.NDArray[Any]) -> dict[str, Any]:
    return {"split": [split] * len(like)}
