"""What the page knows of each class, once: its search, its hover texts and its table of classes read it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from longtail.analysis.confusions import confused_pairs, nearest_confusions
from longtail.counts import FEW_IMAGES, GROUP_NAMES
from longtail.report.class_pictures import class_pictures
from longtail.report.compare import Comparison, Row
from longtail.report.hardest import class_intervals, class_recalls, mean_recalls, tested_images
from longtail.report.palette import GROUP_LABELS
from longtail.report.runs import RunResult

CONFUSIONS = 3
"""Classes that a class is most often taken for, kept of each."""


def class_table(comparison: Comparison) -> dict[str, Any]:
    """Everything about each class, as compact as JSON gets.

    Returns:
        ``names``, ``groups`` (an index into ``group_names`` and ``group_labels``), ``train`` and ``test`` (images),
        ``split``, ``words`` (what is said of a class with so few test images), ``runs`` (each with ``label``,
        ``recall``, ``low`` and ``high`` in tenths of a percent, None where not measured, and ``taken``: index and
        percent in turn; ``train`` and ``groups`` of its own where it had other images), and ``images``, ``examples``
        and ``left_out`` of :class:`longtail.report.class_pictures.ClassPictures`, hardest classes first.
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
