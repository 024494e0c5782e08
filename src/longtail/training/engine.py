"""The hot loop: one pass over the training images, on whatever device, precision and number of processes there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor, nn

from longtail.data.augmentation import Augment
from longtail.data.loaders import Batch, Loader, count_batches, split_rows
from longtail.data.samplers import EpochSampler
from longtail.errors import LongtailError
from longtail.losses.base import LongTailLoss
from longtail.models.model import LongTailModel
from longtail.training.config import TrainingConfig
from longtail.training.dynamics import Recorder
from longtail.training.meter import CHECK_STEPS, Meter

Mixer = Callable[[Batch, Batch | None, torch.Generator], tuple[Tensor, Tensor]]


class Engine:
    """Device, precision and processes, through ``accelerate``: the only place that knows them.

    Args:
        config: Precision, layout, clipping and accumulation.

    Example:
        >>> engine = Engine(TrainingConfig(device="cpu"))
        >>> engine.device.type, engine.world_size, engine.is_main
        ('cpu', 1, True)
    """

    def __init__(self, config: TrainingConfig) -> None:
        # accelerate keeps the precision of the first Accelerator of a process; each run here may choose its own.
        AcceleratorState._reset_state(reset_partial_state=False)
        # accelerate joins several processes on CPUs only where it is told that CPUs are meant.
        precision = fast_precision(config.device) if config.precision == "auto" else config.precision
        config = replace(config, precision=precision)
        self.accelerator = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision, cpu=_on_cpu(config.device)
        )
        # Batches keep their size, so the fastest convolution is worth looking for.
        torch.backends.cudnn.benchmark = True
        self.config = config

    @property
    def device(self) -> torch.device:
        """The training device of this process."""
        return torch.device(self.accelerator.device)

    @property
    def rank(self) -> int:
        """Index of this process."""
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return bool(self.accelerator.is_main_process)

    @property
    def loss_scaling(self) -> dict[str, Any]:
        """The state of fp16 loss scaling as plain values; empty in other precisions."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    @loss_scaling.setter
    def loss_scaling(self, values: Mapping[str, Any]) -> None:
        if self.accelerator.scaler is not None and values:
            self.accelerator.scaler.load_state_dict(dict(values))

    def new_meter(self) -> Meter:
        """Running sums on this device; a GPU sends them to the host while it computes."""
        return Meter(self.device, asynchronous=self.device.type == "cuda")

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return values if self.world_size == 1 else torch.as_tensor(self.accelerator.reduce(values, reduction="sum"))

    def interleave(self, own: Tensor) -> Tensor:
        """Put together rows that process r of R has every R-th of, beginning with the r-th; all have equally many."""
        if self.world_size == 1:
            return own
        gathered = torch.as_tensor(self.accelerator.gather(own))
        return gathered.view(self.world_size, *own.shape).transpose(0, 1).reshape(-1, *own.shape[1:])

    def gather_words(self, own: Mapping[str, str]) -> list[Mapping[str, str]]:
        """Return the strings of every process, by rank."""
        tables: list[Mapping[str, str]] = gather_object([dict(own)]) if self.world_size > 1 else [own]
        return tables

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers (batch-norm statistics), which are those that are saved."""
        if self.world_size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def local_batch_size(self, batch_size: int) -> int:
        """This process's share of a global batch.

        Raises:
            LongtailError: The batch size is not a multiple of the number of processes.
        """
        if batch_size < 1 or batch_size % self.world_size:
            raise LongtailError(
                f"batch_size {batch_size} must be a positive multiple of the {self.world_size} processes; change it "
                "or start another number of processes."
            )
        return batch_size // self.world_size

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap a network (autocast, DDP, torch.compile) and its optimizer for training; the network is not changed."""
        wrapped, prepared = self.accelerator.prepare(_Shell(model), optimizer)
        # accelerate's optimiser looks for installed packages at every step, a quarter of a millisecond. Only float16
        # needs it, to skip the steps whose scaled gradient overflows.
        stepping = prepared if self.config.precision == "fp16" else optimizer
        # Compiled last: accelerate puts autocast into the network it is given, and takes it off there again.
        return self.compiled(wrapped), stepping

    def seed(self, seed: int) -> None:
        """Seed the generators that noise is drawn from."""
        if self.device.type == "cpu":
            # torch.manual_seed also queues a call for each kind of device, be it there or not.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def compiled(self, module: nn.Module) -> nn.Module:
        """Pass a module through torch.compile where the run asks for it.

        Each batch size gets a graph of its own (an epoch has two: the full batch and the last one), so that nothing is
        compiled again once both have been seen.
        """
        if not self.config.compile:
            return module
        # Noise comes from PyTorch's own generator, as without compiling: the same seed gives the same run.
        options = torch._inductor.list_mode_options(self.config.compile_mode, False) | {"fallback_random": True}
        return cast("nn.Module", torch.compile(module, options=options, dynamic=False))

    def release(self) -> None:
        """Free what was prepared for a stage."""
        self.accelerator.free_memory()

    def laid_out(self, images: Tensor) -> Tensor:
        """Bring images (N, C, H, W) into the memory layout of the run; features (N, D) have only one."""
        if images.ndim != 4:
            return images
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    @contextmanager
    def inference(self, model: nn.Module) -> Iterator[None]:
        """Evaluation mode, no gradients, the precision of the run; the mode before is restored."""
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode(), self.accelerator.autocast():
                yield
        finally:
            model.train(was_training)


