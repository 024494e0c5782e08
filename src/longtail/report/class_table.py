"""The classes of the page: their accuracy with intervals, and the table that its search and its panel read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from operator import itemgetter
from typing import Any

import numpy as np

from longtail.analysis.confusions import confused_pairs, nearest_confusions
from longtail.compare.seeds import mean_interval
from longtail.compare.table import Comparison, Row
from longtail.counts import FEW_IMAGES, GROUP_NAMES, FloatArray, IntArray
from longtail.report.configurations import known_predictions, pooled_predictions
from longtail.report.pictures import data_uri
from longtail.report.plots import GROUP_LABELS
from longtail.run.result import ClassResult, Ends
from longtail.run.tables import ExampleImage

CONFUSIONS = 3
"""Number of classes listed that a class is most often taken for."""
PICTURES = 4
"""Training images of a class, and errors of each configuration on it."""
BUDGET = 4_000_000
"""Bytes of all pictures in the table."""
LIGHT_PICTURE = 900
"""A stored PNG above this many bytes is embedded as WebP."""


def _class_results(row: Row, split: str | None) -> list[tuple[ClassResult, ...]]:
    """The classes of each run of a configuration that was measured on a split."""
    return [metrics.per_class for run in row.runs if (metrics := run.metrics(split)) and metrics.per_class]


def class_recalls(row: Row, split: str | None) -> FloatArray:
    """Recall per class, averaged over the seeds of a configuration, shape (C,); NaN where nothing was tested."""
    results = [[np.nan if each.recall is None else each.recall for each in run] for run in _class_results(row, split)]
    if not results:
        return np.full(len(row.runs[0].counts), np.nan)
    return np.asarray(np.mean(results, axis=0), dtype=np.float64)


def class_intervals(row: Row, split: str | None) -> list[Ends | None]:
    """The 95% interval of each class's recall, C of them: the mean of those of the seeds, None where there is none."""
    results = _class_results(row, split)
    if not results:
        return [None] * len(row.runs[0].counts)
    return [mean_interval([each.recall_interval for each in seeds]) for seeds in zip(*results, strict=True)]


def tested_images(rows: Sequence[Row], split: str | None) -> IntArray:
    """Test images per class, shape (C,), the smallest number that any run was measured on; 0 where none was."""
    results = [[each.test_count for each in run] for row in rows for run in _class_results(row, split)]
    return np.asarray(np.min(results or [[0] * len(rows[0].runs[0].counts)], axis=0), dtype=np.int64)


def mean_recalls(recalls: Sequence[FloatArray]) -> FloatArray:
    """Recall per class, averaged over the configurations that were tested on the class, shape (C,); NaN where none was.

    Args:
        recalls: Recalls of each configuration, from :func:`class_recalls`.

    Example:
        >>> mean_recalls([np.array([0.5, np.nan, np.nan]), np.array([1.0, 0.25, np.nan])]).tolist()
        [0.75, 0.25, nan]
    """
    values = np.ma.masked_invalid(np.stack(recalls))
    return np.asarray(values.mean(axis=0).filled(np.nan), dtype=np.float64)


def class_confusions(row: Row, limit: int) -> list[list[tuple[int, float]]]:
    """The ``limit`` classes that each class is taken for most often over all seeds, with the share of its images."""
    size = len(row.runs[0].counts)
    if not known_predictions(row):
        return [[]] * size
    return nearest_confusions(confused_pairs(*pooled_predictions(row), size), size, limit=limit)


def class_table(comparison: Comparison) -> dict[str, Any]:
    """Collect everything about each class, as compact as JSON gets.

    Returns:
        ``names``, ``groups`` (an index into ``group_names`` and ``group_labels``), ``train`` and ``test`` (images),
        ``split``, ``few`` (the test images below which a figure tells little), ``runs`` (each with ``label``,
        ``recall``, ``low`` and ``high`` in tenths of a percent, None where not measured, and ``taken``: index and
        percent in turn; ``train`` and ``groups`` of its own where it had other images), and ``images``, ``examples``
        and ``left_out`` of :func:`embed_pictures`, hardest classes first.
    """
    rows, run = comparison.final, comparison.final[0].runs[0]
    tested = tested_images(rows, comparison.split)
    recalls = mean_recalls([class_recalls(row, comparison.split) for row in rows])
    return {
        "names": list(run.counts.names),
        "groups": [GROUP_NAMES.index(name) for name in run.group_of],
        "group_names": list(GROUP_NAMES),
        "group_labels": [GROUP_LABELS[name] for name in GROUP_NAMES],
        "train": list(run.counts.counts),
        "test": tested.tolist(),
        "split": comparison.split or "",
        "few": FEW_IMAGES,
        "runs": [_configuration(row, comparison) for row in rows],
        **embed_pictures(rows, np.lexsort((run.counts.array, recalls)).tolist()),
    }


