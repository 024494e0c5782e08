"""Item: one image to be classified, wherever it comes from, and its pixels or what is wrong with it."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from longtail.cores import cores
from longtail.data.decode import read_square, to_rgb, to_uint8
from longtail.data.sources.columns import Columns
from longtail.data.sources.csv import read_rows
from longtail.errors import LongtailError
from longtail.predict.listing import Found, LeftOut, files_like, images_below
from longtail.run.model_info import Preprocessing

if TYPE_CHECKING:
    import pyarrow.parquet as pq


Picture: TypeAlias = str | bytes | Image.Image | npt.NDArray[np.uint8]


class Item(NamedTuple):
    """One image to be classified.

    Attributes:
        name: What results call it: a path, as a rule.
        source: Path, encoded bytes, Pillow image, or uint8 array (H, W), (H, W, 1) or (H, W, 3).
        problem: What is wrong with it already, or empty.
    """

    name: str
    source: Picture
    problem: str = ""


class Loaded(NamedTuple):
    """One image: its pixels, or why there are none.

    Attributes:
        name: What results call it.
        pixels: uint8 (size, size, 3), or None.
        problem: The sentence that says what is wrong with it, or empty.
    """

    name: str
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


def read_item(item: Item, preprocessing: Preprocessing) -> Loaded:
    """Bring an image to the square that the network takes; one that cannot be read gives its problem instead.

    Example:
        >>> square = Preprocessing(size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> read_item(Item("grey", np.full((4, 6), 9, np.uint8)), square).pixels.shape
        (2, 2, 3)
        >>> read_item(Item("a.png", b"no image"), square).problem
        "'a.png' is not an image that can be read: remove or re-export it."
    """
    if item.problem:
        return Loaded(item.name, None, item.problem)
    size, resize, interpolation = preprocessing.size, preprocessing.resize, preprocessing.interpolation
    source = item.source
    try:
        if isinstance(source, np.ndarray):
            source = _picture(source)
        if isinstance(source, Image.Image):
            return Loaded(item.name, to_uint8(to_rgb(source), resize, size, interpolation))
        what = Path(source) if isinstance(source, str) else source
        return Loaded(item.name, read_square(what, item.name, resize=resize, size=size, interpolation=interpolation))
    except LongtailError as error:
        return Loaded(item.name, None, str(error))


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)) or not flat.size:
        raise LongtailError(
            f"an array of {pixels.dtype} of shape {pixels.shape} is no image: give uint8 of shape (H, W, 3) or (H, W)."
        )
    return Image.fromarray(np.ascontiguousarray(flat))


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


TABLES = {".csv", ".tsv", ".parquet"}


_ROWS_AT_ONCE = 64


def is_table(path: str) -> bool:
    """Tell by its name whether a file is a table of images.

    Example:
        >>> is_table("list.CSV"), is_table("photo.jpg")
        (True, False)
    """
    return Path(path).suffix.lower() in TABLES


def rows_of_table(path: str, column: str | None) -> Iterator[Item]:
    """Yield the images of a table in its order. Relative paths start at the table's folder.

    A row that names no image is an item with a problem. An embedded image that carries no path is called by its
    table and row, ``photos.parquet#17``, counted from 0.

    Args:
        path: A file that :func:`is_table`.
        column: The column of images; None finds it by its name.

    Raises:
        LongtailError: No such column, or a table that cannot be read.
    """
    return _parquet_rows(path, column) if path.lower().endswith(".parquet") else _csv_rows(path, column)


def number_of_rows(path: str) -> int | None:
    """How many rows a Parquet file says it has; None for text, which would have to be read.

    Raises:
        LongtailError: A Parquet file that cannot be read.
    """
    if not path.lower().endswith(".parquet"):
        return None
    with _open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _csv_rows(path: str, column: str | None) -> Iterator[Item]:
    folder = os.path.dirname(path)  # noqa: PTH120 - a path of the user's stays as it was written
    # A file name that is not valid UTF-8 stays the bytes it is.
    header, rows = read_rows(path, ragged=True, decoding="surrogateescape")
    place = header.index(Columns(image=column).find("image", header, path))
    for line, row in rows:
        yield _named(row[place].strip("\r\n") if place < len(row) else "", folder, f"{path}, line {line}")


def _parquet_rows(path: str, column: str | None) -> Iterator[Item]:
    folder = os.path.dirname(path)  # noqa: PTH120
    rows = count()
    with _open_parquet(path) as file:
        name = Columns(image=column).find("image", file.schema_arrow.names, path)
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[name], use_threads=False):
            for value in batch.column(0).to_pylist():
                yield _embedded(value, path, next(rows), folder)


def _open_parquet(path: str) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)  # page by page, not a row group at a time
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LongtailError(f"{path!r} is no readable Parquet file ({reason}): fetch it again.") from None


def _embedded(value: Any, table: str, row: int, folder: str) -> Item:
    where = f"{table}#{row}"
    if isinstance(value, dict):  # as Hugging Face datasets store an image
        data, path = value.get("bytes"), value.get("path") or ""
        return Item(path or where, data) if isinstance(data, bytes) else _named(str(path), folder, where)
    if isinstance(value, bytes):
        return Item(where, value)
    return _named(value if isinstance(value, str) else "", folder, where)


def _named(text: str, folder: str, where: str) -> Item:
    if not text.strip():
        return Item(where, "", f"{where}: there is no image in this row; name one, or delete the row.")
    return Item(text, os.path.join(folder, text))  # noqa: PTH118
