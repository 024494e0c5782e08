"""What the page knows of each class, once: its search, its hover texts and its table of classes read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.counts import FEW_IMAGES, GROUP_NAMES
from longtail.report.compare import Comparison, Row
from longtail.report.hardest import class_intervals, class_recalls, data_uri, tested_images
from longtail.report.palette import GROUP_LABELS
from longtail.report.runs import ExampleImage, RunResult
from longtail.report.text import class_word, percent

CONFUSIONS = 3
"""Classes that a class is most often taken for, kept of each."""
PICTURES = 4
EXAMPLE_BYTES = 400_000
"""Pictures are embedded for as many classes, hardest first, as this holds."""
LIGHT_PICTURE = 900
"""A stored picture above this many bytes is embedded as WebP."""


@dataclass(frozen=True)
class Confusions:
    """The most frequent wrong answers for each class.

    Attributes:
        taken: Class indices, shape (C, K), most frequent first; -1 where there are no more.
        share: Share of the images of the class in [0, 1], shape (C, K).
    """

    taken: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]


def class_table(comparison: Comparison) -> dict[str, Any]:
    """Everything about each class, as compact as JSON gets.

    Returns:
        ``names``, ``groups`` (an index into ``group_names`` and ``group_labels``), ``train`` and ``test`` (images),
        ``split``, ``words`` (what is said of a class with so few test images), ``runs`` (each with ``label``,
        ``recall``, ``low`` and ``high`` in tenths of a percent, None where not measured, and ``taken``: index and
        percent in turn; ``train`` and ``groups`` of its own where it had other images) and ``examples`` (pictures by
        class index).
    """
    rows, run = comparison.final, comparison.final[0].runs[0]
    tested = tested_images(rows, comparison.split)
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
        "examples": _examples(comparison),
    }


def table_json(comparison: Comparison) -> str:
    """The table for a script element: ``<`` is escaped, so that no name can end the element."""
    text = json.dumps(class_table(comparison), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def nearest_confusions(
    label: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64], size: int, *, limit: int = CONFUSIONS
) -> Confusions:
    """What each class is most often taken for; of equally frequent answers the class of lower index comes first.

    Args:
        label: Class of each image, shape (N,).
        prediction: Class it was taken for, shape (N,).
        size: Number of classes C.
        limit: Answers to keep of each class, K.

    Example:
        >>> found = nearest_confusions(np.array([0, 0, 0, 0]), np.array([0, 2, 2, 1]), 3, limit=2)
        >>> found.taken.tolist(), found.share[0].tolist()
        ([[2, 1], [-1, -1], [-1, -1]], [0.5, 0.25])
    """
    wrong = label != prediction
    pairs, tally = np.unique(label[wrong] * size + prediction[wrong], return_counts=True)
    order = np.lexsort((pairs, -tally, pairs // size))
    classes, others, tally = pairs[order] // size, pairs[order] % size, tally[order]
    rank = np.arange(len(classes)) - np.searchsorted(classes, classes)
    kept = rank < limit
    images = np.bincount(label, minlength=size)
    taken, share = np.full((size, limit), -1, dtype=np.int64), np.zeros((size, limit))
    taken[classes[kept], rank[kept]] = others[kept]
    share[classes[kept], rank[kept]] = tally[kept] / images[classes[kept]]
    return Confusions(taken, share)


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
        nearest = nearest_confusions(labels, answers, len(mine.counts))
        shares = (100 * nearest.share).round().astype(int)
        found["taken"] = [
            [value for other, share in zip(*pair, strict=True) if other >= 0 for value in (other, share)]
            for pair in zip(nearest.taken.tolist(), shares.tolist(), strict=True)
        ]
    return found


def _groups(run: RunResult) -> list[int]:
    return [GROUP_NAMES.index(name) for name in run.group_of]


def _tenths(value: float) -> int:
    return round(1000 * float(value))


def _examples(comparison: Comparison) -> dict[str, list[dict[str, str]]]:
    """Pictures of the classes, hardest first, until their bytes are spent."""
    rows = comparison.final
    recalls = np.stack([class_recalls(row, comparison.split) for row in rows])
    known = ~np.isnan(recalls)
    mean = np.where(known, recalls, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    pictured = {one.label for row in rows for run in row.runs for one in run.examples}
    found: dict[str, list[dict[str, str]]] = {}
    spent = 0
    for index in sorted(pictured, key=lambda index: (float(mean[index]), index)):
        pictures = list(_pictures(rows, index))
        spent += sum(len(one["uri"]) for one in pictures)
        if spent > EXAMPLE_BYTES:
            break
        found[str(index)] = pictures
    return found


def _pictures(rows: Sequence[Row], index: int) -> Iterator[dict[str, str]]:
    """Training images of a class from the first run that has some, then what each configuration took for another."""
    names = rows[0].runs[0].counts.names
    of_class = [[one for run in row.runs for one in run.examples if one.label == index] for row in rows]
    train = next((kept for found in of_class if (kept := _first(found, "train"))), [])
    for one in train:
        yield _picture(one, "training image", f"training image of {class_word(names[index])}")
    for row, found in zip(rows, of_class, strict=True):
        for one in _first(found, "error"):
            other = class_word(names[one.prediction])
            said = f"{class_word(names[index])}, taken for {other} at {percent(one.confidence)} confidence"
            yield _picture(one, f"{row.label}: {other}", f"{said} under {row.label}")


def _first(found: Sequence[ExampleImage], role: str) -> list[ExampleImage]:
    return [one for one in found if one.role == role and (role == "train" or one.prediction >= 0)][:PICTURES]


def _picture(one: ExampleImage, caption: str, alt: str) -> dict[str, str]:
    return {"uri": data_uri(one.image, light=LIGHT_PICTURE), "caption": caption, "alt": alt}
