"""Metrics of a split: overall, of the shot groups many, medium and few, and of each class, as in ``metrics.json``.

Tallies of the classes and sums of calibration bins come in, plain numbers with their intervals come out. A group
without images has no figure, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.counts import GROUP_NAMES, ClassCounts, FloatArray, GroupName, IntArray
from longtail.errors import LongtailError
from longtail.evaluation import intervals

BINS = 15  # of the calibration error
Groups: TypeAlias = Mapping[GroupName, Sequence[int] | npt.NDArray[np.int64]]
Mask: TypeAlias = npt.NDArray[np.bool_]
Summary: TypeAlias = dict[str, Any]
"""Plain numbers of a split, as ``metrics.json`` holds them: fractions in [0, 1], None where there is no image.

- ``num_images``, and figures: ``accuracy``, ``balanced_accuracy``, ``many``, ``medium``, ``few``, ``worst_class``,
  ``harmonic_mean``, ``nll``, ``ece``;
- ``intervals``: [low, high] of the first six figures, with their ``level``, ``unit`` and ``correlation``;
- ``per_class``: for each class its ``name``, ``train_count``, ``test_count`` and ``group``, and ``recall``,
  ``precision`` and ``f1``, each with its interval, such as ``recall_interval``.

:class:`longtail.run.result.Metrics` is its schema, with which every file is read.
"""


def group_mean(values: npt.ArrayLike | Tensor, classes: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Average a figure over the classes of a group, each class counting the same; NaN where none has a figure.

    Args:
        values: A figure of each class, such as its recall, shape (C,); NaN for a class without images.
        classes: The group's class indices, possibly none.

    Example:
        >>> group_mean([0.5, 1.0, np.nan], [1, 2]), group_mean([0.5, 1.0, np.nan], [])
        (1.0, nan)
    """
    index = torch.as_tensor(np.asarray(classes, dtype=np.int64))
    return float(torch.as_tensor(values, dtype=torch.float64)[index].nanmean())


def group_means(values: npt.ArrayLike, group_of: Sequence[GroupName]) -> FloatArray:
    """Average a figure over the classes of each group, float64 (3,) in the order of ``GROUP_NAMES``.

    Args:
        values: A figure of each class, shape (C,); NaN for a class without images.
        group_of: Shot group of each class, length C.

    Example:
        >>> group_means([0.5, 1.0, 0.0], ["many", "few", "few"]).tolist()
        [0.5, nan, 0.5]
    """
    numbers = shot_group_indices(group_of)
    return np.array([group_mean(values, np.flatnonzero(numbers == number)) for number in range(len(GROUP_NAMES))])


def shot_group_indices(group_of: Sequence[GroupName]) -> IntArray:
    """Return the position of each class's group in ``GROUP_NAMES``, shape (C,).

    Example:
        >>> shot_group_indices(["few", "many", "many"]).tolist()
        [2, 0, 0]
    """
    return np.array([GROUP_NAMES.index(name) for name in group_of], dtype=np.int64)


def group_masks(label: IntArray, group_of: Sequence[GroupName]) -> dict[GroupName, Mask]:
    """Mark the images whose true class is in each group, shape (N,); a group without images has an empty mask.

    Args:
        label: True classes, shape (N,).
        group_of: Shot group of each class, length C.

    Example:
        >>> {name: mask.tolist() for name, mask in group_masks(np.array([0, 1, 0]), ["many", "few"]).items()}
        {'many': [True, False, True], 'medium': [False, False, False], 'few': [False, True, False]}
    """
    numbers = shot_group_indices(group_of)[label]
    return {name: numbers == number for number, name in enumerate(GROUP_NAMES)}


def class_weights(label: IntArray) -> FloatArray:
    """Weights of images under which every class counts the same, as it does in the figures of the shot groups.

    Args:
        label: True classes, shape (N,).

    Returns:
        One over the number of images of the class, shape (N,).

    Example:
        >>> class_weights(np.array([0, 0, 1])).tolist()
        [0.5, 0.5, 1.0]
    """
    return np.asarray(1.0 / np.maximum(np.bincount(label), 1)[label], dtype=np.float64)


