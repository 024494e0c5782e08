"""The hot loop: one pass over the training images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from longtail.data.loading.loaders import Batch, Loader, count_batches, split_rows
from longtail.data.samplers import EpochSampler
from longtail.data.transforms.augmentation import Augment
from longtail.device import step_seed
from longtail.errors import LongtailError
from longtail.losses.base import LongTailLoss
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine, normalizable
from longtail.training.gradient_recorder import Recorder
from longtail.training.meter import CHECK_STEPS, Meter

Mixer = Callable[[Batch, Batch | None, torch.Generator], tuple[Tensor, Tensor]]


@dataclass
class Pass:
    """What one stage trains: everything the loop needs, and nothing about configuration or files.

    Attributes:
        engine: Device, precision, processes.
        model: The network as the user knows it.
        wrapped: The same network as ``accelerate`` prepared it (autocast, DDP).
        loss: The loss, on the device.
        criterion: The same loss as it is called: compiled where the run asks for it.
        optimizer: The optimiser over the trainable parameters, as it is stepped.
        loader: Batches of uint8 images.
        transform: Augmentation and normalisation.
        mixer: Mixing of a batch of normalised images, or None.
        pasted: Draws the second batch of a mixer that needs one (CMO), or None.
        batch_size: Images per step over all processes.
        epochs: Epochs of the stage.
        seed: Seed words of the stage, for example ``(seed, stage)``.
        after_step: Called after each optimiser step (weight averaging).
        recorder: Looks at the gradient on the logits, or None.
    """

    engine: Engine
    model: LongTailModel
    wrapped: nn.Module
    loss: LongTailLoss
    criterion: nn.Module
    optimizer: Any
    loader: Loader
    transform: Augment
    mixer: Mixer | None
    pasted: EpochSampler | None
    batch_size: int
    epochs: int
    seed: tuple[int, ...]
    after_step: Callable[[], None] = lambda: None
    recorder: Recorder | None = None


def train_epoch(
    work: Pass,
    rows: Tensor,
    epoch: int,
    first_step: int,
    meter: Meter,
    on_step: Callable[[int], object] = lambda done: done,
) -> None:
    """Train on this process's ``rows`` of one epoch.

    All randomness of a step follows from the seed, the epoch and the step, so that a run that continues in the middle
    of an epoch makes the same steps as one that was never stopped.

    Args:
        work: The stage.
        rows: int64, rows of the training split still to come in this epoch.
        epoch: Epoch index from 0.
        first_step: Step of the epoch that the first batch of ``rows`` is.
        meter: Running sums, updated in place.
        on_step: Called after each step with the number of finished steps.
    """
    engine, config = work.engine, work.engine.config
    local = engine.local_batch_size(work.batch_size)
    steps = first_step + count_batches(len(rows), local)
    trainable = [p for p in work.model.parameters() if p.requires_grad]
    work.wrapped.train()
    others = _second_batches(work, epoch, first_step * local, local)
    for step, batch in enumerate(work.loader.batches(rows, local), start=first_step):
        work.loss.progress = min((epoch + step / steps) / work.epochs, 1.0)
        seed = step_seed(*work.seed, epoch, step)
        shared = torch.Generator().manual_seed(seed)
        engine.seed(seed ^ (engine.rank + 1))  # noise: another stream than the shared one, and than other processes'
        images, target = _inputs(work, batch, next(others), shared)
        loss, correct = _forward_backward(work, images, target)
        if config.clip_norm is not None:
            engine.accelerator.clip_grad_norm_(trainable, config.clip_norm)
        work.optimizer.step()
        work.optimizer.zero_grad()
        work.after_step()
        meter.add(loss, correct, len(images), step)
        if (step + 1) % CHECK_STEPS == 0:
            meter.look()
        # Processes can only stop together, at the end of the epoch; one alone stops as soon as it sees.
        if step + 1 == steps or (engine.world_size == 1 and meter.looks_bad):
            stop_on_nan(work, meter, epoch)
        on_step(step + 1)


def warm_up(work: Pass, rows: Tensor) -> None:
    """Let torch.compile see every batch size of an epoch before anything is timed; nothing of it is kept.

    Args:
        work: The stage.
        rows: int64, rows of this process in any epoch.
    """
    work.wrapped.train()
    buffers = [(buffer, buffer.clone()) for buffer in work.model.buffers()]  # batch-norm statistics
    parts = split_rows(rows, work.engine.local_batch_size(work.batch_size))
    sizes = list({len(part): part for part in parts}.values())
    rounds = 1 if work.engine.config.compile_mode == "default" else 3  # CUDA graphs: compile, warm up, record
    for part in sizes * rounds:
        batch = next(iter(work.loader.batches(part, len(part))))
        other = None if work.pasted is None else batch
        _forward_backward(work, *_inputs(work, batch, other, torch.Generator().manual_seed(0)))
        work.optimizer.zero_grad()
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def _inputs(work: Pass, batch: Batch, other: Batch | None, shared: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augment and mix a batch; return what the network takes, in the layout of the run, and the targets."""
    batch = _augmented(work, batch, shared)
    images, target = batch.images, batch.labels
    if work.mixer is not None:
        images, target = work.mixer(batch, None if other is None else _augmented(work, other, shared), shared)
    return work.engine.laid_out(images), target


