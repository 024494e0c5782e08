"""Finding the images a user names and decoding them ahead of the network, a bounded number at a time."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longtail.data.images import is_image_path, read_square
from longtail.errors import LongtailError
from longtail.inference.load import Preprocessing


class Loaded(NamedTuple):
    """One file: its pixels, or why there are none.

    Attributes:
        path: The file.
        pixels: uint8 (size, size, 3), or None.
        problem: The sentence that says what is wrong with the file, or empty.
    """

    path: str
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


def find_images(images: str | os.PathLike[str]) -> list[str]:
    """List the files that a path, a folder or a pattern names, in sorted order.

    Args:
        images: A file; a folder, searched to the bottom for files with an image's extension, hidden ones left out;
            or a pattern such as ``in/**/*.jpg``, all files of which are taken.

    Raises:
        LongtailError: Nothing of that name, or no image in it.

    Example:
        >>> find_images("nowhere/*.jpg")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: No image in 'nowhere/*.jpg': name an image, a folder with images, or a pattern.
    """
    text = os.fspath(images)
    if os.path.isfile(text):  # noqa: PTH113 - a path of the user's stays as it was written
        return [text]
    if os.path.isdir(text):  # noqa: PTH112
        found = _walk(text)
    elif glob.has_magic(text):
        found = [path for path in glob.glob(text, recursive=True) if os.path.isfile(path)]  # noqa: PTH113, PTH207
    else:
        raise LongtailError(f"There is no file or folder {text!r}: name an image, a folder with images, or a pattern.")
    if not found:
        raise LongtailError(f"No image in {text!r}: name an image, a folder with images, or a pattern.")
    return sorted(found)


def read_batches(
    paths: Sequence[str], preprocessing: Preprocessing, *, batch_size: int, workers: int | None = None
) -> Iterator[list[Loaded]]:
    """Decode files in threads and yield them in order, ``batch_size`` at a time; two batches are read ahead.

    Args:
        paths: The files.
        preprocessing: To which size images are brought.
        batch_size: Files in a batch; the last one may be shorter.
        workers: Threads; by default as many as there are cores.
    """
    remaining = iter(paths)
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        pending: deque[Future[Loaded]] = deque()
        batch: list[Loaded] = []
        pending.extend(pool.submit(read_image, path, preprocessing) for path in islice(remaining, 2 * batch_size))
        while pending:
            batch.append(pending.popleft().result())
            pending.extend(pool.submit(read_image, path, preprocessing) for path in islice(remaining, 1))
            if len(batch) == batch_size or not pending:
                yield batch
                batch = []
    finally:
        pool.shutdown(cancel_futures=True)


def read_image(path: str, preprocessing: Preprocessing) -> Loaded:
    """Decode one file to the size the network takes; a file that is no readable image gives its problem instead."""
    try:
        return Loaded(path, read_square(Path(path), path, resize=preprocessing.resize, size=preprocessing.size))
    except LongtailError as error:
        return Loaded(path, None, str(error))


def _walk(folder: str) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()  # a link may lead back up
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            found += [os.path.join(here, name) for name in files if is_image_path(name)]  # noqa: PTH118
        seen.add(real)
    return found
