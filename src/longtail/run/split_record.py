"""``RUN/splits.csv``: the split of each image of the source, written for training and read to restore the splits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from longtail.counts import IntArray
from longtail.data.columns import distinct_values, text_column
from longtail.data.dataset import SPLIT_NAMES, ImageData, Split
from longtail.data.splits import groups_of
from longtail.errors import LongtailError, first_line
from longtail.files import writing
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
    with writing(run / SPLITS_FILE) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *([GROUP] if group_column else [])])
        for name, origin, part in _parts(splits, source.splits, origins):
            groups = repeat((), len(part)) if group_column is None else _groups(part, group_column)
            for label, path, row, group in zip(part.labels, part.files(), part.origin_rows, groups, strict=True):
                writer.writerow([name, source.classes[label], path or "", origin, row, *group])
        text.detach()  # written, and not closed


def _parts(
    splits: Mapping[str, Split], source: Mapping[str, Split], origins: Mapping[str, str]
) -> Iterator[tuple[str, str, Split]]:
    """Yield each split of the run with the name of its split of the source, and then what is left out."""
    unused = {name: np.ones(len(split), dtype=np.bool_) for name, split in source.items()}
    for name in (name for name in SPLIT_NAMES if name in splits):
        origin = origins[name]
        unused[origin] &= ~np.isin(source[origin].origin_rows, splits[name].origin_rows)
        yield name, origin, splits[name]
    for origin, left in unused.items():
        yield LEFT_OUT, origin, source[origin].select(np.flatnonzero(left))


def _groups(split: Split, column: str) -> Iterator[tuple[str]]:
    """The group of each image, empty where the split has no such column."""
    return zip(groups_of(split, column) if split.has_column(column) else repeat("", len(split)))


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
        rows, (names, numbers) = table["row"].to_numpy(), distinct_values(table["source_split"])
        if table["row"].null_count:
            raise ValueError("a row has no number")
        places = np.array([SPLIT_NAMES.index(str(name)) for name in names], dtype=np.int64)[numbers]
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
    places = _places(data, record)
    is_here = places >= 0
    splits: dict[str, Split] = {}
    missing: dict[str, tuple[str, ...]] = {}
    in_file = np.argsort(record["line"].to_numpy())
    for name in SPLIT_NAMES:
        lines = in_file[np.array(pc.equal(record["split"], name))[in_file]]
        here, gone = lines[is_here[lines]], lines[~is_here[lines]]
        if len(here):
            splits[name] = _selected(data, places[here])
        elif name in data.splits and not len(data.splits[name]):
            splits[name] = data.splits[name]  # it was empty before, too
        if len(gone):
            lost = record.take(gone).to_pylist()
            missing[name] = tuple(line["path"] or f"{line['source_split']} row {line['row']}" for line in lost)
    classes, numbers = distinct_values(record["class"])
    left = np.bincount(numbers[is_here], minlength=len(classes))
    emptied = tuple(str(name) for name, images in zip(classes, left, strict=True) if not images)
    return FoundSplits(splits, missing, emptied, sum(map(len, data.splits.values())) - int(is_here.sum()))


def _places(data: ImageData, record: pa.Table) -> IntArray:
    """Number each recorded image as the source has it, one split after the other; -1 if it no longer exists.

    The lines of a file that a table lists several times are matched in the order of the table.
    """
    places = np.full(len(record), -1, dtype=np.int64)
    listed = text_column(chain.from_iterable(split.files() for split in data.splits.values()))
    named = np.array(pc.not_equal(record["path"], ""))
    lines, images = np.flatnonzero(named), np.flatnonzero(listed.is_valid())
    # A file is known by the number of its path, and by how often it was listed before.
    both = pa.chunked_array([*listed.drop_null().chunks, *record["path"].take(lines).chunks])
    files = distinct_values(both)[1].astype(np.int64)
    of_images, of_lines = (part * (len(files) + 1) + _repeats(part) for part in np.split(files, [len(images)]))
    _, here, there = np.intersect1d(of_lines, of_images, assume_unique=True, return_indices=True)
    places[lines[here]] = images[there]
    start, row = 0, record["row"].to_numpy()
    for name, split in data.splits.items():
        lines = np.flatnonzero(~named & np.array(pc.equal(record["source_split"], name)))
        _, here, there = np.intersect1d(row[lines], split.origin_rows, assume_unique=True, return_indices=True)
        places[lines[here]] = start + there
        start += len(split)
    return places


def _repeats(numbers: IntArray) -> IntArray:
    """Count, for each number, how often it has come before.

    Example:
        >>> _repeats(np.array([7, 5, 7, 7])).tolist()
        [0, 0, 1, 2]
    """
    order = np.argsort(numbers, kind="stable")
    ordered, repeats = numbers[order], np.empty(len(numbers), dtype=np.int64)
    repeats[order] = np.arange(len(numbers)) - np.searchsorted(ordered, ordered)
    return repeats


def _selected(data: ImageData, places: IntArray) -> Split:
    """Select images by their places in the source, usually all from one split."""
    whole = [*data.splits.values()]
    ends = np.cumsum([len(split) for split in whole])
    number = np.searchsorted(ends, places, side="right")
    rows, first = places - (ends - [len(split) for split in whole])[number], whole[int(number[0])]
    if (number == number[0]).all():
        return first.select(rows)
    import datasets

    # A photo that has been moved from one split of a table to another.
    joined = datasets.concatenate_datasets([split.rows for split in whole])
    return replace(first, rows=joined.select(places), origin=rows, paths=None)
