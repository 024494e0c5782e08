"""KPS: key point sensitive loss, per-class scales and mirrored margins, with gradient adjustment."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray
from longtail.losses.base import AdjustedLogits, CommonOptions, LongTailLoss, check_range

_BASE = 50.0
_MAX_SCALE = 50.0


def kps_scales(class_counts: ClassCountsLike) -> tuple[FloatArray, FloatArray]:
    """The class scales ``s_j`` and their mirror images ``s*_j``, each of shape (C,).

    ``s_j = log(50 n_j / n_min) / log 50``: 1 for the smallest class, ``1 + log(IR) / log 50`` for the largest. ``s*``
    exchanges the values of the classes whose ranks by size mirror each other, the largest with the smallest; classes
    of one size share the mean of what falls to them, so that their order does not matter.

    Args:
        class_counts: Training images per class, length C; a class with zero images counts as one.

    Example:
        >>> scales, mirrored = kps_scales([50, 1, 50])
        >>> scales.tolist(), mirrored.tolist()
        ([2.0, 1.0, 2.0], [1.5, 2.0, 1.5])
    """
    counts = ClassCounts.of(class_counts).at_least_one
    # Equation 13: s_j = log(50 n_j / n_min) / log 50
    scales = np.log(_BASE * counts / counts.min()) / np.log(_BASE)
    # Equation 14: s*_j is the s of the class of mirrored rank; classes of one size share the mean of theirs
    order = np.argsort(counts, kind="stable")
    by_rank = np.empty_like(scales)
    by_rank[order] = scales[order][::-1]
    _, group = np.unique(counts, return_inverse=True)
    mirrored = np.bincount(group, by_rank) / np.bincount(group)
    return scales, mirrored[group]


def kps_logits(
    cosine: Tensor, scales: Tensor, margins: Tensor, *, scale: float = 15.0, label_scale: Tensor | None = None
) -> AdjustedLogits:
    """``S s_j cos_j``, and ``S (s_y cos_y - m_y)`` for the label.

    Args:
        cosine: Cosine logits, shape (N, C), in [-1, 1].
        scales: ``s_j``, shape (C,).
        margins: ``m_j``, shape (C,).
        scale: ``S``, where ``label_scale`` is not given.
        label_scale: The scale of a sample by its label (gradient adjustment), shape (C,), instead of ``S``.

    Example:
        >>> import torch
        >>> changed = kps_logits(torch.tensor([[0.5, 0.5]]), torch.tensor([2.0, 1.0]), torch.tensor([0.1, 0.2]))
        >>> changed.logits, changed.label_shift
        (tensor([[15.0000,  7.5000]]), tensor([-1.5000, -3.0000]))
    """
    # Equation 16: u_j = s_j cos_j, and u_y = s_y cos_y - m_y for the label
    scales, margins = scales.to(cosine.dtype), margins.to(cosine.dtype)
    if label_scale is None:
        return AdjustedLogits(cosine * (scale * scales), label_shift=-scale * margins)
    return AdjustedLogits(cosine * scales, label_scale=label_scale.to(cosine.dtype), label_shift=-margins)


class KPSLoss(LongTailLoss):
    """``CE(S u, y)`` on a cosine classifier, ``u_j = s_j cos_j`` and ``u_y = s_y cos_y - m_y`` for the label.

    The margin ``m_j = M s*_j / max_k s_k`` is largest on the smallest class. From progress
    ``adjust_gradients_from`` on (**GA**), the scale of a sample is ``clamp(S s*_y, S, 50)``: tail samples keep a
    gradient after softmax has saturated.

    With probabilities as targets and GA not switched off, the cost grows with the number of labels a sample has: twice
    a plain batch for mixup, but C times for label smoothing.

    References:
        [1] Li, Cheung, Hu, Key Point Sensitive Loss for Long-Tailed Visual Recognition, TPAMI 45(4), 2023.

    Args:
        class_counts: Training images per class, length C.
        scale: ``S``.
        max_margin: ``M`` in [0, 2].
        adjust_gradients_from: Progress in [0, 1] from which GA is on (0.6 is epoch 120 of 200); ``None`` for never.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: An option outside its range.

    Example:
        >>> import torch
        >>> loss = KPSLoss([500, 50, 5])
        >>> cosine, target = torch.tensor([[0.6, 0.1, 0.4]]), torch.tensor([2])
        >>> round(loss(cosine, target).item(), 2)
        16.59
        >>> loss.progress = 0.6
        >>> round(loss(cosine, target).item(), 2)
        36.13
    """

    head = "cosine"
    _scales: Tensor
    _margins: Tensor
    _adjusted: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        scale: float = 15.0,
        max_margin: float = 0.2,
        adjust_gradients_from: float | None = 0.6,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        self.scale = scale = check_range("scale", scale, 0.0, above=True)
        self.max_margin = max_margin = check_range("max_margin", max_margin, 0.0, 2.0)
        if adjust_gradients_from is not None:
            adjust_gradients_from = check_range("adjust_gradients_from", adjust_gradients_from, 0.0, 1.0)
        self.adjust_gradients_from = adjust_gradients_from
        scales, mirrored = kps_scales(class_counts)
        self._table("_scales", scales)
        # Equation 15: m_j = M s*_j / max_k s_k
        self._table("_margins", max_margin * mirrored / scales.max())
        # Equation 17, gradient adjustment: the scale of a sample becomes clamp(S s*_y, S, 50)
        self._table("_adjusted", np.clip(scale * mirrored, scale, max(scale, _MAX_SCALE)))

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``S u``, with the scale of GA once it is on."""
        label_scale = None
        if self.adjust_gradients_from is not None:
            label_scale = torch.where(self._progress >= self.adjust_gradients_from, self._adjusted, self.scale)
        return kps_logits(logits, self._scales, self._margins, scale=self.scale, label_scale=label_scale)
