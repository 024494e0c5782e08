"""Calibration: reliability and expected calibration error, from bins that add up over batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReliabilityRow:
    """One bin of a reliability diagram.

    Args:
        lower: Confidences in this bin are above it.
        upper: Confidences in this bin are at most this.
        count: Images in the bin.
        confidence: Their mean confidence, None where the bin is empty.
        accuracy: The fraction of them that is right, None where the bin is empty.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def bin_confidences(confidence: Tensor, correct: Tensor, *, num_bins: int = 15) -> Tensor:
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


def reliability_table(bins: Tensor) -> list[ReliabilityRow]:
    """Return the rows of a reliability diagram, one per bin, empty bins included.

    Args:
        bins: Sums as :func:`bin_confidences` gives them, shape (3, B).

    Example:
        >>> bins = bin_confidences(torch.tensor([0.75, 0.75]), torch.tensor([True, False]), num_bins=2)
        >>> reliability_table(bins)[1]
        ReliabilityRow(lower=0.5, upper=1.0, count=2, confidence=0.75, accuracy=0.5)
    """
    width = bins.shape[1]
    rows = []
    for index, (count, confidence, correct) in enumerate(bins.T.tolist()):
        means = (confidence / count, correct / count) if count else (None, None)
        rows.append(ReliabilityRow(index / width, (index + 1) / width, int(count), *means))
    return rows
