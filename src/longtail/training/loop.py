"""The training loop: an epoch of a stage, step by step, and its callbacks; runs, the estimator and the toy use it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from longtail.config.stage import size_of_epoch
from longtail.data.loading.loaders import count_batches, split_rows
from longtail.data.samplers import EpochSampler
from longtail.data.transforms.augmentation import scaled
from longtail.device import float64_device, step_seed
from longtail.errors import LongtailError
from longtail.losses.base import LongTailLoss
from longtail.models.model import LongTailModel
from longtail.training.engine import LocalEngine, normalizable
from longtail.training.forward_pass import Inputs, LabeledRows

Labeled = tuple[Tensor, Tensor]
"""Inputs of the network, (N, ...), and targets: class indices (N,) or probabilities (N, C)."""
Mixer = Callable[[Labeled, Labeled | None, torch.Generator], Labeled]

CHECK_STEPS = 50  # how often the host looks at the running sums

State = Literal["not begun", "in a stage", "between stages", "trained", "evaluated"]
"""Where training stands: a stage includes the end of its last epoch, before its results are measured."""


@dataclass(frozen=True)
class Progress:
    """The position of training.

    Attributes:
        stage: Number of the stage under way; between stages the following one, and 1 more than the last one after it.
        epoch: Finished epochs of that stage.
        step: Finished steps of its next epoch.
        state: The same in words.

    Example:
        >>> Progress(1, epoch=4, step=20).describe(epochs=200)
        'at stage 1, epoch 5, step 20'
    """

    stage: int
    epoch: int = 0
    step: int = 0
    state: State = "in a stage"

    def describe(self, epochs: int) -> str:
        """Say where a run continues, given the number of epochs of its stage."""
        if self.state in ("trained", "evaluated"):
            return "after the last stage: the files of the result are still to be written"
        if self.state == "in a stage" and self.epoch == epochs:
            return f"at the end of stage {self.stage}"
        return f"at stage {self.stage}, epoch {self.epoch + 1}, step {self.step}"


class Meter:
    """Running sums of an epoch, kept on the device if it has float64, so that no step waits for the host.

    They are the loss, right answers, images, and the first step whose loss was not a finite number.

    Args:
        device: Device of the sums.
        asynchronous: The device computes while the host continues: sums are sent off at one look and read at a later
            one.
        sums: Those of earlier steps of the epoch, as :attr:`sums`.
    """

    def __init__(self, device: torch.device, *, asynchronous: bool = False, sums: Tensor | None = None) -> None:
        self._asynchronous = asynchronous
        # Loss, correct, images, 1 + first bad step.
        self._sums = torch.zeros(4, dtype=torch.float64, device=float64_device(device))
        if sums is not None:
            self._sums += sums.to(self._sums)
        self._steps: list[tuple[Tensor, Tensor, int, int]] = []  # not added yet: one operation for many steps
        self._copy: Tensor | None = None  # on its way to the host
        self._arrived: torch.cuda.Event | None = None
        self._seen = [0.0] * 4

    def add(self, loss: Tensor, correct: Tensor, count: int, step: int) -> None:
        """Add one step; nothing here waits for the device."""
        self._steps.append((loss, correct, count, step))
        if len(self._steps) == CHECK_STEPS:
            self._add_up()

    @property
    def sums(self) -> Tensor:
        """float64 (4,): loss times images, right answers, images, and 1 + the first step without a finite loss."""
        if self._steps:
            self._add_up()
        return self._sums

    def _add_up(self) -> None:
        losses, corrects, counts, steps = zip(*self._steps, strict=True)
        self._steps.clear()
        loss, correct = (torch.stack(values).to(self._sums.device).double() for values in (losses, corrects))
        numbers = torch.tensor([counts, steps], dtype=torch.float64, pin_memory=self._asynchronous)
        count, step = numbers.to(loss, non_blocking=True)
        bad = ~loss.isfinite()
        first = torch.where(bad, step + 1, torch.inf).min()
        self._sums[3] = torch.where(bad.any() & (self._sums[3] == 0), first, self._sums[3])
        self._sums[:3] += torch.stack([(loss * count).sum(), correct.sum(), count.sum()])

    def look(self) -> None:
        """Bring the sums to the host without waiting: asynchronously, those that were sent off at the look before."""
        if not self._asynchronous:
            self._seen = self.sums.tolist()
            return
        if self._copy is not None and self._arrived is not None and self._arrived.query():  # type: ignore[no-untyped-call]
            self._seen = self._copy.tolist()
            self._copy = None
        if self._copy is None:
            self._copy = torch.empty(4, dtype=torch.float64, pin_memory=True).copy_(self.sums, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    @property
    def mean_loss(self) -> float | None:
        """Mean loss on this process as of the last look; None if nothing has been seen yet."""
        loss, _, images, _ = self._seen
        return loss / images if images else None

    @property
    def has_nan(self) -> bool:
        """Whether a loss was not a finite number, as of the last look."""
        return self._seen[3] > 0


class Callback:
    """A hook into the training loop. Each method does nothing here: override those that you need.

    Several callbacks are called in their order. One that raises ends the training.
    """

    def on_stage_begin(self, stage: StageRun) -> None:
        """Before the first step of a stage in this process, with all that it trains in place."""

    def on_step_begin(self, stage: StageRun, progress: Progress) -> None:
        """Before a step, once the loss knows how far training is; ``progress`` counts the steps before."""

    def on_logits(self, logits: Tensor, target: Tensor, share: float) -> None:
        """Before the loss of a batch or, where gradients are accumulated, of the given share of it.

        Args:
            logits: Shape (N, C), with their graph.
            target: Class indices (N,), or probabilities (N, C).
            share: Share of the batch, in (0, 1]: the factor of the loss.
        """

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """After the step of the optimizer; ``progress`` counts it."""

    def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
        """After an epoch, before its checkpoint.

        Args:
            stage: The stage.
            row: The line of ``history.csv``, with the validation figures where they were due.
        """

    def on_run_end(self, metrics: dict[str, Any]) -> None:
        """Once a run is trained and evaluated, with the values of ``metrics.json``, before that is written."""


class MovingAverage(Callback):
    """An exponential moving average of a network's weights.

    Args:
        model: The network that is trained.
        decay: Weight of the average at each step, in (0, 1), once it has risen to that.

    Attributes:
        network: The network with the averaged weights.
        updates: Number of updates in this stage.
    """

    def __init__(self, model: LongTailModel, decay: float) -> None:
        from longtail.device import prepare_torchvision

        prepare_torchvision()
        from timm.utils.model_ema import ModelEmaV3

        self.model = model
        # The decay rises from 0: else a short run would average in the weights that it began with.
        self.timm = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.network = cast("LongTailModel", self.timm.module)
        self.updates = 0

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Take in the weights after a step."""
        del stage, progress
        self.updates += 1
        self.timm.update(self.model, step=self.updates)


