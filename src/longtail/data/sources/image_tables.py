"""Image tables to an ImageData: their columns of image, label and split, and the class names behind the labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longtail.counts import IntArray
from longtail.data.class_names import normalize_class_name, order_classes
from longtail.data.columns import arrow_column, distinct_values, text_column
from longtail.data.dataset import SPLIT_NAMES, Finding, ImageData, Split
from longtail.data.decode import is_image_path
from longtail.data.splits import drop_repeats
from longtail.errors import LongtailError, UsageError, first_line, listed, nearest

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

IMAGE_COLUMNS = (
    "image",
    "img",
    "path",
    "file",
    "file_name",
    "filename",
    "image_path",
    "filepath",
    "jpg",
    "png",
    "jpeg",
    "webp",
)
LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "class_name", "category", "target", "species", "y", "cls")
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
_USUAL = {"image": IMAGE_COLUMNS, "label": LABEL_COLUMNS, "split": SPLIT_COLUMNS}
_SHOWN = 5  # names listed in one sentence


@dataclass(frozen=True)
class Columns:
    """Column names given by the user; None for those to be recognized by their usual names.

    Example:
        >>> Columns(label="species").find("label", ["file", "species", "label"], "birds.csv")
        'species'
        >>> Columns().find("image", ["file", "species", "label"], "birds.csv")
        'file'
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None

    def refuse(self, source: str) -> None:
        """Raise a UsageError if the user named a column for a source without columns."""
        for role, name in asdict(self).items():
            if name is not None:
                option = f"{role}_column"
                raise UsageError(f"{source}: leave {option} out.", options={option: f"--{role}-column"})

    def find(self, role: str, names: Sequence[str], where: str) -> str:
        """Return the column of ``role`` (``"image"``, ``"label"`` or ``"split"``) among ``names``.

        Raises:
            LongtailError: The column asked for does not exist, or none has a usual name.
        """
        asked = {"image": self.image, "label": self.label, "split": self.split}[role]
        columns = [asked] if asked is not None else usual_columns(_USUAL[role], names)
        if columns and columns[0] in names:
            return columns[0]
        if any(is_image_path(name) for name in names):
            raise no_header(where, names)
        if asked is not None:
            raise LongtailError(f"{where!r} has no column {asked!r}.{nearest(asked, names)}")
        have = ", ".join(names) or "none"
        raise LongtailError(
            f"{where!r} has no column that looks like the {role} ({have}): name it, {role}_column=NAME.",
            options={f"{role}_column=NAME": f"--{role}-column"},
        )


