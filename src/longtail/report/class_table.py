"""What the page knows of each class, once: its search, its hover texts and its table of classes read it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from longtail.analysis.confusions import confused_pairs, nearest_confusions
from longtail.compare.table import Comparison, Row
from longtail.counts import FEW_IMAGES, GROUP_NAMES
from longtail.report.plots.palette import GROUP_LABELS
from longtail.report.sections.hardest import class_intervals, class_recalls, data_uri, mean_recalls, tested_images
from longtail.run.result import ExampleImage, RunResult

CONFUSIONS = 3


"""Classes that a class is most often taken for, kept of each."""


def class_table(comparison: Comparison) -> dict[str, Any]:
    """Everything about each class, as compact as JSON gets.

    Returns:
        ``names``, ``groups`` (an index into ``group_names`` and ``group_labels``), ``train`` and ``test`` (images),
        ``split``, ``words`` (what is said of a class with so few test images), ``runs`` (each with ``label``,
        ``recall``, ``low`` and ``high`` in tenths of a percent, None where not measured, and ``taken``: index and
        percent in turn; ``train`` and ``groups`` of its own where it had other images), and ``images``, ``examples``
        and ``left_out`` of :class:`longtail.report.class_table.ClassPictures`, hardest classes first.
    """
    rows, run = comparison.final, comparison.final[0].runs[0]
    tested = tested_images(rows, comparison.split)
    recalls = mean_recalls([class_recalls(row, comparison.split) for row in rows])
    return {
        "names": list(run.counts.names),
        "groups": _groups(run),
        "group_names": list(GROUP_NAMES),
        "group_labels": [GROUP_LABELS[name] for name in GROUP_NAMES],
        "train": list(run.counts.counts),
        "test": tested.tolist(),
        "split": comparison.split or "",
        "words": {str(one): _few_words(one) for one in sorted(set(tested.tolist())) if 0 < one < FEW_IMAGES},
        "runs": [_row(row, comparison) for row in rows],
        **asdict(class_pictures(rows, np.lexsort((run.counts.array, recalls)).tolist())),
    }


def table_json(comparison: Comparison) -> str:
    """The table for a script element: ``<`` is escaped, so that no name can end the element."""
    text = json.dumps(class_table(comparison), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _few_words(images: int) -> str:
    return f"{images} test image{'' if images == 1 else 's'}: too few to tell"


def _row(row: Row, comparison: Comparison) -> dict[str, Any]:
    recall, ends = class_recalls(row, comparison.split), class_intervals(row, comparison.split)
    found: dict[str, Any] = {"label": row.label, "recall": [None if np.isnan(one) else _tenths(one) for one in recall]}
    if any(ends):
        found["low"] = [None if pair is None else _tenths(pair[0]) for pair in ends]
        found["high"] = [None if pair is None else _tenths(pair[1]) for pair in ends]
    first, mine = comparison.final[0].runs[0], row.runs[0]
    if mine.counts.counts != first.counts.counts:
        found |= {"train": list(mine.counts.counts), "groups": _groups(mine)}
    known = [run.predictions for run in row.runs if run.predictions is not None]
    if known and comparison.split == "test":
        labels, answers = (np.concatenate([getattr(one, name) for one in known]) for name in ("label", "prediction"))
        size = len(mine.counts)
        nearest = nearest_confusions(confused_pairs(labels, answers, size), size, limit=CONFUSIONS)
        shares = np.nan_to_num(100 * nearest.share).round().astype(int)
        found["taken"] = [
            [value for other, share in zip(*pair, strict=True) if other >= 0 for value in (other, share)]
            for pair in zip(nearest.prediction.tolist(), shares.tolist(), strict=True)
        ]
    return found


def _groups(run: RunResult) -> list[int]:
    return [GROUP_NAMES.index(name) for name in run.group_of]


def _tenths(value: float) -> int:
    return round(1000 * float(value))


PICTURES = 4


"""Training images of a class, and errors of each configuration on it."""


BUDGET = 4_000_000


"""Bytes of all pictures in the page."""


LIGHT_PICTURE = 900


"""A stored PNG above this many bytes is embedded as WebP."""


Entry = list[int]


Numbered = tuple[int, ExampleImage]


"""A picture with the number of its configuration, -1 for a training image."""


@dataclass(frozen=True)
class ClassPictures:
    """What the page shows of classes.

    Attributes:
        images: Data URIs.
        examples: By class index, as JSON keys are: each picture as its place in ``images``, and for a test image
            classified wrongly the number of the configuration, the class it is taken for, and the confidence in tenths
            of a percent. Training images come first.
        left_out: Classes with pictures, none of which had room.
    """

    images: list[str] = field(default_factory=list)
    examples: dict[str, list[Entry]] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)


def class_pictures(rows: Sequence[Row], order: Iterable[int]) -> ClassPictures:
    """Embed pictures until their bytes are spent: one of every class before a second of any.

    Args:
        rows: Finished configurations.
        order: Class indices, the most important first.
    """
    kept = _by_class(rows)
    queues = [(index, list(_queue(kept[index]))) for index in order if index in kept]
    found, places, spent = ClassPictures(), dict[bytes, int](), 0
    for index, (number, one) in _rounds(queues):
        if one.image not in places:
            uri = data_uri(one.image, light=LIGHT_PICTURE)
            spent += len(uri)
            if spent > BUDGET:
                break
            places[one.image] = len(found.images)
            found.images.append(uri)
        said = [] if one.role == "train" else [number, one.prediction, round(1000 * one.confidence)]
        found.examples.setdefault(str(index), []).append([places[one.image], *said])
    for entries in found.examples.values():
        entries.sort(key=lambda entry: entry[1] if len(entry) > 1 else -1)
    found.left_out.extend(index for index, _ in queues if str(index) not in found.examples)
    return found


def _by_class(rows: Sequence[Row]) -> dict[int, list[list[ExampleImage]]]:
    """The pictures of each class, one list a configuration."""
    kept: dict[int, list[list[ExampleImage]]] = defaultdict(lambda: [[] for _ in rows])
    for number, row in enumerate(rows):
        for run in row.runs:
            for one in run.examples:
                kept[one.label][number].append(one)
    return kept


def _queue(found: Sequence[Sequence[ExampleImage]]) -> Iterator[Numbered]:
    """Training images from the configuration with most of them, and the errors of every one, in turns."""
    train = max((_some(each, "train") for each in found), key=len)
    errors = [[(number, one) for one in _some(each, "error")] for number, each in enumerate(found)]
    for turn in zip_longest([(-1, one) for one in train], *errors):
        yield from (one for one in turn if one is not None)


def _some(found: Sequence[ExampleImage], role: str) -> list[ExampleImage]:
    """The first few, each image once: several seeds may err on the same."""
    once: dict[bytes, ExampleImage] = {}
    for one in found:
        if one.role == role and (role == "train" or one.prediction >= 0):
            once.setdefault(one.image, one)
    return list(once.values())[:PICTURES]


def _rounds(queues: Sequence[tuple[int, list[Numbered]]]) -> Iterator[tuple[int, Numbered]]:
    """The first picture of every class, then the second of every class that has one, and so on."""
    for place in range(max((len(queue) for _, queue in queues), default=0)):
        yield from ((index, queue[place]) for index, queue in queues if place < len(queue))
