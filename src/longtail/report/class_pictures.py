"""The pictures of every class that the page embeds, each once, as many as a number of bytes holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from longtail.report.compare import Row
from longtail.report.hardest import data_uri
from longtail.report.runs import ExampleImage

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
