"""Images named by a table: a CSV column of paths, or a Parquet column of paths or of whole images, row by row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.data.columns import Columns
from longtail.data.delimited import read_rows
from longtail.errors import LongtailError
from longtail.inference.item import Item

if TYPE_CHECKING:
    import pyarrow.parquet as pq

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
