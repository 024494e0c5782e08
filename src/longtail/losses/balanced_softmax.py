"""Balanced softmax: softmax over class counts times exponentials."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.losses.base import CommonOptions, LongTailLoss
from longtail.losses.soft_targets import AdjustedLogits


def balanced_softmax_logits(logits: Tensor, log_counts: Tensor) -> Tensor:
    """``z_j + log n_j``, shape (N, C).

    Args:
        logits: Linear logits ``z``, shape (N, C).
        log_counts: ``log n_j``, shape (C,).

    Example:
        >>> import torch
        >>> balanced_softmax_logits(torch.zeros(1, 2), torch.tensor([8.0, 2.0]).log()).exp()
        tensor([[8., 2.]])
    """
    # Equation 11: z_j + log n_j
    return logits + log_counts.to(logits.dtype)


class BalancedSoftmaxLoss(LongTailLoss):
    """``CE(z + log n, y)``: the logit adjustment with ``tau = 1``, up to a constant that softmax does not see.

    References:
        [1] Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020, equation 4.

    Args:
        class_counts: Training images per class, length C.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Example:
        >>> import torch
        >>> loss = BalancedSoftmaxLoss([90, 10])
        >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
        2.3026
    """

    _log_counts: Tensor

    def __init__(self, class_counts: ClassCountsLike, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self._table("_log_counts", np.log(ClassCounts.of(class_counts).at_least_one))

    @property
    def prior_exponent(self) -> float:
        """1: ``log n`` is ``log pi`` up to a constant."""
        return 1.0

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``z + log n``."""
        return AdjustedLogits(balanced_softmax_logits(logits, self._log_counts))
