"""Device, precision and processes of training: one device as it is, or whatever ``accelerate`` finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor, nn

from longtail.config.build import seconds_of
from longtail.config.schema import TrainingConfig
from longtail.device import compile_mode_options, fast_precision, on_cpu
from longtail.errors import LongtailError
from longtail.training.rendezvous import INIT_METHOD, long_work, store_of_work
from longtail.training.synced_batch_norm import SyncedBatchNorm

Made = TypeVar("Made")

_LOST: Final = re.compile(r"gloo|pair closure|connection (reset|closed)", re.IGNORECASE)
"""Words of gloo's errors about another process, which have no class of their own."""


class LocalEngine:
    """One process on one device in float32, with nothing wrapped: for rows that are held in memory.

    Args:
        device: Device of all computation.
        config: Clipping and accumulation; precision and layout are left as they are.
        rank: Index of this process.
        world_size: Number of processes.

    Attributes:
        device: The training device of this process.
        is_main: Whether this process writes files and speaks to the user.
        asynchronous: Whether the device computes while the host continues, so that reading a number waits for it.

    Example:
        >>> engine = LocalEngine(torch.device("cpu"))
        >>> engine.rank, engine.world_size, engine.is_main, engine.local_batch_size(64)
        (0, 1, True, 64)
    """

    def __init__(
        self, device: torch.device, config: TrainingConfig | None = None, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.device, self.rank, self.world_size = device, rank, world_size
        self.is_main, self.asynchronous = rank == 0, device.type == "cuda"
        self.config = config or TrainingConfig(precision="fp32", channels_last=False)
        self.is_exact = self.config.exact and world_size > 1

    @property
    def noise_stream(self) -> int:
        """Number of the stream that this process draws noise from: its own, or that of one process, drawn by all."""
        return 1 if self.is_exact else self.rank + 1

    def whole(self, rows: Tensor) -> Tensor:
        """Return the rows of the batch of all processes where it counts as one (``training.exact``), else the rows."""
        return self.interleave(rows) if self.is_exact else rows

    def own(self, rows: Tensor) -> Tensor:
        """Return the rows of this process out of :meth:`whole` ones."""
        return rows[self.rank :: self.world_size] if self.is_exact else rows

    def drawn_for_all(self, draw: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Let a draw of noise shaped like a tensor be that of all processes, of which each takes its own rows.

        Example:
            >>> engine = LocalEngine(torch.device("cpu"), TrainingConfig(exact=True), rank=1, world_size=2)
            >>> engine.drawn_for_all(lambda like: torch.arange(len(like)))(torch.zeros(3))
            tensor([1, 3, 5])
        """
        if not self.is_exact:
            return draw
        return lambda like: self.own(draw(like.new_empty(len(like) * self.world_size, *like.shape[1:])))

    def weight_of(self, divisor: Tensor) -> float:
        """Return the factor of a mean by which the mean over processes becomes that of all their labels together.

        Args:
            divisor: What the mean on this process divides by, a scalar.
        """
        if not self.is_exact:
            return 1.0
        total = float(self.sum(divisor))
        return float(divisor) * self.world_size / total if total else 0.0

    def seed(self, seed: int) -> None:
        """Seed the generators that noise is drawn from; here they are the caller's."""

    def to_memory_format(self, images: Tensor) -> Tensor:
        """Bring images (N, C, H, W) into the memory layout of the run; features (N, D) have only one."""
        return images

    def no_sync(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Keep the gradients of a part of a batch on this process."""
        del network
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the parameters."""
        torch.autograd.backward(loss)

    def clip_gradients(self, parameters: Iterable[Tensor], largest_norm: float) -> None:
        """Scale the gradients down to a largest L2 norm of all together."""
        torch.nn.utils.clip_grad_norm_(parameters, largest_norm)

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return values

    def interleave(self, rows: Tensor) -> Tensor:
        """Put together rows that process r of R has every R-th of, beginning with the r-th; all have equally many."""
        return rows

    @contextmanager
    def inference(self, model: nn.Module) -> Iterator[None]:
        """Evaluation mode, no gradients, the precision of the run; the mode before is restored."""
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            model.train(was_training)

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


class Engine(LocalEngine):
    """Device, precision and processes, through ``accelerate``; the loop asks it for what depends on them.

    Args:
        config: Precision, layout, clipping and accumulation.

    Raises:
        LongtailError: The machine cannot compute in the precision asked for.

    Example:
        >>> engine = Engine(TrainingConfig(device="cpu"))
        >>> engine.device.type, engine.world_size, engine.is_main
        ('cpu', 1, True)
    """

    def __init__(self, config: TrainingConfig) -> None:
        # Private: accelerate keeps precision and device of the first Accelerator of a process; each run may choose its
        # own. Of several processes, the device stays with their group, which is formed once.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        precision = fast_precision(config.device) if config.precision == "auto" else config.precision
        mixed = "no" if precision == "fp32" else precision
        self._timeout = timedelta(seconds=seconds_of(config.timeout, "--training.timeout"))
        group = InitProcessGroupKwargs(init_method=INIT_METHOD, timeout=self._timeout)
        try:
            # accelerate joins several processes on CPUs only where it is told that CPUs are meant.
            self.accelerator = Accelerator(mixed_precision=mixed, cpu=on_cpu(config.device), kwargs_handlers=[group])
        except ValueError as error:
            raise LongtailError(f"--training.precision {config.precision} does not work here: {error}") from error
        super().__init__(
            torch.device(self.accelerator.device),
            replace(config, precision=precision),
            rank=int(self.accelerator.process_index),
            world_size=int(self.accelerator.num_processes),
        )
        # Batches keep their size, so the fastest convolution is worth looking for.
        torch.backends.cudnn.benchmark = True

    @property
    def loss_scaling(self) -> dict[str, Any]:
        """The state of fp16 loss scaling as plain values; empty in other precisions."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    @loss_scaling.setter
    def loss_scaling(self, values: Mapping[str, Any]) -> None:
        if self.accelerator.scaler is not None and values:
            self.accelerator.scaler.load_state_dict(dict(values))

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return values if self.world_size == 1 else torch.as_tensor(self.accelerator.reduce(values, reduction="sum"))

    def interleave(self, rows: Tensor) -> Tensor:
        """Put together rows that process r of R has every R-th of, beginning with the r-th; all have equally many."""
        if self.world_size == 1:
            return rows
        gathered = torch.as_tensor(self.accelerator.gather(rows))
        return gathered.view(self.world_size, *rows.shape).transpose(0, 1).reshape(-1, *rows.shape[1:])

    def gather(self, values: Any) -> list[Any]:
        """Return an object of every process, by rank."""
        return list(gather_object([values])) if self.world_size > 1 else [values]

    def _long_work(self) -> AbstractContextManager[None]:
        """A block of work that takes the processes differently long, at whose end they wait for each other."""
        store = store_of_work()
        return nullcontext() if store is None else long_work(store, self.world_size, self._timeout)

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Make something in the main process, for all of them; they wait for as long as it works.

        Args:
            make: Called in the main process.

        Raises:
            LongtailError: The main process failed, which raises its own error.

        Example:
            >>> Engine(TrainingConfig(device="cpu")).from_main(lambda: 7)
            7
        """
        if self.world_size == 1:
            return make()
        made: Made | None = None
        problem: Exception | None = None
        with self._long_work():
            if self.is_main:
                try:
                    made = make()
                except (LongtailError, OSError) as error:
                    problem = error
        made, said = self.gather((made, problem and str(problem)))[0]
        if problem is not None:
            raise problem
        if said is not None:
            raise LongtailError(said)
        return cast("Made", made)

    def agree(self, make: Callable[[], Made], facts: Callable[[Made], Mapping[str, str]]) -> Made:
        """Make something in every process, and check that all of them made the same.

        Args:
            make: Called in each process.
            facts: Called if there are several processes; returns by name what has to be the same in all of them.

        Raises:
            LongtailError: A process failed (this one with its own error), or two made different things.

        Example:
            >>> engine = Engine(TrainingConfig(device="cpu"))
            >>> engine.agree(lambda: ["ant", "bee"], lambda names: {"classes": str(names)})
            ['ant', 'bee']
        """
        if self.world_size == 1:
            return make()
        problem: Exception | None = None
        with self._long_work():
            try:
                made = make()
                ours = dict(facts(made))
            except (LongtailError, OSError) as error:
                problem, ours = error, {"problem": str(error)}
        tables: list[Mapping[str, str]] = self.gather(ours)
        if problem is not None:
            raise problem
        for rank, table in enumerate(tables):
            if "problem" in table:
                raise LongtailError(f"process {rank} of {self.world_size} failed: {table['problem']}")
        for name in ours:
            if len({table.get(name) for table in tables}) > 1:
                raise LongtailError(
                    f"the {self.world_size} processes do not agree on the {name}: let all of them read the same "
                    "source with the same options and versions."
                )
        return made

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers (batch-norm statistics), which are those that are saved."""
        if self.world_size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    @property
    def is_divided(self) -> bool:
        """Whether each process keeps only its share of a network in training (``training.shard``)."""
        return self.config.shard and self.world_size > 1

    @property
    def home(self) -> torch.device:
        """Device of the whole network between its uses: in host memory where training is divided."""
        return torch.device("cpu") if self.is_divided else self.device

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap a network (autocast, DDP, torch.compile) and its optimizer for training; the network is not changed."""
        if self.config.compile:
            # PyTorch keeps a few graphs of the same code, also of networks that are gone, and then compiles no more.
            torch.compiler.reset()
        contexts = [SyncedBatchNorm] if self.config.sync_batch_norm and self.world_size > 1 else []
        if self.is_divided:  # the shares exchange their gradients themselves
            return _Shell(model, [self.accelerator.autocast, *contexts]), optimizer
        wrapped, prepared = self.accelerator.prepare(_Shell(model, contexts), optimizer)
        # accelerate's optimizer looks for installed packages at every step, a quarter of a millisecond. Only float16
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
        options = compile_mode_options(self.config.compile_mode) | {"fallback_random": True}
        return cast("nn.Module", torch.compile(module, options=options, dynamic=False))

    def no_sync(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Keep the gradients of a part of a batch on this process."""
        return cast("AbstractContextManager[Any]", self.accelerator.no_sync(network))

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled in float16, to those of the parameters."""
        self.accelerator.backward(loss)

    def clip_gradients(self, parameters: Iterable[Tensor], largest_norm: float) -> None:
        """Scale the gradients down to a largest L2 norm of all together."""
        self.accelerator.clip_grad_norm_(parameters, largest_norm)

    def release(self) -> None:
        """Free what was prepared for a stage."""
        self.accelerator.free_memory()

    def to_memory_format(self, images: Tensor) -> Tensor:
        """Bring images (N, C, H, W) into the memory layout of the run; features (N, D) have only one."""
        if images.ndim != 4 or images.dtype == torch.uint8:  # pixels, for a network that another engine runs
            return images
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    @contextmanager
    def inference(self, model: nn.Module) -> Iterator[None]:
        """Evaluation mode, no gradients, the precision of the run; the mode before is restored."""
        with super().inference(model), self.accelerator.autocast():
            yield


class _Shell(nn.Module):
    """A wrapper of the network for accelerate to modify, new for each stage.

    accelerate patches autocast into the ``forward`` of what it prepares, marks it, and skips marked modules the next
    time, even if autocast was removed since: a network trained in two stages would compute in bf16 in the first only.
    """

    def __init__(self, network: nn.Module, contexts: Sequence[Callable[[], AbstractContextManager[Any]]]) -> None:
        super().__init__()
        self.network, self.contexts = network, contexts

    def forward(self, inputs: Tensor, *, return_features: bool) -> Any:
        """Call the network, each time in new contexts."""
        if not self.contexts:  # torch.compile cannot see through the stack
            return self.network(inputs, return_features=return_features)
        with ExitStack() as stack:
            for context in self.contexts:
                stack.enter_context(context())
            return self.network(inputs, return_features=return_features)


@contextmanager
def others_answering(timeout: str) -> Iterator[None]:
    """Explain the errors of a process that waits for others, where one of them is stopped, gone or cut off.

    Args:
        timeout: The longest wait, as ``training.timeout``.

    Raises:
        LongtailError: Another process does not answer.

    Example:
        >>> with others_answering("10m"):
        ...     raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer")
        Traceback (most recent call last):
        longtail.errors.LongtailError: another process of this run ended, or did not answer for 10m ...
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and not _LOST.search(str(error)):
            raise
        raise LongtailError(
            f"another process of this run ended, or did not answer for {timeout} (--training.timeout): look at the "
            "output of the others, then start all of them again with --resume."
        ) from error


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