class _Shell(nn.Module):
    """A wrapper of the network for accelerate to modify, new for each stage.

    accelerate patches autocast into the ``forward`` of what it prepares, marks it, and skips marked modules the next
    time, even if autocast was removed since: a network trained in two stages would compute in bf16 in the first only.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, *, return_features: bool) -> Any:
        """Call the network."""
        return self.network(inputs, return_features=return_features)


def fast_precision(device: str) -> Literal["fp32", "bf16"]:
    """Return bf16 where the hardware multiplies in it (AVX-512 BF16, AMX, tensor cores), else fp32.

    Args:
        device: Name of the training device, or ``auto``.

    Example:
        >>> fast_precision("cpu") in ("fp32", "bf16")
        True
    """
    if _on_cpu(device):
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        has = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has else "fp32"


def _on_cpu(device: str) -> bool:
    return device == "cpu" or not torch.accelerator.is_available()


def is_accelerator(device: torch.device) -> bool:
    """Whether a device is more than the processor.

    Example:
        >>> is_accelerator(torch.device("cpu"))
        False
    """
    return device.type != "cpu"


def accelerator_name(device: torch.device) -> str:
    """What an accelerator calls itself; empty for a processor.

    Example:
        >>> accelerator_name(torch.device("cpu"))
        ''
    """
    if not is_accelerator(device):
        return ""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def generators_as_before(device: torch.device) -> Iterator[None]:
    """Give torch's own generators, that of the device too, back their states at the end.

    Example:
        >>> before = torch.get_rng_state()
        >>> with generators_as_before(torch.device("cpu")):
        ...     drawn = torch.rand(1)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def can_fuse(parameters: Iterable[Tensor]) -> bool:
    """Whether PyTorch has optimisers of one kernel for parameters where these are.

    Example:
        >>> can_fuse([torch.zeros(1)])
        True
    """
    return all(parameter.device.type in {"cpu", "cuda", "mps", "xpu"} for parameter in parameters)


def is_main_process() -> bool:
    """Whether this process speaks to the user, also before or after an engine lives."""
    return bool(PartialState().is_main_process)


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


def step_seed(*words: int) -> int:
    """Mix seed words into one 63-bit seed; the same words give the same seed on every machine.

    Example:
        >>> step_seed(0, 1, 2) == step_seed(0, 1, 2), step_seed(0, 1, 2) == step_seed(0, 2, 1)
        (True, False)
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


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


@contextmanager
def normalizable(images: Tensor) -> Iterator[None]:
    """Explain the error of batch normalization with a single value per channel, which has no variance.

    Args:
        images: The input of the network in this step, shape (N, 3, H, W).

    Raises:
        LongtailError: A single image with a feature map of 1 x 1 somewhere in the network.

    Example:
        >>> with normalizable(torch.zeros(1, 3, 4, 4)):
        ...     nn.BatchNorm2d(8)(torch.zeros(1, 8, 1, 1))
        Traceback (most recent call last):
        longtail.errors.LongtailError: batch normalization needs more than one value per channel, and ...
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:  # torch.compile raises the second
        if "Expected more than 1 value per channel" not in str(error):
            raise
        shape = " x ".join(map(str, images.shape[2:]))
        raise LongtailError(
            f"batch normalization needs more than one value per channel, and one image of {shape} pixels leaves no "
            "more in this network: set batch_size to 2 or more (for each process), or image_size to a larger one.",
            options={"batch_size": "--stage1.batch_size", "image_size": "--data.image_size"},
        ) from error


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