def _augmented(work: Pass, batch: Batch, shared: torch.Generator) -> Batch:
    engine = work.engine
    images = work.transform.augment(batch.images, shared, rank=engine.rank, world_size=engine.world_size)
    return batch._replace(images=images)


def _second_batches(work: Pass, epoch: int, first_row: int, local: int) -> Iterator[Batch | None]:
    """The batches that a mixer pastes from, in step with the first ones; endless Nones where it needs none."""
    if work.pasted is None:
        return repeat(None)
    work.pasted.set_epoch(epoch)
    return iter(work.loader.batches(work.pasted.indices()[first_row:], local))


def _forward_backward(work: Pass, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient of one batch, in parts where asked; return its mean loss and its right answers."""
    # Parts of nearly equal size, of two images at least: batch normalisation cannot normalise one.
    parts = max(1, min(work.engine.config.accumulation, len(images) // 2))
    if parts == 1:
        return _one_part(work, images, target, 1.0)
    losses, corrects = [], []
    chunks = list(zip(images.tensor_split(parts), target.tensor_split(parts), strict=True))
    for index, (part, labels) in enumerate(chunks):
        share = len(part) / len(images)
        if index + 1 < len(chunks):
            with work.engine.accelerator.no_sync(work.wrapped):
                loss, correct = _one_part(work, part, labels, share)
        else:
            loss, correct = _one_part(work, part, labels, share)
        losses.append(loss)
        corrects.append(correct)
    return torch.stack(losses).sum(), torch.stack(corrects).sum()


def _one_part(work: Pass, images: Tensor, target: Tensor, share: float) -> tuple[Tensor, Tensor]:
    with normalizable(images):
        logits, features = work.wrapped(images, return_features=True)
    if work.recorder is not None:
        work.recorder.watch(logits, target, share)
    # The product is a tensor of its own also where share is 1: that of a replayed CUDA graph changes at the next step.
    loss = work.criterion(logits, target, features if work.loss.needs_features else None) * share
    work.engine.accelerator.backward(loss)
    return loss.detach(), _right_answers(logits.detach(), target)


def _right_answers(logits: Tensor, target: Tensor) -> Tensor:
    """Number of right answers; with probability targets, the probability mass on the answers given."""
    answer = logits.argmax(dim=1)
    if target.ndim == 1:
        return (answer == target).sum()
    return target.gather(1, answer[:, None]).sum()


def stop_on_nan(work: Pass, meter: Meter, epoch: int) -> None:
    """Raise LongtailError if any loss of this epoch was not a finite number. Waits for the device."""
    bad = work.engine.sum(meter.sums)[3].item() > 0
    if not bad:
        return
    lr = work.optimizer.param_groups[0]["lr"]
    where = meter.bad_step if meter.bad_step is not None else "unknown (on another process)"
    training = work.engine.config
    remedies = [f"a lower --stage{work.seed[1]}.optimizer.lr"]
    remedies += ["--training.clip_norm 1"] if training.clip_norm is None else []
    remedies += ["--training.precision fp32"] if training.precision != "fp32" else []
    raise LongtailError(
        f"the loss is not a number at epoch {epoch + 1}, step {where}, learning rate {lr:g}; the last good checkpoint "
        f"is kept: train with {' or '.join(remedies)}."
    )
