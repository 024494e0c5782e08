"""The artifacts of a finished run: ``metrics.json``, ``model.json`` and the example images of its report."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from longtail.analysis.confusions import FULL, Detail, choose_examples, usual_detail
from longtail.config.schema import RunConfig
from longtail.config.stage import StageConfig
from longtail.counts import GROUP_NAMES, IntArray
from longtail.data.dataset import Split
from longtail.data.loading.stream_loader import StreamSampler
from longtail.formatting import figure_text
from longtail.models.model import LongTailModel
from longtail.models.preprocessing import Preprocessing
from longtail.run.layout import stage_name
from longtail.run.model_files import ModelInfo, ModelSpec
from longtail.run.tables import ExampleImage, throughput
from longtail.training.engine import Engine
from longtail.training.loop import StageRun
from longtail.training.prepared_data import PreparedData
from longtail.training.split_evaluation import Evaluation
from longtail.training.stages import assumed_prior
from longtail.version import versions


@dataclass
class Record:
    """The measurements of a run so far; every checkpoint holds them.

    Attributes:
        history: One row an epoch.
        stage_results: Figures after each stage.
        seconds: Seconds of everything but the epochs, by name.
        scale: Factor of the logits before softmax, that of the loss.
        draws: For each stage that streamed its images, draws and different images of each class.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    stage_results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("startup", "compile", "features", "choosing", "evaluation", "saving"), 0.0
        )
    )
    scale: float = 1.0
    draws: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def resume(self, values: Mapping[str, Any]) -> None:
        """Continue from the values of a checkpoint; the seconds add to those of this start."""
        self.history, self.stage_results, self.scale = values["history"], values["stage_results"], values["scale"]
        self.draws = values.get("draws", {})
        for name, value in values.get("seconds", {}).items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def run_metrics(
    config: RunConfig,
    prepared: PreparedData,
    record: Record,
    results: Mapping[str, Evaluation],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values of ``metrics.json``: figures first, then their origin.

    Args:
        config: The resolved configuration.
        prepared: The data.
        record: Record of the whole run.
        results: The evaluation of each split after the last stage.
        machine: Hardware and processes.
    """
    seconds = {"stage1": 0.0, "stage2": 0.0} | record.seconds
    for row in record.history:
        name = f"stage{row['stage']}"
        seconds[name] = seconds.get(name, 0.0) + row["seconds"]
    seconds = {name: round(value, 3) for name, value in seconds.items()}
    stages = config.stages
    return {
        "recipe": config.recipe,
        "classes": list(prepared.counts.names),
        "train_counts": list(prepared.counts),
        "groups": {name: [int(i) for i in rows] for name, rows in prepared.groups.items()},
        "test": results["test"].summary if "test" in results else None,
        "validation": results["validation"].summary if "validation" in results else None,
        "stages": record.stage_results,
        "losses": {f"stage{index}": {"name": stage.loss.name} | stage.loss.options for index, stage in stages.items()},
        "seeds": {
            "seed": config.training.seed,
            "subset_seed": config.data.subset_seed,
            "split_seed": config.data.split_seed,
        },
        "data_hash": prepared.data_hash,
        "notes": list(prepared.notes),
        "draws": record.draws,
        "unreadable": prepared.unreadable,
        "versions": versions(),
        "hardware": dict(machine),
        "seconds": {"total": round(sum(seconds.values()), 3)} | seconds,
        "throughput": {f"stage{index}": throughput(record.history, index) for index in stages},
    }


def count_draws(engine: Engine, stage: StageRun) -> dict[str, dict[str, list[int]]]:
    """Count what a stage saw of each class, over all processes, by the name of the stage; empty without a stream.

    Args:
        engine: Adds up the counts of the processes.
        stage: The stage, trained.
    """
    sampler = stage.sampler
    if not isinstance(sampler, StreamSampler):
        return {}
    both = torch.from_numpy(np.stack([sampler.drawn.sum(axis=0), sampler.distinct.sum(axis=0)]))
    draws, seen = engine.sum(both.to(engine.device)).cpu().numpy()
    shared: dict[int, int] = {}  # images that every process draws from
    for part in engine.gather(sampler.shared_seen):
        shared |= part
    seen += np.bincount([*shared.values()], minlength=len(seen)).astype(seen.dtype)
    return {
        stage_name(stage.index): {"images": list(sampler.class_counts), "draws": draws.tolist(), "seen": seen.tolist()}
    }


def describe(summary: Mapping[str, Any]) -> str:
    """Describe the main figures of a summary in one line, with their intervals where it has them.

    Example:
        >>> figures = {"accuracy": 0.5, "balanced_accuracy": 0.4, "many": 0.75, "medium": None, "few": 0.1}
        >>> describe(figures)
        'accuracy 50.0%, balanced accuracy 40.0%, many 75.0, medium n/a, few 10.0'
        >>> describe(figures | {"intervals": {"accuracy": [0.41, 0.59]}})
        'accuracy 50.0% (41.0–59.0), balanced accuracy 40.0%, many 75.0, medium n/a, few 10.0'
    """
    intervals = summary.get("intervals") or {}
    figures = {
        name: figure_text(summary[name], intervals.get(name), unit=name not in GROUP_NAMES)
        for name in ("accuracy", "balanced_accuracy", *GROUP_NAMES)
    }
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in figures.items())


def model_info(
    config: RunConfig, prepared: PreparedData, model: LongTailModel, stage: StageConfig, scale: float, tau: float = 0.0
) -> ModelInfo:
    """Return the values of ``model.json`` after a stage.

    Args:
        config: The resolved configuration.
        prepared: The data.
        model: The network.
        stage: The last stage that trained it.
        scale: Factor of the logits before softmax.
        tau: Strength of the logit adjustment that the head has.
    """
    data = config.data
    return ModelInfo(
        model=ModelSpec(name=config.model.name, head=model.with_folded_head().head_name),
        classes=prepared.counts.names,
        counts=prepared.counts.counts,
        preprocessing=Preprocessing(
            size=data.image_size,
            resize=data.resize,
            mean=tuple(data.mean),
            std=tuple(data.std),
            interpolation=data.interpolation,
            fit=data.fit,
        ),
        logit_scale=scale,
        prior=assumed_prior(stage, prepared.counts, tau=tau),
        recipe=config.recipe,
        versions=versions(),
    )


def example_images(
    train: Split,
    test: Split,
    predictions: Mapping[str, Any],
    counts: IntArray,
    *,
    tick: Callable[[], object] = lambda: None,
) -> list[ExampleImage]:
    """Return small pictures of every class, the hardest first: some of its training images, and some errors on it.

    Args:
        train: Training split.
        test: Test split that the predictions are of.
        predictions: Its columns ``label``, ``prediction`` and ``confidence``, shape (N,) each.
        counts: Training images per class, shape (C,).
        tick: Called once per class.
    """
    label, answer = (np.asarray(predictions[name], dtype=np.int64) for name in ("label", "prediction"))
    confidence = np.asarray(predictions["confidence"], dtype=np.float64)
    chosen = choose_examples(label, answer, confidence, counts)
    usual = usual_detail(len(chosen.classes))
    shown, wrong = _by_class(train.labels, len(chosen.close)), _by_class(label[chosen.errors], len(chosen.close))
    rows: list[ExampleImage] = []

    def add(split: Split, index: int, role: str, prediction: int = -1, sure: float = 0.0) -> None:
        picture = thumbnail(split.image(index), detail)
        rows.append(ExampleImage(name, role, picture, prediction, sure, split.path(index)))

    for name in chosen.classes.tolist():
        detail = FULL if chosen.close[name] else usual
        for index in shown[name][: detail.pictures].tolist():
            add(train, index, "train")
        for index in chosen.errors[wrong[name]].tolist():
            add(test, index, "error", int(answer[index]), float(confidence[index]))
        tick()
    return rows


def thumbnail(picture: Image.Image, detail: Detail) -> bytes:
    """A picture as it is stored: WebP, not enlarged.

    Example:
        >>> small = Image.open(io.BytesIO(thumbnail(Image.new("RGB", (300, 200)), FULL)))
        >>> small.format, small.size
        ('WEBP', (96, 64))
    """
    small, buffer = picture.copy(), io.BytesIO()
    small.thumbnail((detail.side, detail.side), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=detail.quality)
    return buffer.getvalue()


def _by_class(label: IntArray, num_classes: int) -> list[IntArray]:
    """The rows of each class, in their order."""
    return np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label, minlength=num_classes))[:-1])
