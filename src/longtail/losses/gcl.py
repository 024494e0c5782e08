"""GCL: Gaussian clouded logits, the Euclidean form; a one-sided noise on each cosine that grows towards the tail."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from longtail.counts import ClassCounts
from longtail.losses.base import AutoValue, LongTailLoss, check_range
from longtail.losses.soft_targets import ChangedLogits

if TYPE_CHECKING:
    from typing import Unpack

    from torch import Tensor

    from longtail.counts import ClassCountsLike
    from longtail.losses.base import CommonOptions


def gaussian_cloud(like: Tensor) -> Tensor:
    """Fresh noise ``clamp(Normal(0, 1/3), -1, 1)``, shaped like ``like``.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> cloud = gaussian_cloud(torch.empty(1000, 10))
        >>> round(cloud.std().item(), 2), cloud.abs().max().item() <= 1
        (0.33, True)
    """
    return torch.randn_like(like).div_(3).clamp_(-1.0, 1.0)


def gcl_logits(
    cosine: Tensor,
    noise: Tensor,
    tail_weight: Tensor,
    *,
    scale: float = 30.0,
    amplitude: float,
    margin: float = 0.0,
    signed: bool = False,
) -> ChangedLogits:
    """``S (cos_j - A |e_j| d_j)``, less ``S m`` for the label.

    Args:
        cosine: Cosine logits, shape (N, C), in [-1, 1].
        noise: ``e``, shape (N, C), in [-1, 1].
        tail_weight: ``d_j`` in [0, 1], 0 at the head and 1 at the tail, shape (C,).
        scale: ``S``.
        amplitude: ``A``.
        margin: ``m``.
        signed: Take ``e`` in place of ``|e|``.

    Example:
        >>> cosine, noise = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.4, 0.4]])
        >>> gcl_logits(cosine, noise, torch.tensor([0.0, 1.0]), amplitude=0.5).logits
        tensor([[15.,  9.]])
    """
    tail_weight = tail_weight.to(cosine.dtype)
    depth = -scale * amplitude * tail_weight
    cloud = noise * depth if signed else noise.abs().mul_(depth)
    clouded = cloud.add_(cosine, alpha=scale)  # in place: to touch new memory costs more than the sum
    return ChangedLogits(clouded, label_shift=torch.full_like(tail_weight, -scale * margin) if margin else None)


class GCLLoss(LongTailLoss):
    """``CE(S c, y)`` on a cosine classifier with ``c_j = cos_j - A |e_j| d_j``, and ``c_y`` less the margin ``m``.

    ``e`` is drawn anew for every sample, class and call, and ``d_j`` is the tail weight. The noise keeps tail samples
    away from softmax saturation and gives their classes room in the embedding. Stage 2 retrains the classifier with
    ``focal_gamma=1``: ``mean_i (1 - p_i)^g CE_i``, ``p_i = exp(-CE_i)`` a constant in the gradient.

    References:
        [1] Li, Cheung, Lu, Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022,
            arXiv 2305.11733.
        [2] Li et al., Adjusting Logit in Gaussian Form for Long-Tailed Visual Recognition, IEEE TAI 5(10), 2024,
            arXiv 2305.10648 (the Euclidean form).

    Args:
        class_counts: Training images per class, length C.
        scale: ``S``; 30 in stage 1, 20 in stage 2 on CIFAR.
        noise: ``A``, the amplitude on the smallest class.
        margin: ``m`` in [0, 2]; 0 in stage 1, 0.1 in stage 2.
        focal_gamma: ``g`` of the focal form; 0 for none.
        signed: Draw ``e`` instead of ``|e|``.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: An option outside its range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = GCLLoss([500, 50, 5])
        >>> bool(loss(torch.tensor([[0.6, 0.1, 0.4]]), torch.tensor([2])) > 6.0)
        True
    """

    head = "cosine"
    auto_values = MappingProxyType({"scale": AutoValue(30.0, stage2=20.0), "noise": AutoValue(0.5)})  # of CIFAR-LT
    _tail_weight: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        scale: float = 30.0,
        noise: float = 0.5,
        margin: float = 0.0,
        focal_gamma: float = 0.0,
        signed: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        check_range("scale", scale, 0.0)
        check_range("noise", noise, 0.0)
        check_range("margin", margin, 0.0, 2.0)
        check_range("focal_gamma", focal_gamma, 0.0)
        self.scale, self.noise, self.margin = scale, noise, margin
        self.focal_gamma, self.signed = focal_gamma, signed
        self._table("_tail_weight", ClassCounts.of(class_counts).tail_weight)

    @property
    def logit_scale(self) -> float:
        """The scale ``S``."""
        return self.scale

    def sample_noise(self, like: Tensor) -> Tensor:
        """Fresh ``e``, signed and clamped to [-1, 1], shape (N, C) for cosine logits ``like``."""
        return gaussian_cloud(like)

    def change(self, logits: Tensor, _features: Tensor | None, /) -> ChangedLogits:
        """``S c``."""
        return gcl_logits(
            logits,
            self.sample_noise(logits),
            self._tail_weight,
            scale=self.scale,
            amplitude=self.noise,
            margin=self.margin,
            signed=self.signed,
        )