def usual_columns(usual: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns of usual names among ``names``, whatever their case, the most usual first.

    Example:
        >>> usual_columns(("label", "class"), ["Class", "site", "label"])
        ['label', 'Class']
    """
    lowered = {name.strip().lower(): name for name in reversed(names)}
    return [lowered[name] for name in usual if name in lowered]


def no_header(where: str, names: Sequence[str]) -> LongtailError:
    """Return the error for a table whose first line is an image in place of column names.

    Example:
        >>> print(no_header("birds.csv", ["1.jpg", "wren"]))
        'birds.csv' has no header, its first line is an image (1.jpg, wren): add a first line with the names of the
        columns, such as path,label.
    """
    return LongtailError(
        f"{where!r} has no header, its first line is an image ({', '.join(names)}): add a first line with "
        "the names of the columns, such as path,label."
    )


def from_tables(
    source: str,
    tables: Mapping[str, datasets.Dataset],
    columns: Columns,
    *,
    root: Path | None = None,
    locator: Locator | None = None,
) -> ImageData:
    """Turn Hugging Face tables, one per split or one for all, into an ImageData with labels 0 .. C-1 by name.

    Args:
        source: SOURCE as the user typed it.
        tables: Split name, in any of the usual spellings, to table.
        columns: The columns the user named.
        root: Folder of image paths stored as text.
        locator: Locates rows in errors; by default by source and row number.

    Raises:
        LongtailError: There are no such columns, a training image without a label, or labels of an unusable type.
    """
    locator = locator or Locator(source)
    where = locator.source
    parts, findings = divide(tables, columns, locator)
    stated: dict[str, None] = {}  # class names, in the order that a table states
    spellings: dict[str, set[str]] = defaultdict(set)
    images: dict[int, tuple[datasets.Dataset, pa.ChunkedArray | None]] = {}  # of a table, which splits may share
    names, of_row = {}, {}
    for split, part in parts.items():
        image, label = (columns.find(role, part.table.column_names, where) for role in ("image", "label"))
        if image == label:
            raise LongtailError(f"{where!r}: the column {image!r} cannot be both image and label; name another.")
        labels, of_row[split], ordered = _labels(part, label, locator)
        name_of = {each: normalize_class_name(each) for each in (*labels, *ordered)}
        stated |= {name_of[each]: None for each in ordered if name_of[each]}
        for spelling, name in name_of.items():
            if isinstance(spelling, str) and name:
                spellings[name].add(spelling)
        names[split] = [name_of[each] for each in labels]
        if split != "train" and labels and not any(names[split]):
            del names[split]
            message = f"the {split} split has no labels and is left out"
            findings.append(Finding("note", message, "label it to use it", "no-labels"))
            continue
        if "" in names[split]:
            is_missing = np.array([not name for name in names[split]])[of_row[split]]
            row = locator.row(part.name or split, int(part.rows[is_missing.argmax()]))
            raise LongtailError(f"{row}: the label is missing; give it one or drop it.")
        if id(part.table) not in images:
            images[id(part.table)] = _image_table(part.table, image, label, locator.source, root)
    others = {name for of_split in names.values() for name in of_split} - stated.keys()
    classes = [*stated, *order_classes(others)]
    index = {name: number for number, name in enumerate(classes)}
    numbers = {key: np.full(len(table), -1, dtype=np.int64) for key, (table, _) in images.items()}
    for split, of_split in names.items():
        number_of = np.array([index[name] for name in of_split], dtype=np.int64)
        numbers[id(parts[split].table)][parts[split].rows] = number_of[of_row[split]]
    splits = {}
    for split in names:
        key, rows = id(parts[split].table), parts[split].rows
        table, paths = images[key]
        table = _with_labels(table, numbers[key])  # before rows are selected, or all images would be copied
        table = table if len(rows) == len(table) else table.select(rows)
        splits[split] = Split(table, root=str(root) if root else "", origin=rows, paths=paths)
    splits, repeated = drop_repeats(splits, classes)
    findings += [*merged_names(spellings), *repeated, *untrained(classes, splits)]
    return ImageData(source, tuple(classes), splits, tuple(findings))


def untrained(classes: Sequence[str], splits: Mapping[str, Split]) -> list[Finding]:
    """Return a finding for each held-out split that has classes without a training image."""
    seen = set(splits["train"].shown_classes()) if "train" in splits else set[int]()
    findings = []
    for name, split in splits.items():
        lacking = sorted(set(split.shown_classes()) - seen)
        if lacking and name != "train":
            names = listed([classes[label] for label in lacking])
            message = f"{name} has images of {names} but training has none, so that no model can learn it"
            remedy = f"add training images, or take the class out of {name}"
            findings.append(Finding("warning", message, remedy, "class-untrained"))
    return findings


def _labels(part: Part, column: str, locator: Locator) -> tuple[list[object], IntArray, list[str]]:
    """Return the different labels of some rows, which of them each row has, and the names whose order the table states.

    A missing label is None or NaN.
    """
    import datasets
    import pyarrow as pa

    stored = arrow_column(part.table, column)
    values, numbers = distinct_values(stored)
    used = np.bincount(numbers[part.rows], minlength=len(values)) > 0
    values, of_row = list(compress(values, used)), (np.cumsum(used) - 1)[numbers[part.rows]]
    feature = part.table.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        # Fractions are measurements.
        fractions = any(isinstance(value, float) and value == value and not value.is_integer() for value in values)
        if fractions or pa.types.is_nested(stored.type) or any(isinstance(value, bytes) for value in values):
            raise LongtailError(
                f"{locator.source!r}: column {column!r} holds no class names: name another, label_column=NAME.",
                options={"label_column=NAME": "--label-column"},
            )
        return values, of_row, []
    names: list[str] = feature.names
    for place, number in enumerate(values):
        if isinstance(number, int) and number >= len(names):
            where = locator.row(part.name or "all", int(part.rows[(of_row == place).argmax()]))
            raise LongtailError(
                f"{where}: the label is {number}, but the column {column!r} names the classes 0 to {len(names) - 1} "
                "only; write the table again with the names of all classes."
            )
    return [names[value] if isinstance(value, int) and value >= 0 else None for value in values], of_row, names


def merged_names(spellings: Mapping[str, Collection[str]]) -> list[Finding]:
    r"""Return a finding if class names of different spelling were merged.

    Args:
        spellings: The spellings in the source, by class name.

    Example:
        >>> print(*merged_names({"cat": {"cat", "cat "}, "dog": {"dog"}}))
        1 class is spelled in more than one way ('cat' and 'cat '), and was read as one: use one spelling.
    """
    several = [sorted(names) for names in spellings.values() if len(names) > 1]
    if not several:
        return []
    ways = ", ".join(" and ".join(map(ascii, names)) for names in several[:_SHOWN])
    more = ", ..." if len(several) > _SHOWN else ""
    classes, were = ("1 class is", "was") if len(several) == 1 else (f"{len(several):,} classes are", "each was")
    message = f"{classes} spelled in more than one way ({ways}{more}), and {were} read as one"
    return [Finding("note", message, "use one spelling", "class-spellings")]


def _image_table(
    table: datasets.Dataset, image: str, label: str, where: str, root: Path | None
) -> tuple[datasets.Dataset, pa.ChunkedArray | None]:
    """Return the table without its label column, and with its undecoded image column named ``image``.

    Where all images are files, their paths come with it, as the table holds them.
    """
    import datasets

    feature = table.features[image]
    unused = {label, "image"} - {image}
    table = table.remove_columns([name for name in table.column_names if name in unused])
    if image != "image":
        table = table.rename_column(image, "image")
    paths = None
    if isinstance(feature, datasets.Value) and feature.dtype in {"string", "large_string"}:
        table = _with_absolute_paths(table, (root or Path()).absolute())
        stored = arrow_column(table, "image")
        paths = None if stored.null_count else stored
    try:
        return table.cast_column("image", datasets.Image(decode=False)), paths
    except (TypeError, ValueError, NotImplementedError):
        raise LongtailError(f"{where!r}: column {image!r} holds no image bytes or paths: name another.") from None


def _with_labels(table: datasets.Dataset, numbers: IntArray) -> datasets.Dataset:
    """Return the table with these labels; a column ``label`` that the user did not choose as such is renamed."""
    if "label" in table.column_names:
        unused = "label_"
        while unused in table.column_names:
            unused += "_"
        table = table.rename_column("label", unused)
    return table.add_column("label", numbers)


def _with_absolute_paths(table: datasets.Dataset, root: Path) -> datasets.Dataset:
    """Return a table of text and numbers with the paths in its column ``image`` made absolute."""
    import datasets

    rows = table.with_format("arrow")[:]
    paths = text_column(str(root / path.as_py()) if path.is_valid else None for path in rows.column("image"))
    rows = rows.set_column(rows.column_names.index("image"), "image", paths)
    features = datasets.Features(table.features | {"image": datasets.Value("string")})
    return datasets.Dataset(datasets.table.InMemoryTable(rows), info=datasets.DatasetInfo(features=features))


@dataclass(frozen=True)
class Locator:
    """Locates rows of a source in errors.

    Attributes:
        source: SOURCE as the user typed it, or the file.
        lines: Line number of each row of a text file; empty for other tables.

    Example:
        >>> Locator("birds.csv", (2, 5)).row("train", 1), Locator("parquet:birds").row("test", 1)
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


def column_texts(table: datasets.Dataset, column: str) -> tuple[list[str], IntArray]:
    """Return the different values of a column as text, in order of appearance, and which of them each row has.

    Of a ``ClassLabel`` they are its names; a missing value is empty.
    """
    import datasets

    values, numbers = distinct_values(arrow_column(table, column))
    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        values = [names[value] if isinstance(value, int) and 0 <= value < len(names) else None for value in values]
    texts = ["" if value is None else str(value) for value in values]
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return [*place], np.array([place[text] for text in texts], dtype=np.int64)[numbers]
