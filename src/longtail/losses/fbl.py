"""FBL: feature-balanced loss, which pushes tail samples to larger feature norms along a curriculum."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.errors import nearest
from longtail.losses.base import AdjustedLogits, AutoValue, CommonOptions, LongTailLoss, check_range

Curriculum = Literal["parabolic", "linear", "cosine", "sine", "constant", "reverse"]

_EPSILON = 1e-12
_CURRICULA: dict[Curriculum, Callable[[Tensor], Tensor]] = {
    "parabolic": torch.square,
    "linear": lambda progress: progress,
    "cosine": lambda progress: 1 - torch.cos(progress * (math.pi / 2)),
    "sine": lambda progress: torch.sin(progress * (math.pi / 2)),
    "constant": torch.ones_like,
    "reverse": lambda progress: 1 - progress,
}


def curriculum_weight(curriculum: Curriculum, progress: Tensor) -> Tensor:
    """``a(t)`` in [0, 1], shaped like ``progress``.

    Args:
        curriculum: ``"parabolic"`` ``t^2``, ``"linear"`` ``t``, ``"cosine"`` ``1 - cos(pi t / 2)``, ``"sine"``
            ``sin(pi t / 2)``, ``"constant"`` 1, or ``"reverse"`` ``1 - t`` (tail first).
        progress: ``t`` in [0, 1].

    Example:
        >>> [round(curriculum_weight(name, torch.tensor(0.5)).item(), 3) for name in ("parabolic", "sine", "reverse")]
        [0.25, 0.707, 0.5]
    """
    # Equation 19: the curriculum a(t)
    return _CURRICULA[curriculum](progress)


def fbl_logits(logits: Tensor, features: Tensor, tail_weight: Tensor, amount: Tensor) -> Tensor:
    """``z_j - a K w_j / (||f||_2 + 1e-12)`` for every class, the label included, shape (N, C).

    Args:
        logits: Linear logits ``z``, shape (N, C).
        features: ``f``, shape (N, D); their norm is not detached.
        tail_weight: ``w_j`` in [0, 1], 0 at the head and 1 at the tail, shape (C,).
        amount: ``a(t) K``, a scalar.

    Example:
        >>> features = torch.tensor([[3.0, 4.0]])
        >>> fbl_logits(torch.zeros(1, 2), features, torch.tensor([0.0, 1.0]), torch.tensor(60.0))
        tensor([[  0., -12.]])
    """
    # Equation 18: z'_j = z_j - a(t) K w_j / (||f|| + 1e-12), the label included
    norm: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return torch.addcmul(logits, (norm + _EPSILON).reciprocal(), (amount * tail_weight).to(logits.dtype), value=-1)


class FBLoss(LongTailLoss):
    """``CE(z', y)`` on a linear classifier, ``z'_j = z_j - a(t) K w_j / ||f||`` with ``w_j`` the tail weight.

    The published code's parabola ends at 1.1; this one ends at 1, as the paper's.

    References:
        [1] Li, Cheung, Jiang, Feature-Balanced Loss for Long-Tailed Visual Recognition, ICME 2022, arXiv 2305.10772.

    Args:
        class_counts: Training images per class, length C.
        strength: ``K``; 60 on CIFAR, 150 on ImageNet-LT, iNaturalist and Places-LT.
        curriculum: Growth of ``a`` with progress; see :func:`curriculum_weight`.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: ``strength`` is negative, or the curriculum unknown.

    Example:
        >>> loss = FBLoss([500, 50, 5])
        >>> loss.progress = 1.0
        >>> features = torch.full((1, 4), 10.0)
        >>> round(loss(torch.zeros(1, 3), torch.tensor([2]), features).item(), 4)
        3.2413
    """

    needs_features = True
    # On features, above the published value for 5, 20 and 100 classes.
    auto_values = MappingProxyType({"strength": AutoValue(60.0, on_features=180.0)})
    _tail_weight: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        strength: float = 60.0,
        curriculum: Curriculum = "parabolic",
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        self.strength = check_range("strength", strength, 0.0)
        if curriculum not in get_args(Curriculum):
            raise ValueError(f"unknown curriculum {curriculum!r}.{nearest(str(curriculum), get_args(Curriculum))}")
        self.curriculum: Curriculum = curriculum
        self._table("_tail_weight", ClassCounts.of(class_counts).tail_weight)

    def adjust_logits(self, logits: Tensor, features: Tensor | None, /) -> AdjustedLogits:
        """``z'``."""
        assert features is not None  # forward has raised a clear error already
        amount = self.strength * curriculum_weight(self.curriculum, self._progress)
        return AdjustedLogits(fbl_logits(logits, features, self._tail_weight, amount))
