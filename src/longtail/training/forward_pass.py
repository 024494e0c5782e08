"""The forward pass over a split, and the inputs it is made of: images through a loader and a transform, or features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from longtail.counts import ClassCounts
from longtail.data.loading.loaders import Batch, Loader
from longtail.data.samplers import EpochSampler
from longtail.data.transforms.augmentation import BatchTransform
from longtail.errors import LongtailError
from longtail.training.engine import LocalEngine

Result = TypeVar("Result")


class LabeledRows(Protocol):
    """A batch of any kind: labels, int64 (N,), on the device, and row numbers on the CPU."""

    @property
    def labels(self) -> Tensor:
        """Class indices, int64 (N,), on the training device."""

    @property
    def rows(self) -> Tensor:
        """Row of each image in its split, int64 (N,), on the CPU."""


AnyBatch = TypeVar("AnyBatch", bound=LabeledRows)


class Inputs(Protocol[AnyBatch]):
    """A source of network inputs: :class:`ImageInputs`, or stored features.

    Attributes:
        waited: Seconds that whoever takes the batches has waited for them since :meth:`batches` was last begun.
        large_batch: Rows at a time that are worth a try where nothing is trained.
    """

    @property
    def waited(self) -> float: ...  # noqa: D102
    @property
    def large_batch(self) -> int: ...  # noqa: D102

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[AnyBatch]:
        """Yield the given rows in order, ``batch_size`` at a time, the last batch possibly shorter."""

    def augment(self, batch: AnyBatch, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Return what the network takes in training, with draws for the global batch from a shared generator."""

    def normalize(self, batch: AnyBatch) -> Tensor:
        """Return what the network takes, without anything random."""


class TrainingInputs(Inputs[AnyBatch], Protocol[AnyBatch]):
    """Inputs that say in which order they are trained on."""

    def sampler(
        self, strategy: str, class_counts: ClassCounts, *, num_samples: int, seed: int, rank: int, world_size: int
    ) -> EpochSampler:
        """Build a sampler of their rows, see :func:`longtail.data.samplers.build_sampler`."""


@dataclass(frozen=True)
class ImageInputs:
    """Images of a split as a network takes them.

    Attributes:
        loader: Batches of uint8 images (N, 3, S, S).
        transform: Augmentation and normalization.
        raw: The network takes pixels and normalizes them itself.

    Example:
        >>> from longtail.data.loading.loaders import ResidentLoader
        >>> loader = ResidentLoader(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.arange(5), torch.device("cpu"))
        >>> inputs = ImageInputs(loader, BatchTransform((0.5,) * 3, (0.5,) * 3))
        >>> [inputs.normalize(batch).mean().item() for batch in inputs.batches(torch.arange(5), 3)]
        [-1.0, -1.0]
    """

    loader: Loader
    transform: BatchTransform
    raw: bool = False

    @property
    def waited(self) -> float:
        """Seconds that were waited for images since :meth:`batches` was last begun."""
        return self.loader.waited

    @property
    def large_batch(self) -> int:
        """Images at a time that are worth a try where nothing is trained."""
        return self.loader.large_batch

    def sampler(
        self, strategy: str, class_counts: ClassCounts, *, num_samples: int, seed: int, rank: int, world_size: int
    ) -> EpochSampler:
        """Build a sampler of the images, see :func:`longtail.data.samplers.build_sampler`."""
        return self.loader.sampler(
            strategy, class_counts, num_samples=num_samples, seed=seed, rank=rank, world_size=world_size
        )

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time."""
        return self.loader.batches(rows, batch_size)

    def augment(self, batch: Batch, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Return augmented and normalized images, float32 (N, 3, S, S)."""
        return self.transform.augment(batch.images, generator, rank=rank, world_size=world_size)

    def normalize(self, batch: Batch) -> Tensor:
        """Return normalized images, float32 (N, 3, S, S); the uint8 images themselves if ``raw``."""
        return batch.images if self.raw else self.transform.normalize(batch.images)


class BatchOutputs(NamedTuple):
    """The outputs of a network for a batch, on the device.

    Attributes:
        logits: float32 (N, C).
        features: (N, D), the input of its classifier, in the precision of the run.
        labels: int64 (N,).
        rows: int64 (N,), the row of each image in its split, on the CPU.
    """

    logits: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor


def forward_pass(
    engine: LocalEngine,
    model: nn.Module,
    inputs: Inputs[Any],
    rows: Tensor,
    consume: Callable[[Iterator[BatchOutputs]], Result],
) -> Result:
    """Pass the given rows of a split through a network once, without gradients, in batches as large as fit the memory.

    Args:
        engine: Device and precision.
        model: Called as ``model(inputs, return_features=True)``; its mode is restored afterwards.
        inputs: Inputs of the split.
        rows: int64, the rows in the order they are wanted in.
        consume: Makes the result of the outputs of all batches, one batch after the other. It is called anew, with
            smaller batches, where one did not fit, so that it has to keep what it gathers in variables of its own.

    Raises:
        LongtailError: Not even one image fits the memory.
    """

    def outputs(batch: LabeledRows) -> BatchOutputs:
        logits, features = model(engine.to_memory_format(inputs.normalize(batch)), return_features=True)
        return BatchOutputs(logits.float(), features, batch.labels, batch.rows)

    def attempt(batch_size: int) -> Result:
        with engine.inference(model):
            return consume(map(outputs, inputs.batches(rows, batch_size)))

    return largest_batch(attempt, engine.config.evaluation_batch or inputs.large_batch)


def largest_batch(work: Callable[[int], Result], first: int) -> Result:
    """Call ``work(batch_size)`` with ``first``, or with half of it, until it fits the memory.

    Raises:
        LongtailError: Not even one image fits.
    """
    size = first
    while size:
        try:
            return work(size)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        clear_device_cache(garbage_collection=True)  # not within: the error holds on to what filled the memory
        size //= 2
    raise LongtailError("one image does not fit the memory: use a smaller --data.image_size or network.")
