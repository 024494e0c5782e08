"""Square uint8 images: rows of a split decoded in threads or worker processes, and images held in memory."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtail.counts import IntArray
from longtail.data.dataset import Split
from longtail.data.square import Square, square_of
from longtail.device import cores
from longtail.errors import LongtailError

_TIMED, _TIMED_SECONDS = 512, 0.25  # images whose decoding is timed, and about how long at most

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoder:
    """Decode one row of a split to a square uint8 image.

    Args:
        split: Rows to decode.
        square: The square that images are brought to.
    """

    split: Split
    square: Square

    def __call__(self, row: int) -> npt.NDArray[np.uint8]:
        """Return uint8 (3, size, size)."""
        return self.pixels(row).transpose(2, 0, 1)

    def pixels(self, row: int) -> npt.NDArray[np.uint8]:
        """Return uint8 (size, size, 3), the memory layout of decoders."""
        return self.split.pixels(row, self.square)


def decode_all(decoder: Decoder, tick: Callable[[], object] = lambda: None, *, out: Tensor | None = None) -> Tensor:
    """Decode every row with a few threads (Pillow decodes without the interpreter lock) into uint8 (N, 3, S, S).

    Args:
        decoder: From row to uint8 image.
        tick: Called once per image.
        out: Tensor to write to; a new one when not given.
    """
    count, size = len(decoder.split), decoder.square.size
    images = torch.empty(count, 3, size, size, dtype=torch.uint8) if out is None else out
    target = images.numpy()

    def fill(rows: range) -> None:
        for row in rows:
            target[row] = decoder(row)
            tick()

    threads = cores()
    # A queue of single rows would need as much memory as small images; large parts would leave threads idle at the end.
    part = min(64, max(1, count // (16 * threads)))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for _ in pool.map(fill, (range(count)[at : at + part] for at in range(0, count, part))):
            pass
    return images


def decoding_seconds(decoder: Decoder) -> float:
    """Estimate how long :func:`decode_all` needs for a split, from some of its images.

    They are decoded as it does, by threads, which hinder each other the more the smaller images are.

    Example:
        >>> from longtail.data.sources.registry import load_source
        >>> from longtail.data.square import Square
        >>> 0 < decoding_seconds(Decoder(load_source("digits").splits["train"], Square(8))) < 60
        True
    """
    count = len(decoder.split)
    rows = np.linspace(0, count - 1, min(count, _TIMED)).astype(int).tolist()

    def decode(some: list[int], latest: float) -> int:
        done = 0
        for row in some:
            if time.perf_counter() > latest:
                break
            with suppress(LongtailError):  # reported when it is drawn
                decoder(row)
            done += 1
        return done

    decode(rows[:1], math.inf)  # loads what decoding needs
    begun = time.perf_counter()
    timed = partial(decode, latest=begun + _TIMED_SECONDS)
    with ThreadPoolExecutor(cores()) as pool:
        decoded = sum(pool.map(timed, (rows[at : at + 8] for at in range(0, len(rows), 8))))
    return (time.perf_counter() - begun) / max(1, decoded) * count


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply a function to items in threads and yield its results in order.

    Args:
        function: Called with one item.
        items: Taken as they are needed.
        threads: Number of threads.
        ahead: Number of items that are in work or done before the consumer asks for them.

    Example:
        >>> list(read_ahead(str, range(3), threads=2, ahead=2))
        ['0', '1', '2']
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        pending = deque(pool.submit(function, item) for item in islice(remaining, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:  # the consumer may stop early
        pool.shutdown(cancel_futures=True)


class Block(NamedTuple):
    """Decoded rows.

    Attributes:
        pixels: uint8 (N, S, S, 3); black for an image that cannot be read.
        problems: The error of each such image by its index in the block, in order.
    """

    pixels: Tensor
    problems: dict[int, LongtailError]


class BlockReader:
    """Worker processes that decode blocks of rows in order, ahead of the consumer.

    The workers start with the first blocks, live as long as the reader, and end with this process, even if it is
    killed. A reader serves one iteration at a time; a new one drops the rest of the previous one.

    Args:
        decoder: From row to uint8 image.
        workers: Worker processes; 0 decodes in this process.
        pin_memory: Put blocks into pinned memory, for asynchronous copies to a GPU.
        keep: Keep the workers for the next iteration.

    Example:
        >>> split = Split.from_arrays(np.full((5, 4, 4), 7, np.uint8), [0, 0, 1, 1, 1])
        >>> reader = BlockReader(Decoder(split, Square(4)), workers=0)
        >>> [tuple(block.pixels.shape) for block in reader.blocks([[0, 4], [1, 2, 3]])]
        [(2, 4, 4, 3), (3, 4, 4, 3)]
    """

    def __init__(self, decoder: Decoder, *, workers: int, pin_memory: bool = False, keep: bool = False) -> None:
        self._parts: list[Sequence[int] | IntArray] = []  # rows of each block of the current iteration
        self._loader: DataLoader[Block] = DataLoader(
            _Blocks(decoder),
            batch_size=None,  # the rows of a block are an index of the data set
            sampler=self._parts,
            num_workers=workers,
            worker_init_fn=follow_parent,
            pin_memory=pin_memory,
            persistent_workers=keep and workers > 0,
            generator=torch.Generator(),  # a draw from the global one would change the noise of the next loss
        )

    def blocks(self, parts: Sequence[Sequence[int] | IntArray]) -> Iterator[Block]:
        """Yield one block for the rows of each part.

        Raises:
            LongtailError: A worker was killed, as by a system out of memory.
        """
        self._parts[:] = parts
        with lost_workers_explained():
            yield from self._loader


class _Blocks(Dataset[Block]):
    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __getitem__(self, rows: Sequence[int] | IntArray) -> Block:
        size = self.decoder.square.size
        pixels = np.zeros((len(rows), size, size, 3), dtype=np.uint8)
        problems: dict[int, LongtailError] = {}
        for position, row in enumerate(rows):
            try:
                pixels[position] = self.decoder.pixels(int(row))
            except LongtailError as error:  # raised by the consumer: a worker would wrap it in its traceback
                problems[position] = error
        return Block(torch.from_numpy(pixels), problems)


@contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Turn PyTorch's error on a worker that was killed, which comes at any moment of the main thread, into a sentence.

    Raises:
        LongtailError: A worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LongtailError(
            "a process that decodes images was killed, perhaps for want of (shared) memory: train with fewer "
            "--data.workers or a smaller batch_size, or enlarge /dev/shm."
        ) from error


def follow_parent(_worker: int) -> None:
    """Let a worker end when its parent says so or has gone, and not by what is sent to the process group.

    Ctrl-C in a terminal and the SIGTERM of ``timeout`` reach the whole group: the parent, which finishes the step and
    saves, needs its workers until then. PyTorch's workers check that their parent process is alive, but learn who it
    is only once they run: a late one would take the process that inherited it for its parent, and never end.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


ImagesLike: TypeAlias = Sequence[str | os.PathLike[str] | Image.Image | npt.NDArray[Any]] | npt.NDArray[Any]


def stack_images(images: ImagesLike, square: Square) -> Tensor:
    """Bring images in memory or files to one square, each as its ``fit`` says.

    Args:
        images: Paths, Pillow images and uint8 arrays (H, W) or (H, W, 3), in any mixture; or one uint8 array
            (N, H, W) or (N, H, W, 3).
        square: The square that images are brought to.

    Returns:
        uint8 (N, 3, size, size).

    Raises:
        LongtailError: A file is not a readable image, or a value is none of these.

    Example:
        >>> stack_images([Image.new("L", (40, 20)), np.zeros((8, 8), np.uint8)], Square(16)).shape
        torch.Size([2, 3, 16, 16])
    """
    with ThreadPoolExecutor() as pool:
        squares = list(pool.map(partial(square_of, square=square), images))
    if not squares:
        return torch.zeros(0, 3, square.size, square.size, dtype=torch.uint8)
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