def tally_classes(target: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Count the predictions of a split by class. Tallies of batches and of processes add up to those of the whole.

    Args:
        target: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        num_classes: C.

    Returns:
        int64, shape (3, C): images of a class predicted right, images of it, and images predicted as it.

    Example:
        >>> tally_classes(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
        tensor([[1, 1],
                [2, 1],
                [1, 2]])
    """
    tallies = torch.zeros(3, num_classes, dtype=torch.int64, device=target.device)
    ones = torch.ones_like(target)
    for row, classes, worth in ((0, target, (target == prediction).long()), (1, target, ones), (2, prediction, ones)):
        tallies[row].index_add_(0, classes, worth)
    return tallies


def accuracy(tallies: Tensor) -> Tensor:
    """Return the fraction of images predicted right, a float64 scalar; NaN where there is no image.

    Args:
        tallies: From :func:`tally_classes`, shape (3, C).

    Example:
        >>> accuracy(torch.tensor([[3, 4], [4, 4], [3, 5]])).item()
        0.875
    """
    right, images, _ = tallies.unbind()
    return right.sum().double() / images.sum().double()


def recall_per_class(tallies: Tensor) -> Tensor:
    """Return the fraction of each class's images that is predicted right, float64 (C,); NaN for a class without images.

    Args:
        tallies: From :func:`tally_classes`, shape (3, C).

    Example:
        >>> recall_per_class(torch.tensor([[3, 4], [4, 4], [3, 5]])).tolist()
        [0.75, 1.0]
    """
    right, images, _ = tallies.unbind()
    return right.double() / images.double()


def precision_per_class(tallies: Tensor) -> Tensor:
    """Return the fraction of predictions of each class that is right, float64 (C,); NaN for a class never predicted.

    Args:
        tallies: From :func:`tally_classes`, shape (3, C).

    Example:
        >>> precision_per_class(torch.tensor([[3, 4], [4, 4], [3, 5]])).tolist()
        [1.0, 0.8]
    """
    right, _, predicted = tallies.unbind()
    return right.double() / predicted.double()


def f1_per_class(tallies: Tensor) -> Tensor:
    """Return ``2 TP / (2 TP + FP + FN)``, float64 (C,); NaN for a class without images.

    Args:
        tallies: From :func:`tally_classes`, shape (3, C).

    Example:
        >>> f1_per_class(torch.tensor([[2, 4], [4, 4], [2, 6]])).tolist()[1]
        0.8
    """
    right, images, predicted = tallies.unbind()
    return torch.where(images > 0, 2 * right.double() / (images + predicted).double(), torch.nan)


def harmonic_mean(recall: Tensor) -> Tensor:
    """Return the harmonic mean of the recalls: 0 as soon as one class is never right; NaN where there is no image.

    Args:
        recall: Recall per class, shape (C,), NaN for a class without images.

    Example:
        >>> harmonic_mean(torch.tensor([1.0, 0.5, torch.nan]).double()).item()
        0.6666666666666666
    """
    # 1 / 0 is infinity and 1 / infinity is 0, which is the limit wanted.
    return 1 / (1 / recall).nanmean()


def bin_confidences(confidence: Tensor, correct: Tensor, *, num_bins: int = BINS) -> Tensor:
    """Sort predictions into bins of equal width by their confidence and sum each bin.

    Bin b holds confidences in ``(b / B, (b + 1) / B]``; the first holds 0 as well. Sums of batches and of processes
    add up to the sums of the whole.

    Args:
        confidence: Probability of the predicted class, shape (N,), in [0, 1].
        correct: Whether the prediction is right, shape (N,), bool or 0 and 1.
        num_bins: The number of bins B.

    Returns:
        float64, shape (3, B): count, sum of confidences, number right.

    Example:
        >>> bin_confidences(torch.tensor([0.3, 0.9, 1.0]), torch.tensor([True, False, True]), num_bins=2)[0]
        tensor([1., 2.], dtype=torch.float64)
    """
    values = confidence.double()
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=values.device)
    bins = (torch.bucketize(values, edges) - 1).clamp(0, num_bins - 1)
    columns = torch.stack([torch.ones_like(values), values, correct.double()])
    return torch.zeros(3, num_bins, dtype=torch.float64, device=values.device).index_add_(1, bins, columns)


def expected_calibration_error(bins: Tensor) -> Tensor:
    """``sum_b (count_b / N) |accuracy_b - confidence_b|``, a float64 scalar in [0, 1]; NaN where there is no image.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Args:
        bins: Sums as :func:`bin_confidences` gives them, shape (3, B).

    Example:
        >>> bins = bin_confidences(torch.tensor([0.75, 0.75]), torch.tensor([True, False]))
        >>> expected_calibration_error(bins).item()
        0.25
    """
    count, confidence, correct = bins.unbind()
    # The bin's own count cancels: (count / N) |correct / count - confidence / count|.
    return (correct - confidence).abs().sum() / count.sum()


def figures(tallies: Tensor, nll_sum: Tensor, bins: Tensor) -> dict[str, Tensor]:
    """Compute the figures of a split from its sums.

    See :meth:`longtail.evaluation.tallies.EvaluationMetrics.compute`.

    Args:
        tallies: From :func:`tally_classes`, shape (3, C).
        nll_sum: Sum of negative log-likelihoods, a scalar.
        bins: Sums of the calibration bins, shape (3, B).
    """
    recall = recall_per_class(tallies)
    return {
        "tallies": tallies,
        "bins": bins,
        "recall": recall,
        "accuracy": accuracy(tallies),
        "balanced_accuracy": recall.nanmean(),
        "nll": nll_sum / tallies[1].sum(),
        "ece": expected_calibration_error(bins),
    }


def summarize_figures(values: Mapping[str, Tensor], class_counts: ClassCounts, groups: Groups | None = None) -> Summary:
    """Turn the values of :func:`figures` into plain numbers with their intervals.

    See :func:`longtail.evaluation.tallies.summarize`.
    """
    groups = class_counts.groups() if groups is None else groups
    num_images = int(values["tallies"][1].sum())
    if num_images and not bool(values["nll"].isfinite()):
        raise LongtailError(
            "The network's outputs hold NaN or infinity: train again with a lower learning rate or gradient clipping."
        )
    recall, tallies = values["recall"], values["tallies"]
    summary: Summary = {
        "num_images": num_images,
        "accuracy": _plain(values["accuracy"]),
        "balanced_accuracy": _plain(values["balanced_accuracy"]),
        **{name: _plain(group_mean(recall, groups.get(name, ()))) for name in GROUP_NAMES},
        "worst_class": min((value for value in recall.tolist() if not isnan(value)), default=None),
        "harmonic_mean": _plain(harmonic_mean(recall)),
        "nll": _plain(values["nll"]),
        "ece": _plain(values["ece"]),
        "per_class": _summarize_classes(tallies, class_counts, groups),
    }
    right, images, predicted = tallies.double().numpy()
    return add_intervals(summary, right, images, predicted)


def _summarize_classes(tallies: Tensor, class_counts: ClassCounts, groups: Groups) -> list[dict[str, Any]]:
    group_of: dict[int, GroupName] = {int(index): name for name, members in groups.items() for index in members}
    test_counts = tallies[1].tolist()
    recall, precision, f1 = recall_per_class(tallies), precision_per_class(tallies), f1_per_class(tallies)
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


def _plain(value: Tensor | float) -> float | None:
    """The number as a float, or None for NaN: JSON knows no NaN."""
    number = float(value)
    return None if isnan(number) else number


def add_intervals(
    summary: Summary,
    right: FloatArray,
    images: FloatArray,
    predicted: FloatArray,
    effective: intervals.EffectiveSize | None = None,
) -> Summary:
    """Return a summary with the intervals of its figures and of its classes.

    Args:
        summary: The plain figures; intervals in it are replaced.
        right: Images predicted right, shape (C,).
        images: Images of each class, shape (C,).
        predicted: Predictions of each class, shape (C,).
        effective: Their effective sample size, where images are not independent of each other.
    """
    size = effective or intervals.EffectiveSize("image", None, images, predicted, float(images.sum()))
    rows = [{**row} for row in summary["per_class"]]
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = right / images * size.images
        by_class = {
            "recall_interval": intervals.wilson(scaled, size.images),
            "precision_interval": intervals.wilson(right / predicted * size.predicted, size.predicted),
            "f1_interval": intervals.f1_intervals(scaled, size.images, predicted * size.images / images),
        }
    for name, intervals_of_classes in by_class.items():
        for row, pair in zip(rows, intervals_of_classes.tolist(), strict=True):
            row[name] = None if pair[0] != pair[0] else pair
    sets: dict[str, Sequence[int]] = {
        name: [j for j, row in enumerate(rows) if row["group"] == name] for name in GROUP_NAMES
    }
    means = intervals.mean_intervals(
        right, images, {"balanced_accuracy": range(len(rows)), **sets}, effective=size.images
    )
    bounds = {
        "level": intervals.LEVEL,
        "unit": size.unit,
        "correlation": size.correlation,
        "accuracy": intervals.share_interval(right.sum() / images.sum() if images.sum() else None, size.total),
        **means,
        "worst_class": intervals.worst_interval(np.nan_to_num(scaled), size.images),
    }
    return summary | {"intervals": bounds, "per_class": rows}
