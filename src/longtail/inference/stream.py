"""From what a user names to decoded images: found, opened and read ahead of the network, a bounded number at a time."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from longtail.data.cores import cores
from longtail.errors import LongtailError
from longtail.inference.info import Preprocessing
from longtail.inference.item import Item, Loaded, read_item
from longtail.inference.listing import Found, LeftOut, files_like, images_below
from longtail.inference.tables import is_table, number_of_rows, rows_of_table


@dataclass(frozen=True)
class Images:
    """The images that a user named, to be gone through as often as needed, one at a time.

    Attributes:
        start: Iterates over them, and counts what is left out.
        total: How many there are, where that is known without going through them.
        is_table: Whether they are rows of a table, so that their order is fixed and a name may come twice.
    """

    start: Callable[[LeftOut], Iterator[Item]]
    total: int | None = None
    is_table: bool = False

    def items(self, left_out: LeftOut | None = None) -> Iterator[Item]:
        """Iterate over the images, counting in ``left_out`` what is left out."""
        return self.start(LeftOut() if left_out is None else left_out)


def find_images(images: str | os.PathLike[str], *, image_column: str | None = None) -> Images:
    """Say which images a path, a folder, a pattern or a table names.

    Args:
        images: An image; a folder, searched to the bottom for files with an image's extension, hidden ones left out;
            a pattern such as ``in/**/*.jpg``, all files of which are taken; or a ``.csv``, ``.tsv`` or ``.parquet``.
        image_column: The column of a table that holds the images, where it is not found by its name.

    Raises:
        LongtailError: Nothing of that name, no image in it, or no such column.

    Example:
        >>> find_images("nowhere/*.jpg")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: No image in 'nowhere/*.jpg': name an image, a folder with images, or a pattern.
    """
    text = os.fspath(images)
    if os.path.isfile(text):  # noqa: PTH113 - a path of the user's stays as it was written
        if is_table(text):
            found = Images(lambda _: rows_of_table(text, image_column), number_of_rows(text), is_table=True)
        else:
            found = Images(lambda _: iter([Item(text, text)]), 1)
    elif os.path.isdir(text):  # noqa: PTH112
        found = Images(lambda left_out: _files(images_below(text, left_out)))
    elif glob.has_magic(text):
        found = Images(lambda left_out: _files(files_like(text, left_out)))
    else:
        raise LongtailError(f"There is no file or folder {text!r}: name an image, a folder with images, or a pattern.")
    left_out = LeftOut()
    if next(found.items(left_out), None) is None:
        others = f" ({left_out})" if str(left_out) else ""
        raise LongtailError(f"No image in {text!r}{others}: name an image, a folder with images, or a pattern.")
    return found


def as_items(images: object, *, image_column: str | None = None) -> Iterator[Item]:
    """Turn whatever a caller in Python has into items.

    Args:
        images: What :func:`find_images` takes; a Pillow image; a uint8 array (H, W), (H, W, 3) or (N, H, W, 3); or an
            iterable of paths, Pillow images and arrays.
        image_column: As for :func:`find_images`.

    Raises:
        LongtailError: None of these.
    """
    if isinstance(images, (str, os.PathLike)):
        return find_images(images, image_column=image_column).items()
    one = isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4)
    several = [images] if one else images
    if not isinstance(several, Iterable):
        raise LongtailError(f"{type(images).__name__} is no image: give paths, Pillow images or uint8 arrays.")
    return (_item(number, image) for number, image in enumerate(several))


def read_batches(
    items: Iterable[Item], preprocessing: Preprocessing, *, batch_size: int, workers: int | None = None
) -> Iterator[list[Loaded]]:
    """Decode images in threads and yield them in order, ``batch_size`` at a time; two batches are read ahead.

    Args:
        items: The images.
        preprocessing: To which size they are brought.
        batch_size: Images in a batch; the last one may be shorter.
        workers: Threads; by default as many as there are cores.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers or cores())
    try:
        pending: deque[Future[Loaded]] = deque()
        batch: list[Loaded] = []
        pending.extend(pool.submit(read_item, item, preprocessing) for item in islice(remaining, 2 * batch_size))
        while pending:
            batch.append(pending.popleft().result())
            pending.extend(pool.submit(read_item, item, preprocessing) for item in islice(remaining, 1))
            if len(batch) == batch_size or not pending:
                yield batch
                batch = []
    finally:
        pool.shutdown(cancel_futures=True)


def _files(found: Iterator[Found]) -> Iterator[Item]:
    return (Item(file.path, file.path, file.problem) for file in found)


def _item(number: int, image: object) -> Item:
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        return Item(path, path)
    if isinstance(image, (Image.Image, np.ndarray)):
        return Item(getattr(image, "filename", "") or f"image {number}", image)
    raise LongtailError(f"{type(image).__name__} is no image: give paths, Pillow images or uint8 arrays.")
