"""The columns of image, label and split of a table: found by their usual names, read as text, located in errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from longtail.counts import IntArray
from longtail.data.columns import arrow_column, distinct_values
from longtail.data.decode import is_image_path
from longtail.errors import LongtailError, UsageError, nearest

if TYPE_CHECKING:
    import datasets

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
_COLUMNS = (
    "split part partition set subset fold fold_name split_name split_set data_split dataset_split data_set phase usage"
)
SPLIT_COLUMNS = tuple(_COLUMNS.split())
_USUAL = {"image": IMAGE_COLUMNS, "label": LABEL_COLUMNS, "split": SPLIT_COLUMNS}


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
