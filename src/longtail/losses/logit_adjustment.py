"""Logit adjustment and balanced softmax: the logits learn what is left once the class prior is taken out."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.losses.base import AdjustedLogits, CommonOptions, LongTailLoss, check_range


def logit_adjusted_logits(logits: Tensor, log_prior: Tensor, tau: float = 1.0) -> Tensor:
    """``z_j + tau log pi_j``, shape (N, C).

    Args:
        logits: Linear logits ``z``, shape (N, C).
        log_prior: ``log pi_j``, the logarithms of the class frequencies, shape (C,).
        tau: The strength of the adjustment.

    Example:
        >>> logit_adjusted_logits(torch.zeros(1, 2), torch.tensor([0.8, 0.2]).log())
        tensor([[-0.2231, -1.6094]])
    """
    # Equation 12: z_j + tau log pi_j
    return torch.add(logits, log_prior.to(logits.dtype), alpha=tau)


class LogitAdjustedLoss(LongTailLoss):
    """``CE(z + tau log pi, y)``, with ``pi`` the class frequencies of the training data.

    References:
        [1] Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, equation 10.

    Args:
        class_counts: Training images per class, length C.
        tau: The strength ``>= 0`` of the adjustment; 1 is consistent for the balanced error.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: ``tau`` is negative.

    Example:
        >>> loss = LogitAdjustedLoss([90, 10])
        >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
        2.3026
    """

    aliases = ("la", "logit-adjust", "logit-adjusted")
    _log_prior: Tensor

    def __init__(self, class_counts: ClassCountsLike, *, tau: float = 1.0, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self.tau = self.prior_exponent = check_range("tau", tau, 0.0)
        self._table("_log_prior", np.log(ClassCounts.of(class_counts).prior))

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``z + tau log pi``."""
        return AdjustedLogits(logit_adjusted_logits(logits, self._log_prior, self.tau))


def balanced_softmax_logits(logits: Tensor, log_counts: Tensor) -> Tensor:
    """``z_j + log n_j``, shape (N, C).

    Args:
        logits: Linear logits ``z``, shape (N, C).
        log_counts: ``log n_j``, shape (C,).

    Example:
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
        >>> loss = BalancedSoftmaxLoss([90, 10])
        >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
        2.3026
    """

    aliases = ("bs", "bsce", "bsl", "balanced-ce")
    prior_exponent = 1.0  # log n is log pi up to a constant
    _log_counts: Tensor

    def __init__(self, class_counts: ClassCountsLike, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self._table("_log_counts", np.log(ClassCounts.of(class_counts).at_least_one))

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``z + log n``."""
        return AdjustedLogits(balanced_softmax_logits(logits, self._log_counts))
