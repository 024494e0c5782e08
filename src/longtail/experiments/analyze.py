"""Analyze a finished run: measure what its model does with its own images, once, and keep it in RUN/analysis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from longtail.analysis.columns import Analysis, AnalyzedSplit, ClassColumns, ImageColumns
from longtail.analysis.geometry import alignment, class_geometry, neural_collapse, uniformity
from longtail.analysis.noise import effective_cloud
from longtail.analysis.norms import class_norms, is_cosine
from longtail.analysis.projection import METHODS, check_method, drawn_sample, project
from longtail.config.options import EngineName
from longtail.console import Bar, Reporter
from longtail.counts import IntArray
from longtail.data.dataset import SPLIT_NAMES, Split
from longtail.errors import LongtailError
from longtail.experiments.finished_run import FinishedRun, open_run
from longtail.files import output_path, writing
from longtail.losses import build_loss
from longtail.models.heads import linear_map
from longtail.run.analysis import write_analysis
from longtail.run.layout import METRICS_FILE, restore_hint
from longtail.run.tables import write_examples
from longtail.training.artifacts import example_images
from longtail.training.forward_pass import BatchOutputs, forward_pass
from longtail.training.prepared_data import PreparedData
from longtail.version import versions

TRAIN_IMAGES = 20_000
"""Of a larger training split a sample is analyzed; large classes are subsampled first."""
DRAWN = 3_000
"""Images of a split that are projected to two dimensions."""

Features: TypeAlias = npt.NDArray[np.float32]
Compared: TypeAlias = Callable[[Features], Features]
"""Returns features, or weights, as the head compares them."""


@dataclass(frozen=True)
class ModelOutputs:
    """Per-image outputs of a model on one split.

    Attributes:
        columns: By name, shape (N,): label, prediction, confidence, probability_true, margin and feature_norm.
        features: Shape (N, D).
    """

    columns: dict[str, npt.NDArray[Any]]
    features: Features

    @property
    def label(self) -> IntArray:
        """Class indices, (N,)."""
        return self.columns["label"].astype(np.int64)

    def select(self, rows: IntArray) -> ModelOutputs:
        """Select images by row."""
        return ModelOutputs({name: values[rows] for name, values in self.columns.items()}, self.features[rows])


def analyze_run(
    run: str | Path,
    *,
    projections: Sequence[str] = ("pca", "tsne"),
    seed: int = 0,
    features: str | Path | None = None,
    moved_to: str | None = None,
    engine: EngineName | None = None,
    reporter: Reporter | None = None,
) -> Analysis:
    """Measure what the model of a run learned, and write it to ``RUN/analysis``.

    All test images are passed through the network, and of the training images at most :data:`TRAIN_IMAGES`, without
    augmentation. The model is taken as it was trained, without the choices of ``longtail adjust``. An analysis
    that the run had is replaced once the new one is complete; so is ``RUN/examples.parquet``, which older versions
    wrote for the hardest classes only.

    Args:
        run: RUN folder of a finished run; its images have to be where they were.
        projections: Of ``"pca"``, ``"tsne"`` and ``"umap"``; may be empty.
        seed: Seed of the samples and projections.
        features: A file for the features of all images, validation and the whole training split too; see
            :func:`feature_table`.
        moved_to: New SOURCE of the run, if its images have moved.
        engine: What runs the network, as ``training.engine``; what the run recorded when None.
        reporter: Shows the progress; silent when None.

    Returns:
        The same as ``RunResult.analysis``.

    Raises:
        LongtailError: No finished run, other images than it was made with, or an unknown projection.
    """
    for method in projections:
        check_method(method)
    begun, reporter = time.perf_counter(), reporter or Reporter(quiet=True)
    opened = open_run(run, moved_to, engine)
    prepared = _same_images(opened, reporter)
    title = opened.folder.resolve().name
    whole = {name: split for name in SPLIT_NAMES if (split := prepared.split(name))}
    rows: dict[str, IntArray] = {
        name: drawn_sample(whole[name].labels, TRAIN_IMAGES if name == "train" else len(whole[name]), seed=seed)
        for name in ("train", "test")
        if name in whole
    }
    sampled = {name: whole[name].select(rows[name].tolist()) for name in rows}
    outputs = _forward(opened, sampled if features is None else whole, reporter, title)
    if features is not None:
        if opened.engine.is_main:
            write_features(output_path(features), feature_table(outputs, whole, opened.info.classes))
        outputs = {name: outputs[name].select(rows[name]) for name in rows}
    weight, bias = (None if part is None else part.numpy() for part in linear_map(opened.model.head))
    assert weight is not None
    ignores_length = is_cosine(opened.model.head_name)
    compared = _directions if ignores_length else np.asarray
    cloud = _cloud(opened, weight)
    splits = {}
    with reporter.bar(f"{title}: measures", (len(projections) + 1) * len(outputs)) as bar:
        for name, output in outputs.items():
            points, summary = _project(output, compared, projections, seed, bar)
            measures, values = _measure(output, weight, bias, compared, seed)
            bar.tick()
            summary = {"images": len(output.label), "of": len(whole[name])} | summary | measures
            # The cloud is that of training: the classes of another split have none.
            noise = cloud if name == "train" else {key: np.full_like(array, np.nan) for key, array in cloud.items()}
            splits[name] = AnalyzedSplit(
                ImageColumns(index=rows[name].astype(np.int32), **output.columns, **points),
                ClassColumns(**values, **noise),
                summary,
            )
    facts = {
        "seed": seed,
        "projections": list(projections),
        "head": opened.model.head_name,
        "features": "directions" if ignores_length else "as they are",
        "data_hash": prepared.data_hash,
        "versions": versions(),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    if opened.engine.is_main:
        write_analysis(opened.folder, splits, facts)
        if "test" in outputs:
            tested, counts = outputs["test"].columns, opened.counts.array
            write_examples(opened.folder, example_images(whole["train"], whole["test"], tested, counts))
    opened.engine.wait()
    return Analysis(splits.get("train"), splits.get("test"))


def _same_images(run: FinishedRun, reporter: Reporter) -> PreparedData:
    """Return the splits of a run; they have to be those that it was trained and tested on."""
    if run.data_hash is None:
        raise LongtailError(
            f"{run.folder} has no {METRICS_FILE}, which says which images it was made with: {restore_hint(run.folder)}"
        )
    return run.images(reporter.say, must_be_same=True)


def _forward(run: FinishedRun, splits: Mapping[str, Split], reporter: Reporter, title: str) -> dict[str, ModelOutputs]:
    """Pass the images of all splits through the model, as it was trained; each process sees all of them."""
    scores = run.info.unadjusted().scores
    features = run.features(splits, reporter)
    passes = {name: features.single_pass(name) for name in splits}
    outputs: dict[str, ModelOutputs] = {}
    with reporter.bar(f"{title}: images", sum(map(len, splits.values()))) as bar:

        def columns_of(images: int, batches: Iterator[BatchOutputs]) -> dict[str, npt.NDArray[Any]]:
            before, columns = sum(len(output.label) for output in outputs.values()), dict[str, Tensor]()
            for logits, features, labels, rows in batches:
                for name, values in _columns(scores(logits), labels, features.float()).items():
                    if name not in columns:  # whole: pieces of it would lie between the logits and keep their memory
                        columns[name] = torch.empty(images, *values.shape[1:], dtype=values.dtype)
                    columns[name][rows] = values
                bar.update(before + int(rows[-1]) + 1)
            return {name: values.numpy() for name, values in columns.items()}

        for name, split in splits.items():
            every = torch.arange(len(split))
            columns = forward_pass(run.engine, *passes[name], every, partial(columns_of, len(split)))
            outputs[name] = ModelOutputs(columns, columns.pop("features"))
    return outputs


def _columns(scores: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:
    rows = labels[:, None]
    probabilities = scores.softmax(dim=1)
    top = probabilities.max(dim=1)
    highest_other = scores.scatter(1, rows, -torch.inf).amax(dim=1)
    columns = {
        "label": labels.int(),
        "prediction": top.indices.int(),
        "confidence": top.values,
        "probability_true": probabilities.gather(1, rows)[:, 0],
        "margin": scores.gather(1, rows)[:, 0] - highest_other,
        "feature_norm": torch.linalg.vector_norm(features, dim=1),
        "features": features,
    }
    return {name: value.cpu() for name, value in columns.items()}


def _directions(features: Features) -> Features:
    """Features (N, D) as a cosine head compares them, which ignores their length."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(norms > 0, norms, 1), dtype=np.float32)


