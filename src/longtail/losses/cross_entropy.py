"""Softmax cross-entropy and its focal form: the two losses that do not look at the class counts."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from longtail.counts import ClassCountsLike
from longtail.losses.base import AdjustedLogits, CommonOptions, LongTailLoss, check_range


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

    aliases = ("ce", "crossentropy", "softmax", "erm")

    def __init__(self, class_counts: ClassCountsLike, *, scale: float = 1.0, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self.scale = check_range("scale", scale, 0.0, above=True)

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``S z``, whatever the class counts."""
        # Equation 4: S z
        return AdjustedLogits(logits if self.scale == 1.0 else logits * self.scale)


class FocalLoss(LongTailLoss):
    """``mean_i (1 - p_i)^g CE_i`` over softmax probabilities, the factor included in the gradient.

    Class counts play no part in it; for the class-balanced focal loss (Cui et al. 2019) write
    ``DeferredReweighting(FocalLoss(counts), counts, start=0.0)``. A class ``weight`` multiplies the loss and does not
    enter ``p``.

    References:
        [1] Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4 (with softmax for sigmoid).

    Args:
        class_counts: Training images per class, length C.
        gamma: The exponent ``g >= 0``; 0 is cross-entropy.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: ``gamma`` is negative.

    Example:
        >>> import torch
        >>> loss = FocalLoss([100, 10], gamma=2.0)
        >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.0018
    """

    focal_detached = False

    def __init__(self, class_counts: ClassCountsLike, *, gamma: float = 2.0, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self.focal_gamma = check_range("gamma", gamma, 0.0)
