"""Loaders: batches of uint8 images from one resident tensor if it fits in memory, else decoded by workers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple
from weakref import finalize

import numpy as np
import numpy.typing as npt
import torch
from filelock import Timeout
from torch import Tensor

from longtail.counts import ClassCounts
from longtail.data.loading.cache import cached_images, open_to_fill
from longtail.data.loading.workers import BlockReader, Decoder, decode_all, decoding_seconds, read_ahead
from longtail.data.samplers import EpochSampler, build_sampler
from longtail.device import default_workers, forward_batch, memory_budget, processes, runs_at_once

_PIECE = 8  # images that a thread decodes at a time
IMAGES_AHEAD = 16  # for each thread
_LONGEST_WAIT = 60.0  # seconds that the first step may wait for all images to be decoded


class Batch(NamedTuple):
    """Images of one step on the training device.

    Attributes:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        rows: int64 (N,), the row of each image in its split, on the CPU.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor


class LabeledRows:
    """Rows whose labels are known, so that a sampler can draw their numbers.

    Attributes:
        labels: Class indices, int64 (N,).
    """

    labels: Tensor

    def sampler(
        self, strategy: str, class_counts: ClassCounts, *, num_samples: int, seed: int, rank: int, world_size: int
    ) -> EpochSampler:
        """Build a sampler of the rows, see :func:`longtail.data.samplers.build_sampler`."""
        labels = self.labels.cpu().numpy()
        return build_sampler(
            strategy, labels, class_counts, num_samples=num_samples, seed=seed, rank=rank, world_size=world_size
        )


class Loader(LabeledRows, ABC):
    """Base class of the sources of batches, which measures how long the consumer waits for them.

    Attributes:
        waited: Seconds that the consumer has waited for batches since the last call of :meth:`batches`.
        large_batch: Largest useful batch size of a forward pass.
    """

    # More gains nothing on a CPU, nor where workers decode, since each decodes a whole batch.
    large_batch = 256

    def __init__(self, labels: Tensor, device: torch.device) -> None:
        self.labels = labels.to(device)
        self.device = device
        self.waited = 0.0
        self._open = 0

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time, the last batch possibly shorter."""
        if not self._open:  # a second iteration next to the first (images to paste) adds to the same time
            self.waited = 0.0
        self._open += 1
        begun = time.perf_counter()
        # All rows are sent at once: sending those of each step would wait for the previous step.
        parts, on_device = split_rows(rows, batch_size), split_rows(rows.to(self.device), batch_size)
        try:
            for batch in self._batches(parts, on_device):
                self.waited += time.perf_counter() - begun
                yield batch
                begun = time.perf_counter()
            self.waited += time.perf_counter() - begun
        finally:
            self._open -= 1

    def _batches(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Batch]:
        for part, index, images in zip(parts, on_device, self._images(parts, on_device), strict=True):
            yield Batch(images, self.labels[index], part)

    @abstractmethod
    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each batch on the device; its rows are given on the CPU and on the device."""


class ResidentLoader(Loader):
    """All images decoded once into one uint8 tensor on the device; a batch is an index operation.

    Args:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        device: Device of the tensor.

    Example:
        >>> loader = ResidentLoader(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.arange(5), torch.device("cpu"))
        >>> [batch.labels.tolist() for batch in loader.batches(torch.tensor([4, 0, 2, 2, 1]), 3)]
        [[4, 0, 2], [2, 1]]
    """

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        super().__init__(labels, device)
        self.images = images.to(device)
        self.large_batch = forward_batch(device, images.shape[-1])

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:  # noqa: ARG002
        for index in on_device:
            yield self.images[index]


class StreamingLoader(Loader):
    """Images decoded by worker processes while the device computes, for sets that do not fit in memory.

    Args:
        decoder: From row to uint8 image.
        labels: int64 (N,).
        device: Device of the batches.
        workers: Worker processes; 0 decodes in this process.
        keep_workers: Keep the workers from one epoch to the next.
    """

    def __init__(
        self, decoder: Decoder, labels: Tensor, device: torch.device, workers: int, *, keep_workers: bool = True
    ) -> None:
        super().__init__(labels, device)
        self.decoder = decoder
        self.workers = workers
        self.keep_workers = keep_workers
        self._idle: list[BlockReader] = []  # a second iteration next to the first needs its own reader

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:  # noqa: ARG002
        if self._idle:
            reader = self._idle.pop()
        else:
            pin_memory = self.device.type == "cuda"
            reader = BlockReader(self.decoder, workers=self.workers, pin_memory=pin_memory, keep=self.keep_workers)
        try:
            for block in reader.blocks([part.numpy() for part in parts]):
                for problem in block.problems.values():
                    raise problem
                yield block.pixels.permute(0, 3, 1, 2).to(self.device, non_blocking=True)
        finally:
            if self.keep_workers:
                self._idle.append(reader)


