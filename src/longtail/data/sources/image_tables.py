"""Image tables to an ImageData: their splits, the class names behind their labels, and what is to be said of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longtail.counts import IntArray
from longtail.data.class_names import names_class, no_class_names, normalize_class_name, order_classes
from longtail.data.columns import arrow_column, distinct_values, in_memory, text_column
from longtail.data.dataset import Finding, ImageData, Split
from longtail.data.sources.table_columns import (
    Columns,
    Locator,
)
from longtail.data.sources.table_paths import locate
from longtail.data.sources.table_splits import Part, divide
from longtail.data.splits import drop_repeats
from longtail.errors import LongtailError, listed

if TYPE_CHECKING:
    import datasets

_SHOWN = 5  # names listed in one sentence


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
    images: dict[int, Split] = {}  # of a table, which splits may share
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
    numbers = {key: np.full(len(whole), -1, dtype=np.int64) for key, whole in images.items()}
    for split, of_split in names.items():
        number_of = np.array([index[name] for name in of_split], dtype=np.int64)
        numbers[id(parts[split].table)][parts[split].rows] = number_of[of_row[split]]
    splits = {}
    for split in names:
        key, rows = id(parts[split].table), parts[split].rows
        table = images[key].rows.add_column("label", numbers[key])  # before selecting, or all images would be copied
        table = table if len(rows) == len(table) else table.select(rows)
        splits[split] = replace(images[key], rows=table, root=str(root) if root else "", origin=rows)
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
        if pa.types.is_nested(stored.type) or not all(map(names_class, values)):
            raise no_class_names(locator.source, column)
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


def _image_table(table: datasets.Dataset, image: str, label: str, where: str, root: Path | None) -> Split:
    """Return the table without its label column, and with its undecoded image column named ``image``.

    Where all images are files, their paths come with it, as the table holds them. Other columns ``image`` and ``label``
    are renamed.
    """
    import datasets

    feature, renamed = table.features[image], dict[str, str]()
    table = table.remove_columns([label])
    for name in {"image", "label"}.intersection(table.column_names) - {image}:  # not those that the user chose
        renamed[name] = f"{name}_"
        while renamed[name] in table.column_names:
            renamed[name] += "_"
        table = table.rename_column(name, renamed[name])
    if image != "image":
        table = table.rename_column(image, "image")
    paths = None
    if isinstance(feature, datasets.Value) and feature.dtype in {"string", "large_string"}:
        table = _with_absolute_paths(table, (root or Path()).absolute())
        stored = arrow_column(table, "image")
        paths = None if stored.null_count else stored
    try:
        return Split(table.cast_column("image", datasets.Image(decode=False)), paths=paths, renamed=renamed)
    except (TypeError, ValueError, NotImplementedError):
        raise LongtailError(f"{where!r}: column {image!r} holds no image bytes or paths: name another.") from None


def _with_absolute_paths(table: datasets.Dataset, root: Path) -> datasets.Dataset:
    """Return a table of text and numbers with the paths in its column ``image`` made absolute."""
    import datasets

    rows = table.with_format("arrow")[:]
    texts = (path.as_py() for path in rows.column("image"))
    paths = text_column(None if text is None else str(Path(locate(root, text))) for text in texts)
    rows = rows.set_column(rows.column_names.index("image"), "image", paths)
    features = datasets.Features(table.features | {"image": datasets.Value("string")})
    return in_memory(rows, features)
