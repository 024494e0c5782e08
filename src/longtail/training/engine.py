"""The hot loop: one pass over the training images, on whatever device, precision and number of processes there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor, nn

from longtail.config.schema import TrainingConfig
from longtail.device import _on_cpu, fast_precision
from longtail.errors import LongtailError
from longtail.training.meter import Meter


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


def is_main_process() -> bool:
    """Whether this process speaks to the user, also before or after an engine lives."""
    return bool(PartialState().is_main_process)


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
