"""Summary: the plain numbers that a confusion matrix and the sums beside it come to."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any, cast

from torch import Tensor

from longtail.counts import ClassCounts, GroupName
from longtail.errors import LongtailError
from longtail.evaluation.calibration import expected_calibration_error
from longtail.evaluation.confusion import (
    accuracy,
    f1_per_class,
    group_recall,
    harmonic_mean,
    precision_per_class,
    recall_per_class,
)
from longtail.evaluation.intervals import add_intervals
from longtail.evaluation.types import Groups, Summary


def figures(confusion: Tensor, nll_sum: Tensor, bins: Tensor) -> dict[str, Tensor]:
    """What the sums over a split come to; see :meth:`longtail.evaluation.metrics.EvaluationMetrics.compute`.

    Args:
        confusion: Counts, shape (C, C), rows true, columns predicted.
        nll_sum: Sum of negative log-likelihoods, a scalar.
        bins: Sums of the calibration bins, shape (3, B).
    """
    recall = recall_per_class(confusion)
    return {
        "confusion": confusion,
        "bins": bins,
        "recall": recall,
        "accuracy": accuracy(confusion),
        "balanced_accuracy": recall.nanmean(),
        "nll": nll_sum / confusion.sum(),
        "ece": expected_calibration_error(bins),
    }


def summarise_figures(values: Mapping[str, Tensor], class_counts: ClassCounts, groups: Groups | None = None) -> Summary:
    """Turn what :func:`figures` returned into plain numbers with their intervals.

    See :func:`longtail.evaluation.metrics.summarise`.
    """
    groups = class_counts.groups() if groups is None else groups
    num_images = int(values["confusion"].sum())
    if num_images and not bool(values["nll"].isfinite()):
        raise LongtailError(
            "The network's outputs hold NaN or infinity: train again with a lower learning rate or gradient clipping."
        )
    recall, confusion = values["recall"], values["confusion"]
    plain = {
        "num_images": num_images,
        "accuracy": _plain(values["accuracy"]),
        "balanced_accuracy": _plain(values["balanced_accuracy"]),
        "many": _plain(group_recall(recall, groups.get("many", ()))),
        "medium": _plain(group_recall(recall, groups.get("medium", ()))),
        "few": _plain(group_recall(recall, groups.get("few", ()))),
        "worst_class": min((value for value in recall.tolist() if not isnan(value)), default=None),
        "harmonic_mean": _plain(harmonic_mean(recall)),
        "nll": _plain(values["nll"]),
        "ece": _plain(values["ece"]),
        "per_class": _summarise_classes(confusion, class_counts, groups),
    }
    sums = (confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0))
    right, images, predicted = (part.double().numpy() for part in sums)
    return add_intervals(cast("Summary", plain), right, images, predicted)


def _summarise_classes(confusion: Tensor, class_counts: ClassCounts, groups: Groups) -> list[dict[str, Any]]:
    group_of: dict[int, GroupName] = {int(index): name for name, members in groups.items() for index in members}
    test_counts = confusion.sum(dim=1).tolist()
    recall, precision, f1 = recall_per_class(confusion), precision_per_class(confusion), f1_per_class(confusion)
    return [
        {
            "name": name,
            "train_count": class_counts[index],
            "test_count": int(test_counts[index]),
            "group": group_of.get(index),
            "recall": _plain(recall[index]),
            "precision": _plain(precision[index]),
            "f1": _plain(f1[index]),
        }
        for index, name in enumerate(class_counts.names)
    ]


def _plain(value: Tensor) -> float | None:
    """The number as a float, or None for NaN: JSON knows no NaN."""
    number = float(value)
    return None if isnan(number) else number