def _cloud(run: FinishedRun, weight: Features) -> dict[str, Any]:
    """Return the noise of the stage-1 loss in each logit as columns."""
    stage1 = run.config.stage1
    loss = build_loss(stage1.loss.name, run.counts, stage1.loss.options)
    # A later stage has changed the classifier, so that the noise of the first can no longer be computed.
    is_known = loss.needs_classifier and max(run.config.stages) == 1
    cloud = effective_cloud(loss, weight=weight if is_known else None)
    return {"cloud_mean": cloud.mean.astype(np.float32), "cloud_spread": cloud.spread.astype(np.float32)}


def _project(
    outputs: ModelOutputs, compared: Compared, projections: Sequence[str], seed: int, bar: Bar
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two columns for each method, NaN where the image is not drawn, and the summary of the projections."""
    rows = drawn_sample(outputs.label, DRAWN, seed=seed)
    features = compared(outputs.features[rows])
    columns: dict[str, Any] = {}
    summary: dict[str, Any] = {"drawn": len(rows) if projections else 0, "explained_variance": None}
    for method in METHODS:
        points = np.full((len(outputs.label), 2), np.nan, np.float32)
        if method in projections:
            bar.update(bar.done, method)
            projection = project(features, method, seed=seed)
            points[rows] = projection.points
            if projection.explained:
                summary["explained_variance"] = list(projection.explained)
            bar.tick()
        columns |= {f"{method}_x": points[:, 0], f"{method}_y": points[:, 1]}
    return columns, summary


def _measure(
    outputs: ModelOutputs, weight: Features, bias: Features | None, compared: Compared, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers of a split as a whole, and its columns by class."""
    features, labels, classes = compared(outputs.features), outputs.label, len(weight)
    geometry = class_geometry(features, labels, classes)
    norms = class_norms(outputs.features, labels, weight, bias, classes)
    columns: dict[str, npt.NDArray[Any]] = asdict(geometry) | asdict(norms)
    values = {
        name: value.astype(np.int32 if value.dtype.kind == "i" else np.float32) for name, value in columns.items()
    }
    collapse = neural_collapse(features, labels, classes, weight=compared(weight))
    summary = {
        "uniformity": _plain(uniformity(features, seed=seed)),
        "alignment": _plain(alignment(features, labels, classes)),
        "neural_collapse": {name: _plain(value) for name, value in asdict(collapse).items()},
    }
    return summary, values


def _plain(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def feature_table(outputs: Mapping[str, ModelOutputs], splits: Mapping[str, Split], classes: Sequence[str]) -> pa.Table:
    """Combine the features of several splits in one table.

    Args:
        outputs: Features and labels of whole splits, by split name.
        splits: The splits, with the same rows.
        classes: Class names by index.

    Returns:
        Columns ``split``, ``index`` (row in the split), ``path`` (below the source's folder, or its row), ``label``,
        ``label_name``, and ``features``, a list of D float32.
    """
    parts = []
    for name, output in outputs.items():
        values = np.ascontiguousarray(output.features, dtype=np.float32)
        columns = {
            "split": [name] * len(values),
            "index": np.arange(len(values), dtype=np.int64),
            "path": splits[name].places(),
            "label": output.label,
            "label_name": [classes[label] for label in output.label],
            "features": pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1]),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def write_features(path: Path, table: pa.Table) -> None:
    """Write the table: as npz with one array per column if the suffix is .npz, else as Parquet.

    Raises:
        LongtailError: It cannot be written.
    """
    with writing(path) as file:
        if path.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {
                name: np.array(table[name].to_pylist()) for name in table.column_names if name != "features"
            }
            features = table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
            np.savez(file, features=features, **arrays)
        else:
            pq.write_table(table, file, compression="zstd")
