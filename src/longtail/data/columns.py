"""Columns of a table as Arrow holds them, without a Python object for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

BLOCK: Final = 10_000
"""Rows that are Python objects at a time."""


def in_memory(table: pa.Table, features: datasets.Features | None = None) -> datasets.Dataset:
    """Return a table as a data set, without the hash of all its content that one is given by default.

    Args:
        table: The table.
        features: Types of its columns; by default they follow from Arrow's.

    Example:
        >>> import pyarrow as pa
        >>> in_memory(pa.table({"label": [0, 1]})).features["label"]
        Value('int64')
    """
    import datasets
    from datasets.fingerprint import generate_random_fingerprint

    info = None if features is None else datasets.DatasetInfo(features=features)
    return datasets.Dataset(datasets.table.InMemoryTable(table), info, fingerprint=generate_random_fingerprint())


def arrow_column(table: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """Return one column of a table."""
    return table.select_columns([name]).with_format("arrow")[:].column(0)


def text_column(texts: Iterable[str | None]) -> pa.ChunkedArray:
    """Build a column from texts, which are made a block at a time.

    Example:
        >>> text_column(letter for letter in "ab").to_pylist()
        ['a', 'b']
    """
    return text_table(({"text": text} for text in texts), ["text"]).column(0)


def text_table(rows: Iterable[Mapping[str, str | None]], names: Sequence[str]) -> pa.Table:
    """Build a table of text from rows, which are made a block at a time.

    Args:
        rows: The cells of each row by the names of their columns.
        names: The columns that are taken.

    Example:
        >>> text_table(({"path": f"{number}.png", "label": "cat"} for number in range(3)), ["path"]).num_rows
        3
    """
    import pyarrow as pa

    schema, rest = pa.schema([(name, pa.string()) for name in names]), iter(rows)
    blocks = [schema.empty_table()]
    while block := list(islice(rest, BLOCK)):
        blocks.append(pa.Table.from_pylist(block, schema))
    return pa.concat_tables(blocks).combine_chunks()  # as one piece, for growing ones have room that is not used


def distinct_values(column: pa.ChunkedArray) -> tuple[list[object], npt.NDArray[np.int32]]:
    """Return the different values of a column, in order of appearance, and which of them each row has.

    Lists and the like count by their text.

    Example:
        >>> import pyarrow as pa
        >>> values, numbers = distinct_values(pa.chunked_array([["cat", None], ["dog", "cat"]]))
        >>> values, numbers.tolist()
        (['cat', None, 'dog'], [0, 1, 2, 0])
    """
    import pyarrow as pa

    if pa.types.is_nested(column.type):
        column = text_column(None if value is None else str(value.as_py()) for value in column)
    encoded = column.dictionary_encode("encode").combine_chunks()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
