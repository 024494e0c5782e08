"""Tables to an ImageData: the columns of image and label, and the class names behind the labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longtail.counts import IntArray
from longtail.data.class_names import normalize_class_name, order_classes
from longtail.data.dataset import Finding, ImageData, Split
from longtail.data.decode import is_image_path
from longtail.data.sources.table_splits import Part, Place, divide, drop_repeats
from longtail.errors import LongtailError, UsageError, nearest

if TYPE_CHECKING:
    import datasets

IMAGE_COLUMNS = ("image", "img", "path", "file", "file_name", "filename", "image_path", "filepath", "jpg", "png")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "class_name", "category", "target", "species", "y")
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
        """Return the column of ``role`` (``"image"`` or ``"label"``) among ``names``.

        Raises:
            LongtailError: The column asked for does not exist, or none has a usual name.
        """
        asked, usual = (self.image, IMAGE_COLUMNS) if role == "image" else (self.label, LABEL_COLUMNS)
        lowered = {name.strip().lower(): name for name in reversed(names)}
        column = next((lowered[name] for name in usual if name in lowered), None) if asked is None else asked
        if column is not None and column in names:
            return column
        if any(is_image_path(name) for name in names):
            raise no_header(where, names)
        if asked is not None:
            raise LongtailError(f"{where!r} has no column {asked!r}.{nearest(asked, names)}")
        listed = ", ".join(names) or "none"
        raise LongtailError(
            f"{where!r} has no column that looks like the {role} ({listed}): name it, {role}_column=NAME.",
            options={f"{role}_column=NAME": f"--{role}-column"},
        )


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
    place: Place | None = None,
) -> ImageData:
    """Turn Hugging Face tables, one per split or one for all, into an ImageData with labels 0 .. C-1 by name.

    Args:
        source: SOURCE as the user typed it.
        tables: Split name, in any of the usual spellings, to table.
        columns: The columns the user named.
        root: Folder of image paths stored as text.
        place: Locates rows in errors; by default by source and row number.

    Raises:
        LongtailError: There are no such columns, a training image without a label, or labels of an unusable type.
    """
    place = place or Place(source)
    parts, findings = divide(tables, columns.split, place, (columns.image, columns.label))
    names = _Names(source, place)
    ready, labels = {}, {}
    for split, part in parts.items():
        image, label = (columns.find(role, part.table.column_names, source) for role in ("image", "label"))
        if image == label:
            raise LongtailError(f"{source!r}: the column {image!r} cannot be both image and label; name another.")
        row_names = names.of(part, label)
        missing = np.flatnonzero([name == "" for name in row_names])
        if len(missing) and len(missing) == len(row_names) and split != "train":
            message = f"the {split} split has no labels and is left out"
            findings.append(Finding("note", message, "label it to use it", "no-labels"))
            continue
        if len(missing):
            row = place.row(part.name or split, part.row(int(missing[0])))
            raise LongtailError(f"{row}: the label is missing; give it one or drop it.")
        ready[split], labels[split] = _image_table(part.table, image, label, source, root), row_names
    classes = names.in_order(labels.values())
    index = {name: number for number, name in enumerate(classes)}
    splits = {}
    for split, table in ready.items():
        numbers, origin = np.full(len(table), -1, dtype=np.int64), parts[split].origin
        numbers[slice(None) if origin is None else origin] = [index[name] for name in labels[split]]
        rows = _with_labels(table, numbers)  # before rows are selected, or all images would be copied
        rows = rows if origin is None else rows.select(origin)
        splits[split] = Split(rows, root=str(root) if root else "", origin=origin)
    splits, repeated = drop_repeats(splits, classes)
    findings += [*merged_names(names.spellings), *repeated, *untrained(classes, splits)]
    return ImageData(source, tuple(classes), splits, tuple(findings))


def untrained(classes: Sequence[str], splits: Mapping[str, Split]) -> list[Finding]:
    """Return a finding for each held-out split that has classes without a training image."""
    seen = set(splits["train"].labels.tolist()) if "train" in splits else set()
    findings = []
    for name, split in splits.items():
        lacking = sorted(set(split.labels.tolist()) - seen)
        if lacking and name != "train":
            names = _first_few([repr(classes[label]) for label in lacking])
            message = f"{name} has images of {names} but training has none, so that no model can learn it"
            remedy = f"add training images, or take the class out of {name}"
            findings.append(Finding("warning", message, remedy, "class-untrained"))
    return findings


class _Names:
    """Class names of all tables of a source, with their spellings and order."""

    def __init__(self, source: str, place: Place) -> None:
        self._source, self._place = source, place
        self._stated: dict[str, None] = {}
        self.spellings: dict[str, set[str]] = {}

    def of(self, part: Part, column: str) -> list[str]:
        """Return the class name of each row; empty if the label is missing."""
        import datasets

        feature, values = part.table.features[column], part.values(column)
        if isinstance(feature, datasets.ClassLabel):
            names = [self._spelled(name) for name in feature.names]
            self._stated |= dict.fromkeys(filter(None, names))
            return [self._numbered(value, names, row, part, column) for row, value in enumerate(values)]
        if any(_is_unusable(value) for value in values):
            raise LongtailError(
                f"{self._source!r}: column {column!r} holds no class names: name another, label_column=NAME.",
                options={"label_column=NAME": "--label-column"},
            )
        names_of = {value: self._spelled(value) for value in set(values)}
        return [names_of[value] for value in values]

    def _spelled(self, label: object) -> str:
        name = normalize_class_name(label)
        if isinstance(label, str) and name:
            self.spellings.setdefault(name, set()).add(label)
        return name

    def _numbered(self, value: object, names: Sequence[str], row: int, part: Part, column: str) -> str:
        number = value if isinstance(value, int) else -1
        if number >= len(names):
            where = self._place.row(part.name or "all", part.row(row))
            raise LongtailError(
                f"{where}: the label is {number}, but the column {column!r} names the classes 0 to {len(names) - 1} "
                "only; write the table again with the names of all classes."
            )
        return names[number] if number >= 0 else ""

    def in_order(self, labels: Iterable[Sequence[str]]) -> list[str]:
        """Return all class names: those whose order a table states, then the others, sorted."""
        seen = {name for names in labels for name in names}
        return [*self._stated, *order_classes(seen - self._stated.keys())]


def merged_names(spellings: Mapping[str, Collection[str]]) -> list[Finding]:
    r"""Return a finding if class names of different spelling were merged.

    Args:
        spellings: The spellings in the source, by class name.

    Example:
        >>> print(*merged_names({"cat": {"cat", "cat "}, "dog": {"dog"}}))
        1 class is spelled in more than one way ('cat' and 'cat '), and was read as one: use one spelling.
    """
    several = [sorted(ways) for ways in spellings.values() if len(ways) > 1]
    if not several:
        return []
    listed = _first_few([" and ".join(map(ascii, ways)) for ways in several])
    classes, were = ("1 class is", "was") if len(several) == 1 else (f"{len(several):,} classes are", "each was")
    message = f"{classes} spelled in more than one way ({listed}), and {were} read as one"
    return [Finding("note", message, "use one spelling", "class-spellings")]


def _first_few(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")


def _is_unusable(value: object) -> bool:
    """Whether a value cannot be a class name, such as a fraction, which is a measurement."""
    return isinstance(value, list | dict | bytes) or (
        isinstance(value, float) and value == value and not value.is_integer()
    )


def _image_table(table: datasets.Dataset, image: str, label: str, source: str, root: Path | None) -> datasets.Dataset:
    """Return the table without its label column, and with its undecoded image column named ``image``."""
    import datasets

    feature = table.features[image]
    unused = {label, "image"} - {image}
    table = table.remove_columns([name for name in table.column_names if name in unused])
    if image != "image":
        table = table.rename_column(image, "image")
    if isinstance(feature, datasets.Value) and feature.dtype in {"string", "large_string"}:
        table = _with_absolute_paths(table, (root or Path()).absolute())
    try:
        return table.cast_column("image", datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError):
        raise LongtailError(f"{source!r}: column {image!r} holds no image bytes or paths: name another.") from None


def _with_absolute_paths(table: datasets.Dataset, root: Path) -> datasets.Dataset:
    """Return a table of text and numbers with the paths in its column ``image`` made absolute."""
    import datasets
    import pyarrow as pa

    rows = table.with_format("arrow")[:]
    paths = [None if path is None else str(root / path) for path in rows.column("image").to_pylist()]
    rows = rows.set_column(rows.column_names.index("image"), "image", pa.array(paths, pa.string()))
    features = datasets.Features(table.features | {"image": datasets.Value("string")})
    return datasets.Dataset(datasets.table.InMemoryTable(rows), info=datasets.DatasetInfo(features=features))


def _with_labels(table: datasets.Dataset, labels: IntArray) -> datasets.Dataset:
    if "label" in table.column_names:  # another column of that name, when the user chose a different one
        unused = "label_"
        while unused in table.column_names:
            unused += "_"
        table = table.rename_column("label", unused)
    return table.add_column("label", labels)