def table_json(comparison: Comparison) -> str:
    """The table for a script element: ``<`` is escaped, so that no name can end the element."""
    text = json.dumps(class_table(comparison), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _configuration(row: Row, comparison: Comparison) -> dict[str, Any]:
    recalls, intervals = class_recalls(row, comparison.split), class_intervals(row, comparison.split)
    columns: dict[str, Any] = {"label": row.label, "recall": [_tenths(value) for value in recalls]}
    if any(intervals):
        columns |= {
            name: [_tenths(interval[end]) if interval else None for interval in intervals]
            for end, name in enumerate(("low", "high"))
        }
    first, run = comparison.final[0].runs[0], row.runs[0]
    if run.counts.counts != first.counts.counts:
        columns |= {"train": list(run.counts.counts), "groups": [GROUP_NAMES.index(name) for name in run.group_of]}
    if comparison.split == "test" and known_predictions(row):
        nearest = class_confusions(row, CONFUSIONS)
        columns["taken"] = [[part for other, share in of for part in (other, round(100 * share))] for of in nearest]
    return columns


def _tenths(value: float) -> int | None:
    return None if np.isnan(value) else round(1000 * float(value))


def embed_pictures(rows: Sequence[Row], order: Sequence[int]) -> dict[str, Any]:
    """Embed pictures until their bytes are spent: one of every class before a second of any.

    Args:
        rows: Finished configurations.
        order: Class indices, the most important first.

    Returns:
        ``images``, data URIs; ``examples`` by class index, as JSON keys are: each picture as its place in ``images``,
        and for a test image classified wrongly the number of the configuration, the class it is taken for, and the
        confidence in tenths of a percent, training images first; and ``left_out``, classes with pictures none of which
        had room.
    """
    stored: dict[int, list[tuple[int, ExampleImage]]] = defaultdict(list)
    for number, row in enumerate(rows):
        for example in (example for run in row.runs for example in run.examples):
            stored[example.label].append((number, example))
    pictured = [index for index in order if index in stored]
    turns = [(turn, index, *entry) for index in pictured for turn, entry in enumerate(_queue(stored[index]))]
    uris, positions, spent = list[str](), dict[bytes, int](), 0
    examples: dict[str, list[list[int]]] = defaultdict(list)
    for _, index, number, example in sorted(turns, key=itemgetter(0)):
        if example.image not in positions:
            uri = data_uri(example.image, light=LIGHT_PICTURE)
            spent += len(uri)
            if spent > BUDGET:
                break
            positions[example.image] = len(uris)
            uris.append(uri)
        error = [] if number < 0 else [number, example.prediction, round(1000 * example.confidence)]
        examples[str(index)].append([positions[example.image], *error])
    for entries in examples.values():
        entries.sort(key=lambda entry: entry[1] if len(entry) > 1 else -1)
    left_out = [index for index in pictured if str(index) not in examples]
    return {"images": uris, "examples": examples, "left_out": left_out}


def _queue(stored: Sequence[tuple[int, ExampleImage]]) -> list[tuple[int, ExampleImage]]:
    """Pictures of a class with the number of their configuration, -1 for training images.

    Training images are those of the configuration with most of them; the errors of every one come in turns. Each image
    comes once for a configuration, as several seeds may err on the same.
    """
    images: dict[tuple[str, int], dict[bytes, ExampleImage]] = defaultdict(dict)
    for number, example in stored:
        if example.role == "train" or example.prediction >= 0:
            images[example.role, number].setdefault(example.image, example)
    queues = {key: list(examples.values())[:PICTURES] for key, examples in images.items()}
    train = max((queue for (role, _), queue in queues.items() if role == "train"), key=len, default=[])
    errors = [[(number, each) for each in queue] for (role, number), queue in queues.items() if role == "error"]
    turns = zip_longest([(-1, each) for each in train], *errors)
    return [entry for turn in turns for entry in turn if entry is not None]
