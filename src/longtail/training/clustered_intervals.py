"""Intervals of a split whose images belong together in groups, from what the model said of each image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtail.counts import IntArray
from longtail.data.dataset import Split
from longtail.data.splits import group_numbers
from longtail.evaluation.clustered import effective_sample_size
from longtail.evaluation.summary import add_intervals
from longtail.training.evaluate import Evaluation


def units(split: Split, column: str | None) -> IntArray | None:
    """Return for each image the number of the group it belongs to; None where the split has no such column.

    Args:
        split: The images.
        column: The column whose values hold images together, or None.
    """
    if column is None or column not in split.rows.column_names:
        return None
    return group_numbers(split.column(column))


def with_group_intervals(evaluation: Evaluation, split: Split, column: str | None) -> Evaluation:
    """Return an evaluation with intervals that count images of one group as far as they tell different things.

    Args:
        evaluation: With its predictions.
        split: The images evaluated.
        column: The column whose values hold images together; without one, or where the split has no such column, the
            evaluation is returned as it is.
    """
    numbers = units(split, column)
    if column is None or numbers is None or not evaluation.predictions:
        return evaluation
    said, size = evaluation.predictions, len(evaluation.summary["per_class"])
    label, prediction = said["label"], said["prediction"]
    group = numbers[said["index"]]
    worth = effective_sample_size(label, prediction, group, size, unit=column)
    sums = (np.bincount(of, minlength=size).astype(float) for of in (label[label == prediction], label, prediction))
    right, images, predicted = sums
    return replace(evaluation, summary=add_intervals(evaluation.summary, right, images, predicted, worth))
