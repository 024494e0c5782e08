"""Division of tables into splits, by their names or by a split column, with every file in one split only."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from longtail.counts import IntArray
from longtail.data.dataset import SPLIT_NAMES, Finding, Split
from longtail.errors import LongtailError, listed, nearest

if TYPE_CHECKING:
    import datasets


_SPELLINGS: Mapping[str, str] = {
    "train": "train training",
    "validation": "validation valid val dev",
    "test": "test testing",
}
SPLIT_ALIASES = {alias: name for name, aliases in _SPELLINGS.items() for alias in aliases.split()}
_COLUMNS = (
    "split part partition set subset fold fold_name split_name split_set data_split dataset_split data_set phase usage"
)
SPLIT_COLUMNS = tuple(_COLUMNS.split())
_SHOWN = 5  # values listed in one sentence


@dataclass(frozen=True)
class Place:
    """Locates rows of a source in errors.

    Attributes:
        source: SOURCE as the user typed it, or the file.
        lines: Line number of each row of a text file; empty for other tables.

    Example:
        >>> Place("birds.csv", (2, 5)).row("train", 1), Place("parquet:birds").row("test", 1)
        ('birds.csv, line 5', "'parquet:birds', test row 1")
    """

    source: str
    lines: Sequence[int] = ()

    def row(self, table: str, number: int) -> str:
        """Describe the location of a row."""
        return f"{self.source}, line {self.lines[number]}" if self.lines else f"{self.source!r}, {table} row {number}"


@dataclass(frozen=True)
class Part:
    """The rows of one split.

    Attributes:
        table: The table, which may hold rows of other splits too.
        origin: Their row numbers in it, shape (N,); None means all rows.
        name: Name of the table.
    """

    table: datasets.Dataset
    origin: IntArray | None = None
    name: str = "train"

    def __len__(self) -> int:
        return len(self.table) if self.origin is None else len(self.origin)

    def values(self, column: str) -> list[object]:
        """Return the values of a column in these rows."""
        values = column_values(self.table, column)
        return values if self.origin is None else [values[row] for row in self.origin]

    def row(self, number: int) -> int:
        """Return the number of a row in the table."""
        return number if self.origin is None else int(self.origin[number])


def split_name(name: str) -> str | None:
    """Return the canonical name of a split, or None if the word does not name one.

    Example:
        >>> split_name("Val"), split_name("holdout")
        ('validation', None)
    """
    return SPLIT_ALIASES.get(name.strip().lower())


def divide(
    tables: Mapping[str, datasets.Dataset], column: str | None, place: Place, taken: Sequence[str | None] = ()
) -> tuple[dict[str, Part], list[Finding]]:
    """Divide tables into splits.

    Args:
        tables: Split name, in any of the usual spellings, to table. One table may have any name.
        column: The column that names the split of each row; None looks for one in a single table by its usual names,
            and takes it if all of its values name splits.
        place: Locates rows of the tables in errors.
        taken: Columns that the user assigned to something else.

    Returns:
        The parts by split, ``"train"`` always first, and findings for the user.

    Raises:
        LongtailError: There is no such column, a value that does not name a split, or no training row.
    """
    if column is not None:
        name, table = _as_one(tables)
        if column not in table.column_names:
            raise LongtailError(f"{place.source!r} has no column {column!r}.{nearest(column, table.column_names)}")
        return _by_column(name, table, column, place), []
    findings: list[Finding] = []
    if len(tables) == 1:
        name, table = next(iter(tables.items()))
        column, findings = _recognized(name, table, place, taken)
        if column is not None:
            parts = _by_column(name, table, column, place)
            sizes = ", ".join(f"{len(part):,} {split}" for split, part in parts.items())
            message = f"the column {column!r} divides the images into {sizes}"
            return parts, [Finding("note", message, "name another column with --split-column", "split-column")]
    return _by_name(tables, place, findings)


def _as_one(tables: Mapping[str, datasets.Dataset]) -> tuple[str, datasets.Dataset]:
    import datasets

    if len(tables) == 1:
        return next(iter(tables.items()))
    try:
        return "", datasets.concatenate_datasets(list(tables.values()))
    except ValueError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise LongtailError(
            f"the tables {', '.join(tables)} do not fit together ({reason}): leave split_column out.",
            options={"split_column": "--split-column"},
        ) from None


def _by_name(
    tables: Mapping[str, datasets.Dataset], place: Place, findings: list[Finding]
) -> tuple[dict[str, Part], list[Finding]]:
    parts: dict[str, Part] = {}
    for name, table in tables.items():
        split = split_name(name)
        if split in parts:
            raise LongtailError(f"{place.source!r} has two splits that mean {split!r}: rename or remove one.")
        if split is not None:
            parts[split] = Part(table, name=split)
    if not parts and len(tables) == 1:
        parts["train"] = Part(next(iter(tables.values())))
    if "train" not in parts:
        have = ", ".join(tables) or "none"
        raise LongtailError(f"{place.source!r} has no split named train (it has {have}): rename one.")
    other = [] if len(tables) == 1 else [name for name in tables if split_name(name) is None]
    if other:
        listed = ", ".join(f"{name!r} with {len(tables[name]):,} rows" for name in other[:_SHOWN])
        message = f"tables whose names mean no split are left out ({listed})"
        findings = [*findings, Finding("warning", message, "rename them to use them", "table-without-split")]
    return {name: parts[name] for name in SPLIT_NAMES if name in parts}, findings


def _by_column(name: str, table: datasets.Dataset, column: str, place: Place) -> dict[str, Part]:
    values = column_texts(table, column)
    splits = {value: split_name(value) for value in dict.fromkeys(values)}
    unknown = [value for value, split in splits.items() if split is None]
    if unknown:
        where = place.row(name or "all", values.index(unknown[0]))
        others = f" (and {', '.join(map(repr, unknown[1:_SHOWN]))})" if len(unknown) > 1 else ""
        raise LongtailError(
            f"{where}: unknown split {unknown[0]!r}{others} in the column {column!r}; "
            "write train, validation or test, or name another column, split_column=NAME.",
            options={"split_column=NAME": "--split-column"},
        )
    if "train" not in splits.values():
        have = ", ".join(splits) or "none"
        raise LongtailError(
            f"{place.source!r} has no split named train in its column {column!r} (it has {have}): rename one."
        )
    split_of_row = np.array([splits[value] for value in values])
    rest = table.remove_columns([column])
    rows_of = {split: np.flatnonzero(split_of_row == split) for split in SPLIT_NAMES}
    return {split: Part(rest, rows, name) for split, rows in rows_of.items() if len(rows)}


def _recognized(
    name: str, table: datasets.Dataset, place: Place, taken: Sequence[str | None]
) -> tuple[str | None, list[Finding]]:
    """Find the split column of a table by its name and values."""
    by_name = {column.strip().lower(): column for column in reversed(table.column_names) if column not in taken}
    findings: list[Finding] = []
    for usual in SPLIT_COLUMNS:
        column = by_name.get(usual)
        if column is None:
            continue
        counts = Counter(column_texts(table, column))
        unknown = [value for value in counts if split_name(value) is None]
        trains = "train" in {split_name(value) for value in counts}
        if trains and not unknown:
            return column, findings
        if usual == "split" and (place.lines or (trains and unknown)):
            _by_column(name, table, column, place)  # raises an error that names the row
        if len(unknown) < len(counts):
            reason = f"is {', '.join(map(repr, unknown[:_SHOWN]))} in some rows" if unknown else "is train in no row"
            message = f"the column {column!r} names splits, but {reason}, so it is not used"
            remedy = "write train, validation or test in every row to use it"
            findings.append(Finding("warning", message, remedy, "split-column-unused"))
    for column in table.column_names:
        if column not in (*taken, *(by_name.get(usual) for usual in SPLIT_COLUMNS)) and _names_splits(table, column):
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
    if split_name(next(iter(column_texts(table.select(range(min(1, len(table)))), column)), "")) is None:
        return False
    splits = {split_name(value) for value in column_texts(table, column)}
    return "train" in splits and None not in splits and len(splits) > 1


def column_texts(table: datasets.Dataset, column: str) -> list[str]:
    """Return the values of a column as text, with the names of a ``ClassLabel``; a missing value is empty."""
    import datasets

    values = column_values(table, column)
    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        values = [names[value] if isinstance(value, int) and 0 <= value < len(names) else None for value in values]
    return ["" if value is None else str(value) for value in values]


def column_values(table: datasets.Dataset, column: str) -> list[object]:
    """Return the values of a column as Python objects."""
    values: list[object] = table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    return values


_SHOWN = 5
_DETOURS = ("/../", "/./", "//")


def drop_repeats(splits: Mapping[str, Split], classes: Sequence[str]) -> tuple[dict[str, Split], list[Finding]]:
    """Remove rows that list a file again.

    A file listed in several splits stays in test, else in validation, so that no training image is tested on. Within
    a split a file counts once for each of its labels. Images embedded in the table are not compared.

    Args:
        splits: Labeled rows of one source.
        classes: Class names, shape (C,).

    Returns:
        The splits, and one finding for each kind of repetition.

    Example:
        >>> import datasets
        >>> kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
        >>> def split(files, labels):
        ...     return Split(datasets.Dataset.from_dict({"image": files, "label": labels}, features=kinds))
        >>> splits = {"train": split(["a.png", "b.png", "b.png"], [0, 1, 1]), "test": split(["a.png"], [0])}
        >>> remaining, findings = drop_repeats(splits, ["cat", "lynx"])
        >>> {name: len(rows) for name, rows in remaining.items()}, [finding.kind for finding in findings]
        ({'train': 1, 'test': 1}, ['file-in-several-splits', 'file-listed-again'])
    """
    files = {name: _files(split) for name, split in splits.items()}
    all_files = list(chain.from_iterable(names for names in files.values() if names is not None))
    if len(set(all_files)) == len(all_files):
        return dict(splits), []
    labels_of: dict[str, tuple[str, list[int]]] = {}  # file: the split it stays in, and its labels there
    across: list[str] = []
    again: list[str] = []
    remaining = {}
    for name in (name for name in reversed(SPLIT_NAMES) if name in splits):
        rows = []
        for row, (file, label) in enumerate(zip(files[name] or [], splits[name].labels.tolist(), strict=False)):
            home, labels = labels_of.setdefault(file, (name, []))
            if home != name:
                across.append(file)
            elif label in labels:
                again.append(file)
            else:
                labels.append(label)
                rows.append(row)
        is_whole = files[name] is None or len(rows) == len(splits[name])
        remaining[name] = splits[name] if is_whole else splits[name].select(rows)
    root = next(iter(splits.values())).root
    disputed = {file: labels for file, (_, labels) in labels_of.items() if len(labels) > 1}
    findings = []
    held_out = "a split that is held out lists the same file"
    for repeated, reason, remedy, kind in (
        (across, held_out, "list each file in one split", "file-in-several-splits"),
        (again, "an earlier row lists the same file and label", "list each file once", "file-listed-again"),
    ):
        if repeated:
            names = _relative(repeated, root)
            rows_are = "1 row is" if len(names) == 1 else f"{len(names):,} rows are"
            message = f"{rows_are} left out because {reason} ({listed(names)})"
            findings.append(Finding("warning", message, remedy, kind, names))
    if disputed:
        findings.append(_disputed(disputed, classes, root))
    return {name: remaining[name] for name in splits}, findings


def file_numbers(split: Split) -> IntArray | None:
    """Number the files of a split, shape (N,); None if no file is listed twice."""
    files = _files(split)
    if files is None or len(set(files)) == len(files):
        return None
    return np.unique(np.array(files), return_inverse=True)[1].astype(np.int64)


def _files(split: Split) -> list[str] | None:
    """Return the file of each row; None if the images are embedded in the table."""
    if not len(split) or split.encoded(0)["bytes"] is not None:
        return None
    files = []
    for row, (path, embedded) in enumerate(split.stored_paths()):
        if embedded or path is None:
            files.append(f"{row}/")  # not a possible file name
        else:
            files.append(os.path.normpath(path) if any(detour in path for detour in _DETOURS) else path)
    return files


def _relative(files: Sequence[str], root: str) -> tuple[str, ...]:
    return tuple(os.path.relpath(file, root) if root else file for file in files)


def _disputed(disputed: Mapping[str, Sequence[int]], classes: Sequence[str], root: str) -> Finding:
    names = _relative(list(disputed), root)
    examples = [
        f"{name!r} as {' and '.join(repr(classes[label]) for label in labels)}"
        for name, labels in zip(names[:_SHOWN], disputed.values(), strict=False)
    ]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    files = f"{len(names):,} file{'s are' if len(names) > 1 else ' is'} listed with more than one label"
    message = f"{files} ({', '.join(examples)}{more})"
    remedy = "keep the right label: all rows of a file are trained on or tested on together, and one of them is wrong"
    return Finding("warning", message, remedy, "file-with-several-labels", names)
