"""Softmax cross-entropy, the baseline that forgets the tail, with the interface of the other losses."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from longtail.counts import ClassCountsLike
from longtail.losses.base import CommonOptions, LongTailLoss, check_range
from longtail.losses.soft_targets import AdjustedLogits


class CrossEntropyLoss(LongTailLoss):
    """``CE(S z, y)``: ``torch.nn.CrossEntropyLoss`` with a scale, which a cosine classifier needs.

    Args:
        class_counts: Training images per class, length C; they change nothing here.
        scale: ``S > 0``; 1 for a linear classifier, about 30 for a cosine one.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: ``scale`` is negative.

    Example:
        >>> import torch
        >>> loss = CrossEntropyLoss([100, 10])
        >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.1269
    """

    def __init__(self, class_counts: ClassCountsLike, *, scale: float = 1.0, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        check_range("scale", scale, 0.0)
        self.scale = scale

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``S z``, whatever the class counts."""
        # Equation 4: S z
        return AdjustedLogits(logits if self.scale == 1.0 else logits * self.scale)
