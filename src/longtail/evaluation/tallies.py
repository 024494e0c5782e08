"""EvaluationMetrics: tallies of the predictions of a split, added up over batches and processes.

Importing torchmetrics takes seconds: code that only reads or writes figures imports :mod:`longtail.evaluation.metrics`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.counts import ClassCounts
from longtail.device import prepare_torchvision
from longtail.evaluation.metrics import (
    BINS,
    Groups,
    Summary,
    bin_confidences,
    figures,
    summarize_figures,
    tally_classes,
)

prepare_torchvision()
from torchmetrics import Metric  # noqa: E402 - torchvision has to be prepared first


class EvaluationMetrics(Metric):
    """Everything an evaluation reports, from sums that add across batches and processes.

    The states are the tallies of each class, the sum of negative log-likelihoods and the sums of the calibration bins,
    so several processes with shards of any size give exactly the result of one. No C x C matrix is made, which would
    take 500 MB for 8,142 classes. Leave out images that a loader repeats to fill the last batch before calling
    :meth:`update`.

    Args:
        num_classes: Classes C.
        validate_args: Check that every target is a class; on a GPU this waits for the batch.
        sync_on_compute: Add the sums of all processes; not where each of them was given all images.

    Example:
        >>> metric = EvaluationMetrics(num_classes=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1]))
        >>> metric.compute()["tallies"]
        tensor([[1, 1],
                [1, 2],
                [2, 1]])
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    tallies: Tensor
    nll_sum: Tensor
    bins: Tensor

    def __init__(self, num_classes: int, *, validate_args: bool = True, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes = num_classes
        self.validate_args = validate_args
        self.add_state("tallies", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("nll_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bins", torch.zeros(3, BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            scores: Logits, adjusted and scaled: softmax gives the probabilities, shape (N, C).
            target: True classes, shape (N,), in 0 .. C-1.

        Raises:
            ValueError: Shapes that do not fit, or a target outside 0 .. C-1 (unless ``validate_args`` is off).
        """
        self._check(scores, target)
        if target.numel() == 0:
            return
        scores, target = scores.to(self.tallies.device), target.to(self.tallies.device)
        wide = scores.detach().float() if scores.dtype in (torch.float16, torch.bfloat16) else scores.detach()
        log_probabilities = torch.log_softmax(wide, dim=1)
        confidence, prediction = log_probabilities.max(dim=1)
        self.tallies += tally_classes(target, prediction, self.num_classes)
        self.nll_sum -= log_probabilities.gather(1, target[:, None]).double().sum()
        self.bins += bin_confidences(confidence.exp(), prediction == target)

    def compute(self) -> dict[str, Tensor]:
        """Return the sums over all processes and their figures.

        Returns:
            ``tallies`` (3, C) int64, ``bins`` (3, B), and float64 scalars ``accuracy``, ``balanced_accuracy``,
            ``nll`` and ``ece``, which are NaN where there is no image; ``recall`` (C,) is NaN for a class without any.
        """
        return figures(self.tallies, self.nll_sum, self.bins)

    def _check(self, scores: Tensor, target: Tensor) -> None:
        if target.ndim != 1 or scores.shape != (target.shape[0], self.num_classes):
            raise ValueError(
                f"EvaluationMetrics takes scores (N, {self.num_classes}) and targets (N,); got "
                f"{tuple(scores.shape)} and {tuple(target.shape)}."
            )
        if not self.validate_args or target.numel() == 0:
            return
        if not bool(((target >= 0) & (target < self.num_classes)).all()):
            raise ValueError(f"EvaluationMetrics takes targets in 0..{self.num_classes - 1}; drop other labels first.")


def summarize(metric: EvaluationMetrics, class_counts: ClassCounts, groups: Groups | None = None) -> Summary:
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
        >>> summary = summarize(metric, ClassCounts([500, 5], names=["cat", "lynx"]))
        >>> summary["balanced_accuracy"], summary["many"], summary["medium"], summary["few"]
        (0.75, 1.0, None, 0.5)
    """
    if class_counts.num_classes != metric.num_classes:
        raise ValueError(f"{class_counts.num_classes} counts do not fit a metric of {metric.num_classes} classes.")
    values = {name: value.cpu() for name, value in metric.compute().items()}
    return summarize_figures(values, class_counts, groups)
