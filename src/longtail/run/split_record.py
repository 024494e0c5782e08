"""``RUN/splits.csv``: the split of each image of the source, written for training and read to restore the splits."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from longtail.counts import IntArray
from longtail.data.dataset import SPLIT_NAMES, ImageData, Split
from longtail.errors import LongtailError, first_line
from longtail.files import write_atomically
from longtail.run.layout import SPLITS_FILE

LEFT_OUT: Final = "left out"
COLUMNS: Final = ("split", "class", "path", "source_split", "row")
GROUP: Final = "group"


def write_splits(
    run: Path,
    splits: Mapping[str, Split],
    source: ImageData,
    origins: Mapping[str, str],
    group_column: str | None = None,
) -> None:
    """Write one line per image of a source, including those in no split of the run.

    The columns: ``split``, which is ``train``, ``validation``, ``test`` or ``left out`` (cut by the imbalance ratio, or
    unreadable); ``class``; ``path``, the file relative to the source, empty for an image within a table;
    ``source_split`` and ``row``, its position in the source, rows counted from 0; and ``group`` if there is a group
    column.

    Args:
        run: The RUN folder.
        splits: The splits of the run, by name.
        source: The source before any image was cut or carved off.
        origins: For each split of the run, the split of the source that its images are from.
        group_column: The column that groups images, or None.

    Raises:
        LongtailError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *([GROUP] if group_column else [])])
    listings = {name: _listing(split, group_column) for name, split in source.splits.items()}
    for name, origin, places in _parts(splits, source.splits, origins):
        split, (files, groups) = source.splits[origin], listings[origin]
        numbers, labels = split.origin_rows[places].tolist(), split.labels[places].tolist()
        for place, row, label in zip(places.tolist(), numbers, labels, strict=True):
            writer.writerow([name, source.classes[label], files[place] or "", origin, row, *groups[place : place + 1]])
    write_atomically(run / SPLITS_FILE, text.getvalue().encode())


def _parts(
    splits: Mapping[str, Split], source: Mapping[str, Split], origins: Mapping[str, str]
) -> Iterator[tuple[str, str, IntArray]]:
    """Yield each split of the run with its split of the source and its rows there, then what is left out."""
    unused = {name: np.ones(len(split), dtype=np.bool_) for name, split in source.items()}
    for name in (name for name in SPLIT_NAMES if name in splits):
        origin = origins[name]
        order = np.argsort(source[origin].origin_rows)
        rows = splits[name].origin_rows
        places = order[np.searchsorted(source[origin].origin_rows, rows, sorter=order)]
        unused[origin][places] = False
        yield name, origin, places
    for origin, left in unused.items():
        yield LEFT_OUT, origin, np.flatnonzero(left)


def _listing(split: Split, group_column: str | None) -> tuple[list[str | None], list[object]]:
    """The file and the group of each image; no groups without a group column."""
    if group_column is None:
        return split.files(), []
    has_groups = group_column in split.rows.column_names
    return split.files(), split.column(group_column) if has_groups else [""] * len(split)


def read_splits(run: Path) -> pa.Table | None:
    """Read a ``splits.csv``; None if there is none, as in runs of older versions.

    Returns:
        The columns of :func:`write_splits` except the group, sorted by the rows in the source, and ``line``: the line
        in the file, from 0, which orders the images of a split.

    Raises:
        LongtailError: The file is damaged.
    """
    path = run / SPLITS_FILE
    if not path.is_file():
        return None
    text = dict.fromkeys(COLUMNS, pa.string()) | {"row": pa.int64()}
    try:
        quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
        typed = pyarrow.csv.ConvertOptions(column_types=text, include_columns=list(text), strings_can_be_null=False)
        table = pyarrow.csv.read_csv(path, parse_options=quoted, convert_options=typed)
        rows, names = table["row"].to_numpy(), table["source_split"].to_pylist()
        if table["row"].null_count:
            raise ValueError("a row has no number")
        places = np.array([SPLIT_NAMES.index(name) for name in names], dtype=np.int64)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise LongtailError(
            f"{path} is damaged ({first_line(error)}): copy it from the run again, or delete it to divide the source "
            "again."
        ) from error
    order = np.lexsort((rows, places))
    return table.take(order).append_column("line", pa.array(order))


