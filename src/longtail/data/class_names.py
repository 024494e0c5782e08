"""Class names: normalization, order, and matching those of a source to those of a model."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from longtail.data.dataset import ImageData, Split
from longtail.errors import LongtailError, nearest

# White space of every script, and zero-width characters that editors leave at the ends of a cell.
_BLANK = re.compile(r"^[\s\ufeff\u200b\u2060]+|[\s\ufeff\u200b\u2060]+$")
_WHOLE = re.compile(r"-?\d+")
_WHOLE_FLOAT = re.compile(r"(-?\d+)(?:\.0)?")
_MOST_DIGITS = 1000  # Python refuses to read a number of some thousand digits


def normalize_class_name(label: object) -> str:
    r"""Normalize a class name: Unicode normal form C, without surrounding white space.

    Args:
        label: A name, or a number from a table. A float that is a whole number is written as an integer, since a column
            of integers with a missing value becomes floats. None and NaN give an empty name.

    Returns:
        The name; empty where the label is missing.

    Example:
        >>> normalize_class_name("  Cafe\u0301\u00a0") == "Caf\u00e9"
        True
        >>> normalize_class_name(3), normalize_class_name(3.0), normalize_class_name(True), normalize_class_name("3.0")
        ('3', '3', 'True', '3.0')
        >>> normalize_class_name(None), normalize_class_name(float("nan"))
        ('', '')
    """
    if label is None or label != label:  # only NaN differs from itself
        return ""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return unicodedata.normalize("NFC", _BLANK.sub("", str(label)))


def names_class(label: object) -> bool:
    """Whether a label as stored can name one class: not a list or the like, raw bytes, or a fraction, a measurement.

    Example:
        >>> names_class("cat"), names_class(3.0), names_class(None), names_class(0.5), names_class(["cat", "lynx"])
        (True, True, True, False, False)
    """
    is_fraction = isinstance(label, float) and label == label and not label.is_integer()  # NaN is a missing label
    return not is_fraction and not isinstance(label, list | dict | bytes)


def no_class_names(source: str, column: str) -> LongtailError:
    """Return the error for a column of labels that name no class.

    Example:
        >>> print(no_class_names("birds.parquet", "size"))
        'birds.parquet': column 'size' holds no class names: name another, label_column=NAME.
    """
    return LongtailError(
        f"{source!r}: column {column!r} holds no class names: name another, label_column=NAME.",
        options={"label_column=NAME": "--label-column"},
    )


def order_classes(names: Iterable[str]) -> list[str]:
    """Sort class names: by value if all of them are whole numbers, else alphabetically.

    The order depends on the names alone: names of one value (``1`` and ``01``) are sorted as text.

    Args:
        names: Class names, in any order; duplicates count once.

    Example:
        >>> order_classes({"10", "9", "1", "01", "-0", "0"})
        ['-0', '0', '01', '1', '9', '10']
        >>> order_classes(["lynx", "10", "9"])
        ['10', '9', 'lynx']
    """
    distinct = set(names)
    if all(len(name) <= _MOST_DIGITS and _WHOLE.fullmatch(name) for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def plain_numbers(names: Sequence[str]) -> list[str]:
    """Name whole numbers by their digits if all names are whole numbers, some of them written as ``3.0``.

    So pandas writes a column of whole numbers from which a value was missing.

    Example:
        >>> plain_numbers(["3.0", "10", "-1.0"]), plain_numbers(["3.0", "3.5"]), plain_numbers(["3.0", "lynx"])
        (['3', '10', '-1'], ['3.0', '3.5'], ['3.0', 'lynx'])
    """
    matches = [_WHOLE_FLOAT.fullmatch(name) for name in names]
    return [match[1] for match in matches if match] if all(matches) else list(names)


def joined_names(names: Sequence[str]) -> list[str]:
    """Find names that look like several class names joined, as for images with more than one label.

    The parts between commas, semicolons or bars must each be a name too; between bars or semicolons it is enough that
    another such name has them.

    Example:
        >>> joined_names(["cat", "dog", "cat|dog", "wolf, gray"])
        ['cat|dog']
        >>> joined_names(["cat;dog", "dog;emu", "cat;emu"])
        ['cat;dog', 'dog;emu', 'cat;emu']
    """
    parts_of = {
        (name, separator): tuple(map(normalize_class_name, name.split(separator)))
        for name in names
        for separator in "|;,"
        if separator in name
    }
    alone = set(names)
    repeated = Counter(
        part for (_, separator), parts in parts_of.items() if separator != "," for part in dict.fromkeys(parts)
    )
    joined = [
        name
        for (name, separator), parts in parts_of.items()
        if all(part in alone or (separator != "," and repeated[part] > 1) for part in parts)
    ]
    return list(dict.fromkeys(joined))


def match_classes(data: ImageData, classes: Sequence[str]) -> ImageData:
    """Renumber the labels of a source to those of a model, matched by class name.

    Whole numbers match however they are written, see :func:`plain_numbers`.

    Args:
        data: The source; its order of classes does not matter, nor do classes without an image.
        classes: The class names of the model, C of them, in its order.

    Returns:
        The source with the classes of the model, followed, from C on, by classes with images that the model lacks.

    Example:
        >>> split = Split.from_arrays(np.zeros((3, 2, 2), np.uint8), [1, 2, 2])
        >>> matched = match_classes(ImageData("mine", ("ant", "bee", "cat"), {"train": split}), ["bee", "owl"])
        >>> matched.classes, matched.splits["train"].labels.tolist()
        (('bee', 'owl', 'cat'), [0, 2, 2])
    """
    normalized = list(map(normalize_class_name, classes))
    numbers: dict[str, int] = {}
    for spellings in (classes, normalized, plain_numbers(normalized)):  # the exact names first
        for place, spelling in enumerate(spellings):
            numbers.setdefault(spelling, place)
    shown = {label for split in data.splits.values() for label in split.shown_classes()}
    table = np.full(len(data.classes), -1, dtype=np.int64)
    unknown: list[str] = []
    for label, name in enumerate(data.classes):
        number = numbers.get(name, numbers.get(normalize_class_name(name)))
        if number is not None:
            table[label] = number
        elif label in shown:
            table[label] = len(classes) + len(unknown)
            unknown.append(name)
    names = (*classes, *unknown)
    if all(table[label] == label for label in shown):  # the usual case: nothing is copied
        return replace(data, classes=names)
    splits = {
        name: replace(split, rows=split.rows.remove_columns("label").add_column("label", table[split.labels]))
        for name, split in data.splits.items()
    }
    return replace(data, classes=names, splits=splits)


def require_known(data: ImageData, split: Split, classes: Sequence[str]) -> None:
    """Check that a split of a matched source has only classes that the model knows.

    Raises:
        LongtailError: It has others; the message names the first one and the most similar known class.
    """
    unknown = [label for label in split.shown_classes() if label >= len(classes)]
    if unknown:
        name = data.classes[unknown[0]]
        raise LongtailError(
            f"{data.source!r} has images of the class {name!r}, which the model was not trained on."
            f"{nearest(name, classes)}"
        )
