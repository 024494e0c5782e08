"""The division of tables into training, validation and test rows, by the name of a table or by a column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from longtail.counts import IntArray
from longtail.data.dataset import SPLIT_NAMES, Finding
from longtail.data.sources.table_columns import SPLIT_COLUMNS, Columns, Locator, column_texts, usual_columns
from longtail.errors import LongtailError, first_line

if TYPE_CHECKING:
    import datasets

_SPELLINGS: Mapping[str, str] = {
    "train": "train training",
    "validation": "validation valid val dev",
    "test": "test testing",
}
SPLIT_ALIASES = {alias: name for name, aliases in _SPELLINGS.items() for alias in aliases.split()}
_SHOWN = 5  # names listed in one sentence

File = TypeVar("File", str, Path)


@dataclass(frozen=True)
class Part:
    """The rows of one split.

    Attributes:
        table: The table, which may hold rows of other splits too.
        rows: Their row numbers in it, shape (N,).
        name: Name of the table.
    """

    table: datasets.Dataset
    rows: IntArray
    name: str


def split_name(name: str) -> str | None:
    """Return the canonical name of a split, or None if the word does not name one.

    Example:
        >>> split_name("Val"), split_name("holdout")
        ('validation', None)
    """
    return SPLIT_ALIASES.get(name.strip().lower())


def split_of_file(file: str | Path) -> str | None:
    """Return the split that the name of a file begins with, or None.

    Example:
        >>> split_of_file("data/train-00001.parquet"), split_of_file("answers.parquet")
        ('train', None)
    """
    return split_name(PurePath(file).stem.partition("-")[0].partition(".")[0])


def divide_files(files: Iterable[File]) -> dict[str, list[File]]:
    """Divide files into splits by what their names begin with; without a name of a split they are for training.

    Example:
        >>> divide_files(["test.parquet", "train-1.parquet", "train-0.parquet", "index.parquet"])
        {'test': ['test.parquet'], 'train': ['train-0.parquet', 'train-1.parquet']}
        >>> divide_files(["shard-0.tar", "val.tar"])
        {'validation': ['val.tar'], 'train': ['shard-0.tar']}
    """
    parts: dict[str, list[File]] = defaultdict(list)
    unnamed: list[File] = []
    for file in sorted(files):
        split = split_of_file(file)
        (unnamed if split is None else parts[split]).append(file)
    if unnamed and "train" not in parts:
        parts["train"] = unnamed
    return dict(parts)


def unread_files(names: Sequence[str]) -> list[Finding]:
    """Return a finding on files that :func:`divide_files` has left out, if there are any."""
    if not names:
        return []
    message = f"files whose names mean no split are left out ({', '.join(names[:_SHOWN])})"
    return [Finding("warning", message, "rename them to use them", "table-without-split")]


def divide(
    tables: Mapping[str, datasets.Dataset], columns: Columns, locator: Locator
) -> tuple[dict[str, Part], list[Finding]]:
    """Divide tables into splits.

    Args:
        tables: Split name, in any of the usual spellings, to table. One table may have any name.
        columns: The columns the user named. If the one of the split is None, a single table is searched for one of a
            usual name, which is taken if all of its values name splits.
        locator: Locates rows of the tables in errors.

    Returns:
        The parts by split, ``"train"`` always first, and findings for the user.

    Raises:
        LongtailError: There is no such column, a value that does not name a split, or no training row.
    """
    if columns.split is not None:
        name, table = _as_one(tables)
        return _by_column(name, table, columns.find("split", table.column_names, locator.source), locator), []
    findings: list[Finding] = []
    if len(tables) == 1:
        name, table = next(iter(tables.items()))
        column, findings = _recognized(name, table, locator, (columns.image, columns.label))
        if column is not None:
            parts = _by_column(name, table, column, locator)
            sizes = ", ".join(f"{len(part.rows):,} {split}" for split, part in parts.items())
            message = f"the column {column!r} divides the images into {sizes}"
            return parts, [Finding("note", message, "name another column with --split-column", "split-column")]
    return _by_name(tables, locator, findings)


def _as_one(tables: Mapping[str, datasets.Dataset]) -> tuple[str, datasets.Dataset]:
    import datasets

    if len(tables) == 1:
        return next(iter(tables.items()))
    try:
        return "", datasets.concatenate_datasets(list(tables.values()))
    except ValueError as error:
        raise LongtailError(
            f"the tables {', '.join(tables)} do not fit together ({first_line(error)}): leave split_column out.",
            options={"split_column": "--split-column"},
        ) from None


def _by_name(
    tables: Mapping[str, datasets.Dataset], locator: Locator, findings: list[Finding]
) -> tuple[dict[str, Part], list[Finding]]:
    named = {name: split_name(name) for name in tables}
    if len(tables) == 1 and not any(named.values()):
        named = dict.fromkeys(tables, "train")
    parts: dict[str, Part] = {}
    for name, split in named.items():
        if split in parts:
            raise LongtailError(f"{locator.source!r} has two splits that mean {split!r}: rename or remove one.")
        if split is not None:
            parts[split] = Part(tables[name], np.arange(len(tables[name])), split)
    unnamed = [f"{name!r} with {len(tables[name]):,} rows" for name, split in named.items() if split is None]
    if unnamed:
        message = f"tables whose names mean no split are left out ({', '.join(unnamed[:_SHOWN])})"
        findings = [*findings, Finding("warning", message, "rename them to use them", "table-without-split")]
    return _training_first(parts, repr(locator.source), tables), findings


def _training_first(parts: Mapping[str, Part], where: str, have: Iterable[str]) -> dict[str, Part]:
    if "train" not in parts:
        raise LongtailError(f"{where} has no split named train (it has {', '.join(have) or 'none'}): rename one.")
    return {split: parts[split] for split in SPLIT_NAMES if split in parts}


def _by_column(name: str, table: datasets.Dataset, column: str, locator: Locator) -> dict[str, Part]:
    values, numbers = column_texts(table, column)
    splits = {value: split_name(value) for value in values}
    unknown = [value for value, split in splits.items() if split is None]
    if unknown:
        where = locator.row(name or "all", int((numbers == values.index(unknown[0])).argmax()))
        others = f" (and {', '.join(map(repr, unknown[1:_SHOWN]))})" if len(unknown) > 1 else ""
        raise LongtailError(
            f"{where}: unknown split {unknown[0]!r}{others} in the column {column!r}; "
            "write train, validation or test, or name another column, split_column=NAME.",
            options={"split_column=NAME": "--split-column"},
        )
    split_of, rest = np.array([splits[value] for value in values]), table.remove_columns([column])
    parts = {
        split: Part(rest, np.flatnonzero((split_of == split)[numbers]), name) for split in splits.values() if split
    }
    return _training_first(parts, f"the column {column!r} of {locator.source!r}", splits)


def _recognized(
    name: str, table: datasets.Dataset, locator: Locator, taken: Sequence[str | None]
) -> tuple[str | None, list[Finding]]:
    """Find the split column of a table by its name and values."""
    usual = usual_columns(SPLIT_COLUMNS, [column for column in table.column_names if column not in taken])
    findings: list[Finding] = []
    for column in usual:
        values, _ = column_texts(table, column)
        unknown = [value for value in values if split_name(value) is None]
        trains = "train" in map(split_name, values)
        if trains and not unknown:
            return column, findings
        if column.strip().lower() == "split" and (locator.lines or trains):
            _by_column(name, table, column, locator)  # raises an error that names the row
        if len(unknown) < len(values):
            reason = f"is {', '.join(map(repr, unknown[:_SHOWN]))} in some rows" if unknown else "is train in no row"
            message = f"the column {column!r} names splits, but {reason}, so it is not used"
            remedy = "write train, validation or test in every row to use it"
            findings.append(Finding("warning", message, remedy, "split-column-unused"))
    for column in table.column_names:
        if column not in (*taken, *usual) and _names_splits(table, column):
            message = f"the column {column!r} names a split in every row, but is called something else"
            remedy = f"divide the images by it: --split-column {column}"
            findings.append(Finding("warning", message, remedy, "split-column-unused"))
    return None, findings


def _names_splits(table: datasets.Dataset, column: str) -> bool:
    """Whether all values of a column of text name splits, among them training and another one."""
    import datasets

    feature = table.features[column]
    is_text = isinstance(feature, datasets.Value) and feature.dtype in {"string", "large_string"}
    if not (is_text or isinstance(feature, datasets.ClassLabel)):
        return False
    for rows in (table.select(range(min(1, len(table)))), table):  # of most columns the first row tells
        splits = set(map(split_name, column_texts(rows, column)[0]))
        if not splits or None in splits:
            return False
    return "train" in splits and len(splits) > 1
