"""Batches of uint8 images: from one resident tensor where the data set fits in memory, else decoded by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtail.data.images import to_uint8
from longtail.data.sources import Split
from longtail.errors import LongtailError


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


class Loader(Protocol):
    """What the training loop asks of a source of batches; it does not know which kind it has."""

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time, the last batch possibly shorter."""


@dataclass(frozen=True)
class Decoder:
    """Decode one row of a split to a square uint8 image.

    Args:
        split: Rows to decode.
        resize: Length of the shorter side in pixels before the centre crop; ``size`` when None.
        size: Side of the result in pixels.
    """

    split: Split
    resize: int | None
    size: int

    def __call__(self, row: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Return uint8 (3, size, size)."""
        return to_uint8(self.split.image(row), self.resize, self.size).transpose(2, 0, 1)


class ResidentLoader:
    """All images decoded once into one uint8 tensor on the device; a batch is an index operation.

    Args:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        device: Where the tensor is kept.

    Example:
        >>> loader = ResidentLoader(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.arange(5), torch.device("cpu"))
        >>> [batch.labels.tolist() for batch in loader.batches(torch.tensor([4, 0, 2, 2, 1]), 3)]
        [[4, 0, 2], [2, 1]]
    """

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        self.images = images.to(device)
        self.labels = labels.to(device)

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time."""
        for part in split_rows(rows, batch_size):
            index = part.to(self.images.device)
            yield Batch(self.images[index], self.labels[index], part)


class StreamingLoader:
    """Images decoded by worker processes while the device computes, for sets that do not fit in memory.

    Args:
        decoder: From row to uint8 image.
        labels: int64 (N,).
        device: Where batches go.
        workers: Worker processes; 0 decodes in this process.
    """

    def __init__(self, decoder: Decoder, labels: Tensor, device: torch.device, workers: int) -> None:
        self.dataset = _Rows(decoder)
        self.labels = labels
        self.device = device
        self.workers = workers

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time."""
        parts = list(split_rows(rows, batch_size))
        loader: DataLoader[Tensor | LongtailError] = DataLoader(
            self.dataset,
            batch_sampler=[part.tolist() for part in parts],
            num_workers=min(self.workers, len(parts)),
            pin_memory=self.device.type == "cuda",
            collate_fn=_stack,
        )
        for part, images in zip(parts, loader, strict=True):
            if isinstance(images, LongtailError):
                raise images
            yield Batch(images.to(self.device, non_blocking=True), self.labels[part].to(self.device), part)


class _Rows(Dataset["Tensor | LongtailError"]):
    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.decoder.split)

    def __getitem__(self, row: int) -> Tensor | LongtailError:
        try:
            return torch.from_numpy(np.ascontiguousarray(self.decoder(row)))
        except LongtailError as error:  # raised again in the main process: a worker would wrap it in its traceback
            return error


def _stack(items: list[Tensor | LongtailError]) -> Tensor | LongtailError:
    bad = next((item for item in items if isinstance(item, LongtailError)), None)
    return bad if bad is not None else torch.stack([item for item in items if isinstance(item, Tensor)])


def split_rows(rows: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Cut rows into batches; a last single image joins the batch before it.

    Batch normalisation cannot train on one image whose feature map is 1 x 1: there is no variance to divide by.

    Example:
        >>> [[len(part) for part in split_rows(torch.arange(count), 4)] for count in (9, 6)]
        [[4, 5], [4, 2]]
    """
    parts = torch.split(rows, batch_size)
    if batch_size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        return (*parts[:-2], torch.cat(parts[-2:]))
    return parts


def count_batches(rows: int, batch_size: int) -> int:
    """How many batches :func:`split_rows` makes.

    Example:
        >>> count_batches(9, 4), count_batches(6, 4), count_batches(1, 4)
        (2, 2, 1)
    """
    whole, rest = divmod(rows, batch_size)
    lonely = rest == 1 and whole > 0
    return whole + (rest > 0 and not lonely)


def build_loader(
    decoder: Decoder,
    device: torch.device,
    *,
    workers: int,
    resident_gigabytes: float | None,
    tick: Callable[[], object] = lambda: None,
) -> Loader:
    """Return a resident loader where the decoded images fit the budget, else a streaming one.

    Args:
        decoder: From row to uint8 image.
        device: Training device.
        workers: Worker processes of the streaming loader.
        resident_gigabytes: Budget in GB; None means half of the free memory of the device (or of the machine).
        tick: Called once per image while the resident tensor is decoded.
    """
    labels = torch.from_numpy(decoder.split.labels.copy())
    needed = len(decoder.split) * 3 * decoder.size**2
    if needed > _budget(device, resident_gigabytes):
        return StreamingLoader(decoder, labels, device, workers)
    return ResidentLoader(decode_all(decoder, tick), labels, device)


def decode_all(decoder: Decoder, tick: Callable[[], object] = lambda: None) -> Tensor:
    """Decode every row with a few threads (Pillow decodes without the interpreter lock) into uint8 (N, 3, S, S)."""
    count = len(decoder.split)
    images = np.empty((count, 3, decoder.size, decoder.size), dtype=np.uint8)

    def fill(row: int) -> None:
        images[row] = decoder(row)
        tick()

    with ThreadPoolExecutor(max_workers=psutil.cpu_count(logical=True) or 1) as pool:
        for _ in pool.map(fill, range(count)):
            pass
    return torch.from_numpy(images)


def _budget(device: torch.device, gigabytes: float | None) -> float:
    if gigabytes is not None:
        return gigabytes * 1e9
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    return float(psutil.virtual_memory().available) / 2
