"""EvaluationMetrics: one confusion matrix, accumulated over batches and processes, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.counts import ClassCounts, GroupName
from longtail.errors import LongtailError
from longtail.evaluation.calibration import bin_confidences, expected_calibration_error
from longtail.evaluation.confusion import (
    accuracy,
    f1_per_class,
    group_recall,
    harmonic_mean,
    precision_per_class,
    recall_per_class,
)
from longtail.evaluation.intervals import Interval, SummaryIntervals, add_intervals
from longtail.models.torchvision_fix import prepare_torchvision

prepare_torchvision()
from torchmetrics import Metric  # noqa: E402 - torchvision has to be prepared first

Groups: TypeAlias = Mapping[GroupName, Sequence[int] | npt.NDArray[np.int64]]


class ClassSummary(TypedDict):
    """One class of a :class:`Summary`; None where a fraction has nothing to divide by."""

    name: str
    train_count: int
    test_count: int
    group: GroupName | None
    recall: float | None
    precision: float | None
    f1: float | None
    recall_interval: Interval | None
    precision_interval: Interval | None
    f1_interval: Interval | None


class Summary(TypedDict):
    """What ``metrics.json`` holds for a split: fractions in [0, 1], None where there is no image."""

    num_images: int
    accuracy: float | None
    balanced_accuracy: float | None
    many: float | None
    medium: float | None
    few: float | None
    worst_class: float | None
    harmonic_mean: float | None
    nll: float | None
    ece: float | None
    intervals: SummaryIntervals
    per_class: list[ClassSummary]


class EvaluationMetrics(Metric):
    """Everything an evaluation reports, from sums that add across batches and processes.

    The states are a confusion matrix (rows true, columns predicted), the sum of negative log-likelihoods and the
    sums of the calibration bins, so several processes with shards of any size give exactly the result of one. Leave
    out images that a loader repeats to fill the last batch before calling :meth:`update`.

    Args:
        num_classes: Classes C; the confusion matrix takes 8 C^2 bytes.
        logit_scale: What multiplies the logits before softmax: the ``S`` of a cosine classifier, 1 for a linear one.
        from_probabilities: Scores are probabilities already.
        num_bins: Calibration bins.

    Example:
        >>> metric = EvaluationMetrics(num_classes=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1]))
        >>> metric.compute()["confusion"]
        tensor([[1, 0],
                [1, 1]])
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    confusion: Tensor
    nll_sum: Tensor
    bins: Tensor

    def __init__(
        self, num_classes: int, *, logit_scale: float = 1.0, from_probabilities: bool = False, num_bins: int = 15
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.logit_scale = logit_scale
        self.from_probabilities = from_probabilities
        self.num_bins = num_bins
        counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", counts, dist_reduce_fx="sum")
        self.add_state("nll_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bins", torch.zeros(3, num_bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            scores: Unchanged logits, or probabilities, shape (N, C).
            target: True classes, shape (N,), in 0 .. C-1.

        Raises:
            ValueError: Shapes that do not fit, or a target outside 0 .. C-1.
        """
        self._check(scores, target)
        if target.numel() == 0:
            return
        log_probabilities = self._log_probabilities(scores.detach())
        confidence, prediction = log_probabilities.max(dim=1)
        # An index_add costs N additions; a bincount of all C^2 cells each batch would not do for 8,142 classes.
        cells = target * self.num_classes + prediction
        self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells))
        self.nll_sum -= log_probabilities.gather(1, target[:, None]).double().sum()
        self.bins += bin_confidences(confidence.exp(), prediction == target, num_bins=self.num_bins)

    def compute(self) -> dict[str, Tensor]:
        """Return the sums over all processes and what they come to.

        Returns:
            ``confusion`` (C, C) int64, ``bins`` (3, B), and float64 scalars ``accuracy``, ``balanced_accuracy``,
            ``nll`` and ``ece``, which are NaN where there is no image; ``recall`` (C,) is NaN for a class without any.
        """
        return figures(self.confusion, self.nll_sum, self.bins)

    def _check(self, scores: Tensor, target: Tensor) -> None:
        if target.ndim != 1 or scores.shape != (target.shape[0], self.num_classes):
            raise ValueError(
                f"EvaluationMetrics takes scores (N, {self.num_classes}) and targets (N,); got "
                f"{tuple(scores.shape)} and {tuple(target.shape)}."
            )
        if target.numel() and not bool(((target >= 0) & (target < self.num_classes)).all()):
            raise ValueError(f"EvaluationMetrics takes targets in 0..{self.num_classes - 1}; drop other labels first.")

    def _log_probabilities(self, scores: Tensor) -> Tensor:
        wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
        if self.from_probabilities:
            return wide.clamp_min(torch.finfo(wide.dtype).tiny).log()
        return torch.log_softmax(wide * self.logit_scale, dim=1)


def figures(confusion: Tensor, nll_sum: Tensor, bins: Tensor) -> dict[str, Tensor]:
    """What the sums over a split come to; see :meth:`EvaluationMetrics.compute`.

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


def summarise(metric: EvaluationMetrics, class_counts: ClassCounts, groups: Groups | None = None) -> Summary:
    """Turn a metric into the plain numbers that ``metrics.json`` holds for one split.

    Where several processes evaluate, call it on each of them: it adds up their sums.

    Args:
        metric: The accumulated metric.
        class_counts: Counts and names of the *training* classes, shape (C,).
        groups: Class indices of ``many``, ``medium`` and ``few``; by default ``class_counts.groups()``.

    Raises:
        ValueError: Counts that do not fit the metric's classes.
        LongtailError: The network gave NaN or infinity.

    Example:
        >>> metric = EvaluationMetrics(num_classes=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1]))
        >>> summary = summarise(metric, ClassCounts([500, 5], names=["cat", "lynx"]))
        >>> summary["balanced_accuracy"], summary["many"], summary["medium"], summary["few"]
        (0.75, 1.0, None, 0.5)
    """
    if class_counts.num_classes != metric.num_classes:
        raise ValueError(f"{class_counts.num_classes} counts do not fit a metric of {metric.num_classes} classes.")
    values = {name: value.cpu() for name, value in metric.compute().items()}
    return summarise_figures(values, class_counts, groups)


def summarise_figures(values: Mapping[str, Tensor], class_counts: ClassCounts, groups: Groups | None = None) -> Summary:
    """Turn what :func:`figures` returned into plain numbers with their intervals; see :func:`summarise`."""
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
