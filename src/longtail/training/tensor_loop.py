"""Training on tensors in memory: a page of plain code, without files, processes or configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from longtail.counts import ClassCounts
from longtail.data.loading.loaders import split_rows
from longtail.data.samplers import build_sampler
from longtail.data.transforms.mixing import mixup
from longtail.device import can_fuse, step_seed
from longtail.errors import LongtailError
from longtail.losses.base import LongTailLoss
from longtail.training.engine import normalizable

Transform: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class TensorStage:
    """How one stage trains; the learning rate falls to zero along a cosine.

    Attributes:
        epochs: Passes over the rows, at least 1.
        batch_size: Rows per step.
        lr: Learning rate of AdamW at the start.
        weight_decay: Decoupled decay.
        sampler: ``shuffle`` or a re-balancing strategy.
        mixup: Alpha of mixup; 0 mixes nothing.
        seed: Seed of order, augmentation and mixing.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    sampler: str = "shuffle"
    mixup: float = 0.0
    seed: int = 0


def train_on_tensors(
    model: nn.Module,
    loss: LongTailLoss,
    inputs: Tensor,
    labels: Tensor,
    counts: ClassCounts,
    stage: TensorStage,
    transform: Transform | None = None,
) -> None:
    """Train a network on rows that are held in memory, in place.

    The loss's noise comes from torch's global generator, which is the caller's to seed.

    Args:
        model: Called as ``model(inputs, return_features=True)``, gives logits and features; on the training device.
        loss: On the same device; its progress is driven from 0 to 1.
        inputs: (N, D) features or (N, 3, H, W) images, on any device.
        labels: int64 (N,), on the same device as ``inputs``.
        counts: Rows per class.
        stage: How to train.
        transform: What is done to a batch of inputs on the training device before the network sees it.

    Raises:
        LongtailError: The loss is no longer a finite number, or a single image cannot be normalized.

    Example:
        >>> from longtail.losses import CrossEntropyLoss
        >>> from longtail.models import LinearHead, LongTailModel
        >>> rows, labels = torch.tensor([[-1.0], [-2.0], [1.5]]), torch.tensor([0, 0, 1])
        >>> model = LongTailModel(nn.Identity(), LinearHead(1, 2), name="", head_name="linear", num_classes=2)
        >>> stage = TensorStage(epochs=50, batch_size=3, lr=0.1, weight_decay=0.0)
        >>> train_on_tensors(model, CrossEntropyLoss([2, 1]), rows, labels, ClassCounts([2, 1]), stage)
        >>> model(rows).argmax(dim=1).tolist()
        [0, 0, 1]
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = trainable[0].device
    optimizer = torch.optim.AdamW(trainable, lr=stage.lr, weight_decay=stage.weight_decay, fused=can_fuse(trainable))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, stage.epochs)
    sampler = build_sampler(stage.sampler, labels.cpu(), counts, seed=stage.seed)
    model.train()
    for epoch in range(stage.epochs):
        sampler.set_epoch(epoch)
        sampler.progress = epoch / stage.epochs
        batches = split_rows(sampler.indices().to(inputs.device), stage.batch_size)
        for step, rows in enumerate(batches):
            loss.progress = (epoch + step / len(batches)) / stage.epochs
            draws = torch.Generator().manual_seed(step_seed(stage.seed, epoch, step))
            batch, target = inputs[rows].to(device), labels[rows].to(device)
            batch = batch if transform is None else transform(batch, draws)
            if stage.mixup:
                batch, target = mixup(batch, target, counts.num_classes, stage.mixup, draws)
            with normalizable(batch):
                logits, features = model(batch, return_features=True)
            value = loss(logits, target, features if loss.needs_features else None)
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
        falling.step()
        if not torch.isfinite(value):
            raise LongtailError(f"the loss is not a number in epoch {epoch + 1}: take a lower lr than {stage.lr:g}.")
    loss.progress = 1.0
