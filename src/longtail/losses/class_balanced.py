"""Cross-entropy weighted by class: by the effective number of images, or by the inverse count."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray
from longtail.losses.base import CommonOptions, LongTailLoss, check_range
from longtail.losses.soft_targets import AdjustedLogits


def effective_number_weights(class_counts: ClassCountsLike, beta: float = 0.9999) -> FloatArray:
    """Weights ``(1 - b) / (1 - b^n_j)``, scaled to mean 1, shape (C,).

    Between ``b = 0`` (all weights one) and ``b -> 1`` (weights proportional to ``1 / n_j``). A class with zero images
    counts as one image.

    Args:
        class_counts: Training images per class, length C.
        beta: ``b`` in [0, 1).

    Raises:
        ValueError: ``beta`` is outside [0, 1).

    Example:
        >>> effective_number_weights([1000, 10]).round(3).tolist()
        [0.021, 1.979]
    """
    check_range("beta", beta, 0.0, 1.0)
    if beta == 1.0:
        raise ValueError("beta must be below 1: take WeightedLoss for weights proportional to 1 / n.")
    counts = ClassCounts.of(class_counts).at_least_one
    # Equation 7: (1 - b) / (1 - b^n_j), scaled to mean 1; expm1 takes 1 - b^n without cancellation near b = 1
    covered = -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones_like(counts)
    return np.asarray((1 / covered) / (1 / covered).mean(), dtype=np.float64)


def inverse_count_weights(class_counts: ClassCountsLike) -> FloatArray:
    """Weights proportional to ``1 / n_j``, scaled to mean 1, shape (C,); zero images count as one.

    Example:
        >>> inverse_count_weights([30, 10]).tolist()
        [0.5, 1.5]
    """
    # Equation 5: 1 / n_j, scaled to mean 1
    inverse = 1 / ClassCounts.of(class_counts).at_least_one
    return np.asarray(inverse / inverse.mean(), dtype=np.float64)


class _ReweightedLoss(LongTailLoss):
    """Cross-entropy with weights made of the class counts, times the weights the user gives."""

    def _multiply_weight(self, values: FloatArray) -> None:
        made = torch.as_tensor(values, dtype=torch.float32)
        self.weight = made if self.weight is None else made * self.weight

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """The logits as they are; the classes differ in weight only."""
        return AdjustedLogits(logits)


class ClassBalancedLoss(_ReweightedLoss):
    """Cross-entropy weighted by the inverse effective number of images.

    References:
        [1] Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, equation 4.

    Args:
        class_counts: Training images per class, length C.
        beta: ``b`` in [0, 1).
        **common: ``weight`` (multiplies the weights made here), ``reduction``, ``ignore_index``, ``label_smoothing``;
            see :class:`LongTailLoss`.

    Raises:
        ValueError: ``beta`` is outside [0, 1).

    Example:
        >>> ClassBalancedLoss([1000, 10]).weight
        tensor([0.0208, 1.9792])
    """

    def __init__(self, class_counts: ClassCountsLike, *, beta: float = 0.9999, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self.beta = beta
        self._multiply_weight(effective_number_weights(class_counts, beta))


class WeightedLoss(_ReweightedLoss):
    """Cross-entropy weighted by ``1 / n_j``, mean 1 over the classes: the "balanced" weights of scikit-learn, scaled.

    Args:
        class_counts: Training images per class, length C.
        **common: ``weight`` (multiplies the weights made here), ``reduction``, ``ignore_index``, ``label_smoothing``;
            see :class:`LongTailLoss`.

    Example:
        >>> WeightedLoss([30, 10]).weight
        tensor([0.5000, 1.5000])
    """

    def __init__(self, class_counts: ClassCountsLike, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self._multiply_weight(inverse_count_weights(class_counts))