@dataclass
class StageRun:
    """One stage of training: everything the loop needs, and nothing about configuration or files.

    Attributes:
        engine: Device, precision, processes.
        model: The network as the user knows it.
        network: The same network as it is called in each step: wrapped by ``accelerate`` (autocast, DDP), compiled.
        loss: The loss, on the device.
        criterion: The same loss as it is called: compiled where the run asks for it.
        optimizer: The optimizer over the trainable parameters, as it is stepped.
        inputs: Images or features of the training split.
        sampler: The order of the rows.
        batch_size: Rows per step over all processes.
        epochs: Epochs of the stage.
        learning_rate: From the epochs before a step, the share of the one under way included, to its learning rate.
        seed: Seed words of the stage, for example ``(seed, stage)``.
        index: Number of the stage.
        mixer: Mixing of a batch of network inputs, or None.
        mixing_until: Share of the epochs in which it mixes.
        image_sizes: Sides in pixels of the images, each for an equal part of the epochs; as they come when empty.
        pasted: Draws the second batch of a mixer that needs one (CMO), or None.
        callbacks: Hooks into the loop, called in their order.
        remedy: Advice for a loss that is no longer a number, the end of a sentence.
        meter: Running sums of the current epoch.
        paused: Seconds of the current epoch that are no part of its training, such as those of checkpoints.
    """

    engine: LocalEngine
    model: nn.Module
    network: nn.Module
    loss: LongTailLoss
    criterion: nn.Module
    optimizer: Any
    inputs: Inputs[Any]
    sampler: EpochSampler
    batch_size: int
    epochs: int
    learning_rate: Callable[[float], float]
    seed: tuple[int, ...]
    index: int = 1
    mixer: Mixer | None = None
    mixing_until: float = 1.0
    image_sizes: Sequence[int] = ()
    pasted: EpochSampler | None = None
    callbacks: Sequence[Callback] = ()
    remedy: str = "train with a lower learning rate"
    meter: Meter = field(init=False)
    paused: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return count_batches(len(self.sampler), self.engine.local_batch_size(self.batch_size))

    def image_size(self, epoch: int) -> int | None:
        """Return the side in pixels that images are scaled to in an epoch, from 0, or None."""
        return size_of_epoch(self.image_sizes, epoch, self.epochs)

    def steps_left(self, progress: Progress) -> float:
        """Return the steps after a position in this stage, in steps of images as large as they are there."""
        sizes = [self.image_size(epoch) or 1 for epoch in range(progress.epoch, self.epochs)]
        return self.steps * sum(size**2 for size in sizes) / sizes[0] ** 2 - progress.step

    def mixes(self, epoch: int) -> bool:
        """Whether images are mixed in an epoch, from 0."""
        return epoch < round(self.mixing_until * self.epochs)


