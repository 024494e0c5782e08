"""Analyze a finished run: measure what its model does with its own images, once, and keep it in RUN/analysis."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.analysis.columns import Analysis, AnalyzedSplit, ClassColumns, ImageColumns
from longtail.analysis.geometry import alignment, class_geometry, neural_collapse, uniformity
from longtail.analysis.noise import EffectiveCloud, effective_cloud
from longtail.analysis.norms import class_norms, is_cosine
from longtail.analysis.projection import METHODS, check_method, drawn_sample, project
from longtail.console import Bar, Reporter
from longtail.data.dataset import SPLIT_NAMES, Split
from longtail.errors import LongtailError, resume_hint
from longtail.experiments.finished_run import FinishedRun, open_run
from longtail.experiments.model_outputs import Features, ModelOutputs, collect_outputs, feature_table, write_features
from longtail.files import output_path
from longtail.losses.registry import build_loss
from longtail.models.heads import linear_map
from longtail.models.model import LongTailModel
from longtail.run.analysis import write_analysis
from longtail.run.folder import EXAMPLES_FILE, METRICS_FILE
from longtail.training.prepare import PreparedData
from longtail.training.results import write_examples
from longtail.version import versions

TRAIN_IMAGES = 20_000
"""Of a larger training split a sample is analyzed; large classes are subsampled first."""
DRAWN = 3_000
"""Images of a split that are projected to two dimensions."""


@dataclass(frozen=True)
class _Part:
    """The images of a split that are analyzed, their rows in it, and its size."""

    images: Split
    rows: npt.NDArray[np.int64]
    available: int


@dataclass(frozen=True)
class HeadArrays:
    """A head as arrays.

    Attributes:
        weight: Shape (C, D), times the learned scale of each class where there are any.
        bias: Shape (C,), scaled in the same way; None where the head has none.
        is_cosine: Whether it sees only the direction of a feature.
    """

    weight: Features
    bias: Features | None
    is_cosine: bool

    @classmethod
    def of(cls, model: LongTailModel) -> HeadArrays:
        """Read the head of a model."""
        weight, bias = linear_map(model.head)
        return cls(weight.numpy(), None if bias is None else bias.numpy(), is_cosine(model.head_name))

    def as_compared(self, features: Features) -> Features:
        """Return features (N, D) as the head compares them: a cosine head ignores their length."""
        if not self.is_cosine:
            return features
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        return np.asarray(features / np.where(norms > 0, norms, 1), dtype=np.float32)


def analyze_run(
    run: str | Path,
    *,
    projections: Sequence[str] = ("pca", "tsne"),
    seed: int = 0,
    features: str | Path | None = None,
    moved_to: str | None = None,
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
        seed: Of the samples and projections.
        features: A file for the features of all images, validation and the whole training split too; see
            :func:`longtail.experiments.model_outputs.feature_table`.
        moved_to: New SOURCE of the run, if its images have moved.
        reporter: Shows the progress; silent when None.

    Returns:
        The same as ``RunResult.analysis``.

    Raises:
        LongtailError: No finished run, other images than it was made with, or an unknown projection.
    """
    for method in projections:
        check_method(method)
    begun, reporter = time.perf_counter(), reporter or Reporter(quiet=True)
    opened = open_run(run, moved_to)
    prepared = _same_images(opened, reporter)
    engine, title = opened.engine, opened.folder.resolve().name
    parts = _parts(prepared, seed)
    if features is None:
        outputs = _forward(opened, parts, reporter, title)
    else:
        whole = _whole(prepared)
        outputs = _forward(opened, whole, reporter, title)
        if engine.is_main:
            images = {name: part.images for name, part in whole.items()}
            write_features(output_path(features), feature_table(outputs, images, opened.info.classes))
        outputs = {name: outputs[name].rows(part.rows) for name, part in parts.items()}
    head = HeadArrays.of(opened.model)
    cloud = _cloud(opened, head)
    splits = {}
    with reporter.bar(f"{title}: measures", (len(projections) + 1) * len(outputs)) as bar:
        for name, output in outputs.items():
            points, summary = _project(output, head, projections, seed, bar)
            measures, values = _measure(output, head, seed)
            bar.tick()
            summary = {"images": len(output.label), "of": parts[name].available} | summary | measures
            splits[name] = AnalyzedSplit(
                ImageColumns(index=parts[name].rows.astype(np.int32), **output.columns, **points),
                ClassColumns(**values, **_split_cloud(cloud, name)),
                summary,
            )
    facts = {
        "seed": seed,
        "projections": list(projections),
        "head": opened.model.head_name,
        "features": "directions" if head.is_cosine else "as they are",
        "data_hash": prepared.data_hash,
        "versions": versions(),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    if engine.is_main:
        write_analysis(opened.folder, splits, facts)
        if "test" in outputs:
            train, test = (prepared.data.splits[name] for name in ("train", "test"))
            predictions = outputs["test"].columns
            write_examples(opened.folder / EXAMPLES_FILE, train, test, predictions, opened.counts.array)
    engine.wait()
    return Analysis(splits.get("train"), splits.get("test"))


def _same_images(run: FinishedRun, reporter: Reporter) -> PreparedData:
    """Return the splits of a run; they have to be those that it was trained and tested on."""
    if run.data_hash is None:
        raise LongtailError(
            f"{run.folder} has no {METRICS_FILE}, which says which images it was made with: write it with: "
            f"{resume_hint(run.folder)}"
        )
    images = run.images()
    images.require_same()
    images.report_notes(reporter.say)
    return images.prepared


def _parts(prepared: PreparedData, seed: int) -> dict[str, _Part]:
    """Return the part of each split that is analyzed: a sample of a large training split, all of the test split."""
    parts = {}
    for name in ("train", "test"):
        split = prepared.split(name)
        if split is not None and len(split):
            rows = drawn_sample(split.labels, TRAIN_IMAGES if name == "train" else len(split), seed=seed)
            images = split if len(rows) == len(split) else split.select(rows.tolist())
            parts[name] = _Part(images, rows, len(split))
    return parts


def _whole(prepared: PreparedData) -> dict[str, _Part]:
    """Return every image of every split."""
    splits = {name: prepared.split(name) for name in SPLIT_NAMES}
    return {
        name: _Part(split, np.arange(len(split), dtype=np.int64), len(split)) for name, split in splits.items() if split
    }


def _forward(run: FinishedRun, parts: Mapping[str, _Part], reporter: Reporter, title: str) -> dict[str, ModelOutputs]:
    """Pass the images of all parts through the model, as it was trained."""
    model, scores = run.model.to(run.engine.device), run.info.unadjusted().scores
    outputs: dict[str, ModelOutputs] = {}
    with reporter.bar(f"{title}: images", sum(len(part.rows) for part in parts.values())) as bar:
        for name, part in parts.items():
            before = sum(len(output.label) for output in outputs.values())
            outputs[name] = collect_outputs(
                run.engine,
                model,
                run.inputs(part.images),
                num_images=len(part.rows),
                scores=scores,
                done=lambda count, before=before: bar.update(before + count),  # type: ignore[misc]
            )
    return outputs


def _cloud(run: FinishedRun, head: HeadArrays) -> EffectiveCloud:
    """Return the noise of the stage-1 loss in each logit."""
    stage1, stage2 = run.config.stage1, run.config.stage2
    loss = build_loss(stage1.loss.name, run.counts, stage1.loss.options)
    # A second stage has changed the classifier, so that the noise of the first can no longer be computed.
    is_known = loss.needs_classifier and not stage2.epochs
    return effective_cloud(loss, weight=head.weight if is_known else None)


def _split_cloud(cloud: EffectiveCloud, split: str) -> dict[str, Any]:
    """Return the cloud as columns; it is that of training, so that the classes of another split have none."""
    mean, spread = (values.astype(np.float32) for values in (cloud.mean, cloud.spread))
    columns = {"cloud_mean": mean, "cloud_spread": spread}
    return columns if split == "train" else {name: np.full_like(values, np.nan) for name, values in columns.items()}


def _project(
    outputs: ModelOutputs, head: HeadArrays, projections: Sequence[str], seed: int, bar: Bar
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two columns for each method, NaN where the image is not drawn, and the summary of the projections."""
    rows = drawn_sample(outputs.label, DRAWN, seed=seed)
    features = head.as_compared(outputs.features[rows])
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


def _measure(outputs: ModelOutputs, head: HeadArrays, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers of a split as a whole, and its columns by class."""
    features, labels, classes = head.as_compared(outputs.features), outputs.label, len(head.weight)
    geometry = class_geometry(features, labels, classes)
    norms = class_norms(outputs.features, labels, head.weight, head.bias, classes)
    columns: dict[str, npt.NDArray[Any]] = asdict(geometry) | asdict(norms)
    values = {
        name: value.astype(np.int32 if value.dtype.kind == "i" else np.float32) for name, value in columns.items()
    }
    collapse = neural_collapse(features, labels, classes, weight=head.as_compared(head.weight))
    summary = {
        "uniformity": _plain(uniformity(features, seed=seed)),
        "alignment": _plain(alignment(features, labels, classes)),
        "neural_collapse": {name: _plain(value) for name, value in asdict(collapse).items()},
    }
    return summary, values


def _plain(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
