"""A stage of a small network on random images of three classes, and an epoch of it."""

from __future__ import annotations

from typing import Any

import torch

from longtail.config.schema import ModelConfig, TrainingConfig
from longtail.config.stage import StageConfig
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.transforms.augmentation import BatchTransform
from longtail.models.model import LongTailModel, build_model
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.loop import StageRun, train_epoch
from longtail.training.stages import build_stage, set_trainable

TRANSFORM = BatchTransform((0.5,) * 3, (0.25,) * 3)


def make_stage(
    stage: StageConfig,
    training: TrainingConfig,
    model: LongTailModel,
    *,
    index: int = 1,
    images: int = 24,
    transform: BatchTransform = TRANSFORM,
    labels: torch.Tensor | None = None,
) -> StageRun:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(images) % 3 if labels is None else labels
    engine = Engine(training)
    set_trainable(model, stage, ModelConfig())
    counts = ClassCounts.from_labels(labels.numpy(), 3)
    inputs = ImageInputs(ResidentLoader(pixels, labels, engine.device), transform)
    return build_stage(engine, stage, index, model=model, counts=counts, inputs=inputs)


def one_epoch(stage: StageConfig, training: TrainingConfig, name: str = "plain-cnn") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(name, 3, "linear")
    train_epoch(make_stage(stage, training, model), 0)
    return {key: value.clone() for key, value in model.state_dict().items()}


def cpu(**options: Any) -> TrainingConfig:
    return TrainingConfig(**({"device": "cpu", "precision": "fp32"} | options))
