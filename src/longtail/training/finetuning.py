"""Fine-tuning within a time: the rate of training steps on this machine, and the stage that fits."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812

from longtail.config.schema import ModelConfig
from longtail.config.stage import AUTO_LOSS, AUTO_SAMPLER, FINETUNING, StageConfig
from longtail.device import seeded
from longtail.models.depthwise import with_fast_depthwise
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine
from longtail.training.optimizers import make_optimizer
from longtail.training.stages import set_trainable

MOST_FINETUNING: Final = 30
"""Epochs of fine-tuning, at most: more of them learn few images by heart."""
SHORTEST_EPOCH: Final = 0.001
TRIAL_SHARE: Final = 1 / 3
"""Part of the time for fine-tuning that its trial takes."""
WORTHWHILE_EPOCHS: Final = 2.0
"""Epochs after the trial for which time is kept."""


def finetune_stage(
    stage: StageConfig, images: int, seconds: float, images_per_second: float, start: StageConfig = FINETUNING
) -> StageConfig:
    """Return the stage that trains all of a network for a given time, after a classifier on its stored features.

    It draws as the stage of the classifier does, with its loss, unless ``start`` names others. The schedule falls to
    zero with the last step. Epochs are whole and at least one; where they would not fill the time, each takes a share
    of the images.

    Args:
        stage: The stage that trained the classifier.
        images: Training images.
        seconds: For its steps, without evaluation.
        images_per_second: Rate of the steps, see :func:`measure_training_rate`.
        start: Everything but its length.

    Example:
        >>> classifier = StageConfig(epochs=20, train="classifier", cached_views=1)
        >>> stage = finetune_stage(classifier, images=10_000, seconds=300.0, images_per_second=60.0)
        >>> stage.train, stage.epochs, stage.epoch_share
        ('all', 2, 0.9)
        >>> finetune_stage(classifier, images=24_000, seconds=120.0, images_per_second=60.0).epoch_share
        0.3
    """
    epochs = min(seconds * images_per_second / images, MOST_FINETUNING)
    loss = stage.loss if start.loss.name == AUTO_LOSS else start.loss
    sampler = stage.sampler if start.sampler == AUTO_SAMPLER else start.sampler
    return with_length(replace(start, sampler=sampler, loss=loss), epochs)


def with_length(stage: StageConfig, epochs: float) -> StageConfig:
    """Return a stage with a number of passes over the images, in whole epochs of a share of them each.

    Example:
        >>> stage = with_length(StageConfig(), 1.8)
        >>> stage.epochs, stage.epoch_share
        (2, 0.9)
    """
    wanted = max(epochs, SHORTEST_EPOCH)
    whole = math.ceil(wanted)
    return replace(stage, epochs=whole, epoch_share=math.floor(wanted / whole * 1000) / 1000)


def measure_training_rate(
    model: LongTailModel,
    size: int,
    batch: int,
    engine: Engine,
    *,
    seconds: float = 3.0,
    stage: StageConfig = FINETUNING,
) -> float:
    """Measure how many images a second training steps of all of a network take, on a copy of it.

    Args:
        model: The network, on its device and in its memory layout.
        size: Side of the images in pixels.
        batch: Images per step.
        engine: Precision of the training.
        seconds: For the measurement; one step before it and one in it are made in any case.
        stage: What is trained, and the optimizer.

    Example:
        >>> from longtail.config.schema import TrainingConfig
        >>> from longtail.models import build_model
        >>> engine = Engine(TrainingConfig(device="cpu"))
        >>> measure_training_rate(build_model("plain-cnn", 3), 16, 4, engine, seconds=0.0) > 0
        True
    """
    device = next(model.parameters()).device
    steps: list[float] = []
    with seeded(device, 0):
        network = copy.deepcopy(model)
        set_trainable(network, replace(stage, train="all"), ModelConfig())
        if device.type == "cpu":
            with_fast_depthwise(network)
        optimizer = make_optimizer(replace(stage.optimizer, layer_decay=None), network)
        # As the layout of the weights, which images take over from them.
        images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=_layout(network))
        labels = torch.arange(batch, device=device) % model.num_classes
        network.train()
        while len(steps) < 2 or sum(steps[1:]) < seconds:
            begun = time.perf_counter()
            with engine.accelerator.autocast():  # anew in each step, as it keeps the weights that it has cast
                logits = network(images)
            torch.autograd.backward(F.cross_entropy(logits.float(), labels))
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            steps.append(time.perf_counter() - begun)
    return batch * (len(steps) - 1) / sum(steps[1:])


def _layout(network: LongTailModel) -> torch.memory_format:
    weights = (weight for weight in network.parameters() if weight.ndim == 4 and min(weight.shape[1:3]) > 1)
    is_last = any(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    return torch.channels_last if is_last else torch.contiguous_format
