"""LDAM: label-distribution-aware margins, larger for smaller classes."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray
from longtail.losses.base import AdjustedLogits, CommonOptions, LongTailLoss, check_range


def ldam_margins(class_counts: ClassCountsLike, max_margin: float = 0.5) -> FloatArray:
    """``m_j = M n_j^(-1/4) / max_k n_k^(-1/4)``, shape (C,): ``M`` on the smallest class.

    Example:
        >>> ldam_margins([1600, 100]).tolist()
        [0.25, 0.5]
    """
    # Equation 8: m_j = M n_j^(-1/4) / max_k n_k^(-1/4)
    roots = ClassCounts.of(class_counts).at_least_one ** -0.25
    return np.asarray(max_margin * roots / roots.max(), dtype=np.float64)


def ldam_logits(cosine: Tensor, margins: Tensor, *, scale: float = 30.0) -> AdjustedLogits:
    """``S cos_j``, and ``S (cos_y - m_y)`` for the label.

    Args:
        cosine: Cosine logits, shape (N, C), in [-1, 1].
        margins: ``m_j``, shape (C,).
        scale: ``S``.

    Example:
        >>> import torch
        >>> changed = ldam_logits(torch.tensor([[0.5, 0.5]]), torch.tensor([0.25, 0.5]))
        >>> changed.logits, changed.label_shift
        (tensor([[15., 15.]]), tensor([ -7.5000, -15.0000]))
    """
    # Equation 9: u_j = cos_j, and u_y = cos_y - m_y for the label
    return AdjustedLogits(scale * cosine, label_shift=-scale * margins.to(cosine.dtype))


class LDAMLoss(LongTailLoss):
    """``CE(S u, y)`` on a cosine classifier with ``u_y = cos_y - m_y`` and ``u_j = cos_j`` otherwise.

    With deferred re-weighting (:class:`DeferredReweighting`) it is LDAM-DRW.

    References:
        [1] Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019,
            equations 11 and 13.

    Args:
        class_counts: Training images per class, length C.
        scale: ``S``.
        max_margin: ``M``, the margin of the smallest class, in [0, 2].
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: An option outside its range.

    Example:
        >>> import torch
        >>> loss = LDAMLoss([1600, 100])
        >>> round(loss(torch.tensor([[0.9, 0.5]]), torch.tensor([0])).item(), 4)
        0.011
    """

    head = "cosine"
    _margins: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        scale: float = 30.0,
        max_margin: float = 0.5,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        self.scale = check_range("scale", scale, 0.0, above=True)
        self.max_margin = check_range("max_margin", max_margin, 0.0, 2.0)
        self._table("_margins", ldam_margins(class_counts, max_margin))

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``S u``."""
        return ldam_logits(logits, self._margins, scale=self.scale)