class SinglePassLoader(Loader):
    """Images decoded by threads shortly before use and not kept, for a single pass over a split.

    Its batches are bit for bit those of a :class:`ResidentLoader`, with the same sizes and memory layout.

    Args:
        decoder: From row to uint8 image.
        device: Device of the batches.
        threads: Number of decoding threads; None takes :func:`default_workers`.

    Example:
        >>> from longtail.data.dataset import Split
        >>> from longtail.data.square import Square
        >>> split = Split.from_arrays(torch.zeros(5, 4, 4, dtype=torch.uint8).numpy(), [0, 0, 1, 1, 1])
        >>> loader = SinglePassLoader(Decoder(split, Square(4)), torch.device("cpu"))
        >>> [tuple(batch.images.shape) for batch in loader.batches(torch.arange(5), 3)]
        [(3, 3, 4, 4), (2, 3, 4, 4)]
    """

    def __init__(self, decoder: Decoder, device: torch.device, threads: int | None = None) -> None:
        super().__init__(torch.from_numpy(decoder.split.labels.copy()), device)
        self.decoder = decoder
        self.threads = max(1, default_workers() if threads is None else threads)
        self.large_batch = forward_batch(device, decoder.square.size)

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:  # noqa: ARG002
        # A batch, and more of small ones, or threads would be idle.
        at_once = max(1, len(parts[0]))
        ahead = -(-at_once // _PIECE) * (1 + IMAGES_AHEAD * self.threads // at_once)
        filled = read_ahead(self._fill, self._pieces(parts), threads=self.threads, ahead=ahead)
        for part in parts:
            *_, images = islice(filled, max(1, -(-len(part) // _PIECE)))
            yield images.to(self.device)

    def _pieces(self, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, range, list[int]]]:
        """Yield the images of each batch, still empty, with places of some of them and the rows that belong there."""
        size = self.decoder.square.size
        for part in parts:
            images, rows = torch.empty(len(part), 3, size, size, dtype=torch.uint8), part.tolist()
            for at in range(0, max(1, len(rows)), _PIECE):
                yield images, range(len(rows))[at : at + _PIECE], rows[at : at + _PIECE]

    def _fill(self, piece: tuple[Tensor, range, list[int]]) -> Tensor:
        images, places, rows = piece
        target = images.numpy()
        for place, row in zip(places, rows, strict=True):
            target[place] = self._decoded(row)
        return images

    def _decoded(self, row: int) -> npt.NDArray[np.uint8]:
        return self.decoder(row)


class FillingLoader(SinglePassLoader):
    """Images decoded by threads when they are first drawn, and kept for the next time.

    Its batches are bit for bit those of a :class:`ResidentLoader`.

    Args:
        decoder: From row to uint8 image.
        device: Device of the batches.
        images: Tensor to fill, uint8 (N, 3, S, S), in memory or mapped from a file.
        threads: Number of decoding threads; None takes :func:`default_workers`.
        on_full: Called once, at the end of the pass in which the last image was decoded.

    Example:
        >>> from longtail.data.dataset import Split
        >>> from longtail.data.square import Square
        >>> split = Split.from_arrays(np.full((3, 4, 4), 7, np.uint8), [0, 0, 1])
        >>> images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
        >>> loader = FillingLoader(Decoder(split, Square(4)), torch.device("cpu"), images)
        >>> [batch.labels.tolist() for batch in loader.batches(torch.tensor([2, 0, 2]), 3)]
        [[1, 0, 1]]
        >>> images.amax(dim=(1, 2, 3)).tolist()
        [7, 0, 7]
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        images: Tensor,
        threads: int | None = None,
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(decoder, device, threads)
        self.images = images
        self._pixels: npt.NDArray[np.uint8] = images.numpy()
        self._is_kept = np.zeros(len(images), dtype=np.bool_)
        self._is_full = False
        self._on_full = on_full

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:
        if self._is_full:
            for part in parts:
                yield self.images[part].to(self.device)
            return
        yield from super()._images(parts, on_device)
        if self._is_kept.all() and not self._is_full:  # a second iteration next to this one may have noticed
            self._is_full = True
            self._on_full()

    def _decoded(self, row: int) -> npt.NDArray[np.uint8]:
        if not self._is_kept[row]:  # a second thread at the same row writes the same bytes
            self._pixels[row] = super()._decoded(row)
            self._is_kept[row] = True
        pixels: npt.NDArray[np.uint8] = self._pixels[row]
        return pixels


def split_rows(rows: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Cut rows into batches; a last single image joins the batch before it.

    Batch normalization cannot train on one image whose feature map is 1 x 1: there is no variance to divide by.

    Example:
        >>> [[len(part) for part in split_rows(torch.arange(count), 4)] for count in (9, 6)]
        [[4, 5], [4, 2]]
    """
    parts = torch.split(rows, batch_size)
    if batch_size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        return (*parts[:-2], torch.cat(parts[-2:]))
    return parts


def count_batches(rows: int, batch_size: int) -> int:
    """Return the number of batches of :func:`split_rows`.

    Example:
        >>> count_batches(9, 4), count_batches(6, 4), count_batches(1, 4)
        (2, 2, 1)
    """
    return len(split_rows(torch.empty(rows, dtype=torch.bool), batch_size))


class ResidentBudget:
    """The memory for decoded images of all splits of a run.

    Args:
        device: Device of the images.
        gigabytes: The budget; None takes half of the free memory, divided among the runs of a grid that share a GPU.
            Images for a GPU pass through the memory of the host, so they have to fit half of what is free there as
            well.

    Example:
        >>> budget = ResidentBudget(torch.device("cpu"), 1.0)
        >>> budget.take(600_000_000), budget.take(600_000_000), budget.take(400_000_000)
        (True, False, True)
    """

    def __init__(self, device: torch.device, gigabytes: float | None = None) -> None:
        self.left = memory_budget(device, gigabytes)
        if gigabytes is None and device.type != "cpu":
            self.left = min(self.left, memory_budget(torch.device("cpu"))) / runs_at_once()

    def take(self, size: int) -> bool:
        """Take ``size`` bytes if they are left; return whether they were."""
        if size > self.left:
            return False
        self.left -= size
        return True


def build_loader(
    decoder: Decoder,
    device: torch.device,
    *,
    workers: int | None,
    budget: ResidentBudget,
    cache: bool = True,
    source: str = "",
    keep_workers: bool = True,
    tick: Callable[[], object] = lambda: None,
    warn: Callable[[str], object] = lambda _: None,
) -> Loader:
    """Return a resident loader if the decoded images fit the budget, else a streaming one.

    On a processor, images whose decoding would take more than a minute are decoded when they are first drawn, into the
    file of the cache, so that training begins at once.

    Args:
        decoder: From row to uint8 image.
        device: Training device.
        workers: Worker processes of the streaming loader; None takes :func:`default_workers`.
        budget: Memory budget of the run, from which the images are taken.
        cache: Also keep the decoded images on disk, for other runs.
        source: SOURCE of the images, listed by `longtail cache`.
        keep_workers: Keep the workers of the streaming loader from one epoch to the next.
        tick: Called once per image while the resident tensor is decoded.
        warn: Called with a sentence if the decoded images cannot be kept on disk.
    """
    labels, workers = torch.from_numpy(decoder.split.labels.copy()), default_workers() if workers is None else workers
    streaming = partial(StreamingLoader, decoder, labels, device, workers, keep_workers=keep_workers)
    if not budget.take(len(decoder.split) * 3 * decoder.square.size**2):
        return streaming()
    # A GPU takes all images at once, and several processes wait for those that the first one decodes.
    alone = device.type == "cpu" and processes() == runs_at_once() == 1
    if cache and alone and decoding_seconds(decoder) > _LONGEST_WAIT:
        try:
            file = open_to_fill(decoder, source=source)
        except Timeout:  # waiting for another process could take as long as its first epoch
            return streaming()
        if file is not None:
            filling = FillingLoader(decoder, device, file.pixels, workers, file.finish)
            finalize(filling, file.discard)
            return filling
    images = cached_images(decoder, tick, warn, source=source) if cache else decode_all(decoder, tick)
    return ResidentLoader(images, labels, device)