def train_epoch(stage: StageRun, epoch: int, first_step: int = 0, sums: Tensor | None = None) -> dict[str, Any]:
    """Train one epoch of a stage, or the rest of it.

    All randomness of a step follows from the seed, the epoch and the step, so that a run that continues in the middle
    of an epoch makes the same steps as one that was never stopped.

    Args:
        stage: The stage.
        epoch: Epoch from 0.
        first_step: Step of the epoch to begin with, from 0.
        sums: :attr:`Meter.sums` of the steps before that one, of all processes together.

    Returns:
        The line of ``history.csv``, without validation figures.

    Raises:
        LongtailError: The loss is no longer a finite number, or a single image cannot be normalized.
    """
    engine, loss, optimizer = stage.engine, stage.loss, stage.optimizer
    local = engine.local_batch_size(stage.batch_size)
    learning_rate = stage.learning_rate(epoch)
    stage.sampler.set_epoch(epoch)
    stage.sampler.progress = epoch / stage.epochs
    meter = stage.meter = Meter(engine.device, asynchronous=engine.asynchronous, sums=sums if engine.is_main else None)
    stage.paused, begun = 0.0, time.perf_counter()
    rows = stage.sampler.indices()[first_step * local :]
    steps = first_step + count_batches(len(rows), local)
    others: Any = itertools.repeat(None)
    if stage.pasted is not None and stage.mixes(epoch):  # in step with the first batches
        stage.pasted.set_epoch(epoch)
        others = iter(stage.inputs.batches(stage.pasted.indices()[first_step * local :], local))
    trainable = [parameter for parameter in stage.model.parameters() if parameter.requires_grad]
    stage.network.train()
    for step, batch in enumerate(stage.inputs.batches(rows, local), start=first_step):
        done = epoch + step / steps
        loss.progress, learning_rate = min(done / stage.epochs, 1.0), stage.learning_rate(done)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        for callback in stage.callbacks:
            callback.on_step_begin(stage, Progress(stage.index, epoch, step))
        seed = step_seed(*stage.seed, epoch, step)
        shared = torch.Generator().manual_seed(seed)
        engine.seed(seed ^ engine.noise_stream)  # another one than the shared one
        images, target = network_inputs(stage, epoch, batch, next(others), shared)
        value, correct = forward_backward(stage, images, target)
        if engine.config.clip_norm is not None:
            engine.clip_gradients(trainable, engine.config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        meter.add(value, correct, len(images), step)
        if (step + 1) % CHECK_STEPS == 0:
            meter.look()
        # Processes can only stop together, at the end of the epoch; one alone stops as soon as it sees.
        if step + 1 == steps or (engine.world_size == 1 and meter.has_nan):
            stop_on_nan(stage, epoch)
        for callback in stage.callbacks:
            callback.on_step_end(stage, Progress(stage.index, epoch, step + 1))
    seconds = time.perf_counter() - begun - stage.paused
    summed_loss, correct_images, images_seen, _ = engine.sum(meter.sums).tolist()
    waited = engine.sum(torch.tensor(stage.inputs.waited, device=engine.device)).item() / engine.world_size
    return {
        "stage": stage.index,
        "epoch": epoch + 1,
        "progress": round((epoch + 1) / stage.epochs, 6),
        "learning_rate": learning_rate,
        "train_loss": summed_loss / images_seen,
        "train_accuracy": correct_images / images_seen,
        "seconds": round(seconds, 3),
        "images_per_second": round(len(rows) * engine.world_size / seconds, 1),
        "waiting_share": round(min(waited / seconds, 1.0), 4),
    }


def network_inputs(
    stage: StageRun, epoch: int, batch: LabeledRows, other: LabeledRows | None, shared: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment, scale and mix a batch; return what the network takes, in the layout of the run, and the targets.

    Args:
        stage: The stage.
        epoch: Epoch from 0.
        batch: The images.
        other: Those that are pasted into them, if any are.
        shared: Generator in the same state on every process.
    """
    engine, side = stage.engine, stage.image_size(epoch)

    def augmented(part: LabeledRows) -> Labeled:
        inputs = stage.inputs.augment(part, shared, rank=engine.rank, world_size=engine.world_size)
        return (inputs if side is None else scaled(inputs, side)), part.labels

    images, target = augmented(batch)
    if stage.mixer is None or not stage.mixes(epoch):
        return engine.to_memory_format(images), target
    if other is not None:  # row by row, so that each process mixes its own
        images, target = stage.mixer((images, target), augmented(other), shared)
    else:
        whole = engine.whole(images), engine.whole(target)
        images, target = map(engine.own, stage.mixer(whole, None, shared))
    return engine.to_memory_format(images), target


def forward_backward(stage: StageRun, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient of one batch, in parts where asked; return its mean loss and its right answers."""
    # Parts of nearly equal size, of two images at least: batch normalization cannot normalize one.
    count = max(1, min(stage.engine.config.accumulation, len(images) // 2))
    parts = list(zip(images.tensor_split(count), target.tensor_split(count), strict=True))
    losses, corrects = [], []
    for number, (inputs, labels) in enumerate(parts if count > 1 else [(images, target)], start=1):
        share = len(inputs) / len(images)
        with nullcontext() if number == count else stage.engine.no_sync(stage.network):
            with normalizable(inputs):
                logits, features = stage.network(inputs, return_features=True)
            for callback in stage.callbacks:
                callback.on_logits(logits, labels, share)
            # The product is a tensor of its own also where share is 1: that of a replayed CUDA graph changes at the
            # next step.
            loss = stage.criterion(logits, labels, features if stage.loss.needs_features else None) * share
            if stage.engine.is_exact:
                loss = loss * stage.engine.weight_of(stage.loss.mean_divisor(labels))
            stage.engine.backward(loss)
        losses.append(loss.detach())
        # Right answers; with probability targets, the probability mass on the answers given.
        answer = logits.detach().argmax(dim=1)
        hits = answer == labels if labels.ndim == 1 else labels.gather(1, answer[:, None])
        corrects.append(hits.sum())
    if count == 1:
        return losses[0], corrects[0]
    return torch.stack(losses).sum(), torch.stack(corrects).sum()


def stop_on_nan(stage: StageRun, epoch: int) -> None:
    """Raise LongtailError if any loss of this epoch was not a finite number. Waits for the device."""
    if stage.engine.sum(stage.meter.sums)[3].item() == 0:
        return
    first = int(stage.meter.sums[3].item())
    step = first - 1 if first else "unknown (on another process)"
    raise LongtailError(
        f"the loss is not a number at epoch {epoch + 1}, step {step}, learning rate "
        f"{stage.optimizer.param_groups[0]['lr']:g}; {stage.remedy}."
    )


def warm_up(stage: StageRun) -> None:
    """Let torch.compile see every shape of a batch of the stage before anything is timed; nothing of it is kept."""
    stage.network.train()
    buffers = [(buffer, buffer.clone()) for buffer in stage.model.buffers()]  # batch-norm statistics
    positions = stage.sampler.tensors()
    parts = split_rows(stage.sampler.indices(), stage.engine.local_batch_size(stage.batch_size))
    sizes = list({len(part): part for part in parts}.values())
    rounds = 1 if stage.engine.config.compile_mode == "default" else 3  # CUDA graphs: compile, warm up, record
    epochs = {(stage.image_size(epoch), stage.mixes(epoch)): epoch for epoch in range(stage.epochs)}.values()
    for part, epoch in itertools.product(sizes * rounds, epochs):
        batch = next(iter(stage.inputs.batches(part, len(part))))
        other = None if stage.pasted is None else batch
        forward_backward(stage, *network_inputs(stage, epoch, batch, other, torch.Generator().manual_seed(0)))
        stage.optimizer.zero_grad()
    stage.sampler.load_tensors(positions)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
