"""From Hugging Face tables to an ImageData: which column is the image, which the label, what each label means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longtail.counts import IntArray
from longtail.data.image_data import SPLIT_NAMES, Finding, ImageData, Split
from longtail.errors import LongtailError, nearest

if TYPE_CHECKING:
    import datasets

IMAGE_COLUMNS = ("image", "img", "path", "file", "file_name", "filename", "image_path", "filepath", "jpg", "png")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "class_name", "category", "target", "species", "y")
SPLIT_ALIASES: Mapping[str, str] = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_SHOWN = 5  # names listed in one sentence


@dataclass(frozen=True)
class Columns:
    """The column names a user gave; None where they are to be found.

    Example:
        >>> Columns(label="species").find("label", ["file", "species", "label"], "birds.csv")
        'species'
        >>> Columns().find("image", ["file", "species", "label"], "birds.csv")
        'file'
    """

    image: str | None = None
    label: str | None = None

    def find(self, role: str, names: Sequence[str], where: str) -> str:
        """Return the column of ``role`` (``"image"`` or ``"label"``) among ``names``.

        Raises:
            LongtailError: The column asked for is not there, or none looks like it.
        """
        asked, usual = (self.image, IMAGE_COLUMNS) if role == "image" else (self.label, LABEL_COLUMNS)
        if asked is not None:
            if asked not in names:
                raise LongtailError(f"{where!r} has no column {asked!r}.{nearest(asked, names)}")
            return asked
        lowered = {name.strip().lower(): name for name in reversed(names)}
        for name in usual:
            if name in lowered:
                return lowered[name]
        listed = ", ".join(names) or "none"
        raise LongtailError(
            f"{where!r} has no column that looks like the {role} ({listed}): name it, {role}_column=NAME.",
            options={f"{role}_column=NAME": f"--{role}-column"},
        )


def split_name(name: str) -> str | None:
    """The name we use for a split, or None for a word that means none.

    Example:
        >>> split_name("Val"), split_name("holdout")
        ('validation', None)
    """
    return SPLIT_ALIASES.get(name.strip().lower())


def from_tables(
    source: str, tables: Mapping[str, datasets.Dataset], columns: Columns, *, root: Path | None = None
) -> ImageData:
    """Turn Hugging Face tables, one a split, into an ImageData with labels 0 .. C-1 by name.

    Args:
        source: What the user typed.
        tables: Split name, in any of the usual spellings, to table.
        columns: The columns the user named.
        root: The folder that image paths stored as text are relative to.

    Raises:
        LongtailError: No such columns, a training image without a label, or labels of an unusable type.
    """
    renamed = _named_splits(source, tables)
    ready, labels, orders = {}, {}, []
    findings: list[Finding] = []
    for name, table in renamed.items():
        image = columns.find("image", table.column_names, source)
        label = columns.find("label", table.column_names, source)
        texts, order = _label_texts(table, label, source)
        missing = np.flatnonzero([text is None for text in texts])
        if len(missing) and len(missing) == len(texts) and name != "train":
            message = f"the {name} split has no labels and is left out"
            findings.append(Finding("note", message, "label it to use it", "no-labels"))
            continue
        if len(missing):
            raise LongtailError(f"{source!r}, {name} row {missing[0]}: the label is missing; give it one or drop it.")
        ready[name], labels[name] = _image_table(table, image, label, source, root), texts
        orders.append(order)
    classes = _union(orders, list(labels.values()))
    index = {text: number for number, text in enumerate(classes)}
    splits = {}
    for name, table in ready.items():
        numbers = np.array([index[text] for text in labels[name] if text is not None], dtype=np.int64)
        splits[name] = Split(_with_labels(table, numbers), root=str(root) if root else "")
    return ImageData(source, tuple(classes), splits, (*findings, *untrained(classes, splits)))


def untrained(classes: Sequence[str], splits: Mapping[str, Split]) -> list[Finding]:
    """One finding for each held-out split that shows classes without a training image."""
    seen = set(splits["train"].labels.tolist()) if "train" in splits else set()
    findings = []
    for name, split in splits.items():
        lacking = sorted(set(split.labels.tolist()) - seen)
        if lacking and name != "train":
            words = ", ".join(repr(classes[label]) for label in lacking[:_SHOWN]) + (
                ", ..." if len(lacking) > _SHOWN else ""
            )
            message = f"{name} has images of {words} but training has none, so that no model can learn it"
            remedy = f"add training images, or take the class out of {name}"
            findings.append(Finding("warning", message, remedy, "class-untrained"))
    return findings


def _named_splits(source: str, tables: Mapping[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    found: dict[str, datasets.Dataset] = {}
    for name, table in tables.items():
        ours = split_name(name)
        if ours in found:
            raise LongtailError(f"{source!r} has two splits that mean {ours!r}: rename or remove one.")
        if ours is not None:
            found[ours] = table
    if not found and len(tables) == 1:
        found["train"] = next(iter(tables.values()))
    if "train" not in found:
        raise LongtailError(f"{source!r} has no split named train (it has {', '.join(tables) or 'none'}): rename one.")
    return {name: found[name] for name in SPLIT_NAMES if name in found}


def _label_texts(table: datasets.Dataset, column: str, source: str) -> tuple[list[str | None], list[str] | None]:
    """Every label as text (None where missing), and the order of classes if the table states one."""
    import datasets

    feature = table.features[column]
    values = table.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    if isinstance(feature, datasets.ClassLabel):
        names = [str(name) for name in feature.names]
        return [None if value is None or value < 0 else names[value] for value in values], names
    if any(isinstance(value, (list, dict, float, bytes)) for value in values):
        raise LongtailError(
            f"{source!r}: column {column!r} holds no class names: name another, label_column=NAME.",
            options={"label_column=NAME": "--label-column"},
        )
    return [None if value is None or value == "" else str(value) for value in values], None


def _union(orders: Sequence[list[str] | None], texts: Sequence[Sequence[str | None]]) -> list[str]:
    """Class names in training order; names that only another split knows come after, and unordered ones are sorted."""
    seen = {text for split in texts for text in split if text is not None}
    stated = list(dict.fromkeys(name for order in orders if order is not None for name in order))
    rest = seen - set(stated)
    numeric = all(text.removeprefix("-").isdecimal() for text in rest)
    return stated + (sorted(rest, key=int) if numeric else sorted(rest))


def _image_table(table: datasets.Dataset, image: str, label: str, source: str, root: Path | None) -> datasets.Dataset:
    """The table with its image column named ``image`` and undecoded, and without its label column."""
    import datasets

    kept = table.remove_columns([label])
    kind = kept.features[image]
    if image != "image":
        if "image" in kept.column_names:
            kept = kept.remove_columns(["image"])
        kept = kept.rename_column(image, "image")
    if isinstance(kind, datasets.Value) and kind.dtype in {"string", "large_string"}:
        paths = kept.select_columns(["image"]).with_format("arrow")[:].column(0).to_pylist()
        absolute = [None if path is None else str((root or Path()).absolute() / path) for path in paths]
        spare = _free_name("path", kept.column_names)  # added first: a table without columns forgets its length
        kept = kept.add_column(spare, absolute).remove_columns(["image"]).rename_column(spare, "image")
    try:
        return kept.cast_column("image", datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError):
        raise LongtailError(f"{source!r}: column {image!r} holds no image bytes or paths: name another.") from None


def _with_labels(table: datasets.Dataset, labels: IntArray) -> datasets.Dataset:
    if "label" in table.column_names:  # another column of that name, when the user chose a different one
        table = table.rename_column("label", _free_name("label_", table.column_names))
    return table.add_column("label", labels)


def _free_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name
