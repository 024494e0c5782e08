"""Match the classes of a source to those of a model by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from longtail.counts import IntArray
from longtail.data.class_names import normalize_class_name
from longtail.data.dataset import ImageData, Split
from longtail.errors import LongtailError, nearest


def match_classes(data: ImageData, classes: Sequence[str]) -> ImageData:
    """Renumber the labels of a source to those of a model, matched by class name.

    Args:
        data: The source; its order of classes does not matter, nor do classes without an image.
        classes: The class names of the model, C of them, in its order.

    Returns:
        The source with the classes of the model, followed, from C on, by classes with images that the model does not
        know.

    Example:
        >>> split = Split.from_arrays(np.zeros((3, 2, 2), np.uint8), [1, 2, 2])
        >>> matched = match_classes(ImageData("mine", ("ant", "bee", "cat"), {"train": split}), ["bee", "owl"])
        >>> matched.classes, matched.splits["train"].labels.tolist()
        (('bee', 'owl', 'cat'), [0, 2, 2])
    """
    numbers = {normalize_class_name(name): number for number, name in reversed([*enumerate(classes)])}
    numbers |= {name: number for number, name in enumerate(classes)}
    shown = {label for split in data.splits.values() for label in np.unique(split.labels).tolist()}
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
    splits = {name: _numbered(split, table[split.labels]) for name, split in data.splits.items()}
    return replace(data, classes=names, splits=splits)


def require_known(data: ImageData, split: Split, classes: Sequence[str]) -> None:
    """Check that a split of a matched source has only classes that the model knows.

    Raises:
        LongtailError: It has others; the message names the first one and the most similar known class.
    """
    unknown = split.labels[split.labels >= len(classes)]
    if len(unknown):
        name = data.classes[unknown.min()]
        raise LongtailError(
            f"{data.source!r} has images of the class {name!r}, which the model was not trained on."
            f"{nearest(name, classes)}"
        )


def _numbered(split: Split, labels: IntArray) -> Split:
    return replace(split, rows=split.rows.remove_columns("label").add_column("label", labels))