@dataclass(frozen=True, eq=False)
class FoundSplits:
    """The images of a record that a source still has.

    Attributes:
        splits: The splits of the run, images in the order of the record.
        missing: Recorded images that no longer exist, by split, except those that were left out.
        emptied: Classes whose recorded images no longer exist.
        added: Number of images of the source that are not in the record.
    """

    splits: Mapping[str, Split]
    missing: Mapping[str, tuple[str, ...]]
    emptied: tuple[str, ...]
    added: int


def find_splits(data: ImageData, record: pa.Table) -> FoundSplits:
    """Find the images of a record in a source: a file by its path, an image within a table by its row.

    Args:
        data: The source as it is now.
        record: What it was divided into, as :func:`read_splits` returns it.
    """
    labels, paths, source_splits, source_rows = (record[name].to_pylist() for name in COLUMNS[1:])
    places = _places(data, paths, source_splits, source_rows)
    splits: dict[str, Split] = {}
    missing: dict[str, tuple[str, ...]] = {}
    split_of, in_file = record["split"].to_numpy(), np.argsort(record["line"].to_numpy())
    for name in SPLIT_NAMES:
        lines = in_file[split_of[in_file] == name].tolist()
        here = [place for line in lines if (place := places[line]) is not None]
        if here:
            splits[name] = _selected(data, here)
        elif name in data.splits and not len(data.splits[name]):
            splits[name] = data.splits[name]  # it was empty before, too
        gone = [line for line in lines if places[line] is None]
        if gone:
            missing[name] = tuple(paths[line] or f"{source_splits[line]} row {source_rows[line]}" for line in gone)
    left = {label for label, place in zip(labels, places, strict=True) if place is not None}
    emptied = tuple(label for label in dict.fromkeys(labels) if label not in left)
    total = sum(map(len, data.splits.values()))
    return FoundSplits(splits, missing, emptied, total - sum(place is not None for place in places))


def _places(
    data: ImageData, paths: Sequence[str], source_splits: Sequence[str], source_rows: Sequence[int]
) -> list[tuple[str, int] | None]:
    """The split and row in the source of each recorded image, None if it no longer exists.

    The lines of a file that a table lists several times are matched in the order of the table.
    """
    files: dict[str, deque[tuple[str, int]]] = {}
    for name, split in data.splits.items():
        for row, file in enumerate(split.files()):
            if file is not None:
                files.setdefault(file, deque()).append((name, row))
    rows = {
        name: dict(zip(split.origin_rows.tolist(), range(len(split)), strict=True))
        for name, split in data.splits.items()
    }
    places: list[tuple[str, int] | None] = []
    for path, name, row in zip(paths, source_splits, source_rows, strict=True):
        if path:
            places.append(files[path].popleft() if files.get(path) else None)
        else:
            at = rows.get(name, {}).get(row)
            places.append(None if at is None else (name, at))
    return places


def _selected(data: ImageData, places: list[tuple[str, int]]) -> Split:
    """Select images by split and row, usually all from one split."""
    names = list(dict.fromkeys(name for name, _ in places))
    rows = np.array([row for _, row in places], dtype=np.int64)
    if len(names) == 1:
        return data.splits[names[0]].select(rows)
    import datasets

    # A photo that has been moved from one split of a table to another.
    starts = dict(zip(names, np.cumsum([0, *(len(data.splits[name]) for name in names[:-1])]).tolist(), strict=True))
    joined = datasets.concatenate_datasets([data.splits[name].rows for name in names])
    at = np.array([starts[name] + row for name, row in places], dtype=np.int64)
    return replace(data.splits[names[0]], rows=joined.select(at), origin=rows, paths=None)
