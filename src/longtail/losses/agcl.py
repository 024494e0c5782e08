"""AGCL: Gaussian clouded logits in angular form; the noise turns the angle between feature and class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from longtail.counts import ClassCounts
from longtail.losses.base import LongTailLoss, check_range
from longtail.losses.expectation import ChangedLogits
from longtail.losses.gcl import gaussian_cloud

if TYPE_CHECKING:
    from typing import Unpack

    from torch import Tensor

    from longtail.counts import ClassCountsLike
    from longtail.losses.base import CommonOptions

# Least value under the root of sin(theta), whose slope is infinite at |cos| = 1.
_FLOOR = 1e-7


def add_angle(cosine: Tensor, angle: Tensor, *, easy_margin: bool = False) -> Tensor:
    """``cos(theta + phi)``, continued where it would turn back, shape (N, C).

    Args:
        cosine: ``cos(theta)``, shape (N, C), in [-1, 1].
        angle: ``phi`` in [-pi, pi], shape (N, C).
        easy_margin: Add the angle only where ``cos(theta) > 0``. Otherwise it is added where ``theta + phi <= pi``,
            and ``cos(theta) - sin(phi)`` is taken beyond.

    Example:
        >>> add_angle(torch.tensor([[1.0, 0.0, -1.0]]), torch.full((1, 3), torch.pi / 6)).round(decimals=3)
        tensor([[ 0.8660, -0.5000, -1.5000]])
    """
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=_FLOOR).sqrt()
    if easy_margin:
        # No angle where cos(theta) <= 0: that leaves value and slope as they are, for less than a choice of the two.
        angle = angle * cosine.detach().sign().clamp_(min=0)
    cos_angle, sin_angle = angle.cos(), angle.sin()
    turned = torch.addcmul(cosine * cos_angle, sine, sin_angle, value=-1)
    if easy_margin:
        return turned
    # theta + phi <= pi, without the arc cosine; a negative angle never passes pi.
    return torch.where((cosine >= -cos_angle) | (angle <= 0), turned, cosine - sin_angle)


def agcl_logits(
    cosine: Tensor,
    noise: Tensor,
    tail_weight: Tensor,
    *,
    scale: float = 30.0,
    amplitude: float,
    margin: float = 0.0,
    easy_margin: bool = False,
) -> ChangedLogits:
    """``S cos(theta_j + phi_j)`` with ``phi_j = (pi/2) E e_j d_j``, and ``phi_y + m`` for the label.

    Args:
        cosine: Cosine logits, shape (N, C), in [-1, 1].
        noise: ``|e|``, or ``e`` for signed noise, shape (N, C), in [-1, 1].
        tail_weight: ``d_j`` in [0, 1], 0 at the head and 1 at the tail, shape (C,).
        scale: ``S``.
        amplitude: ``E`` in [0, 1].
        margin: ``m`` in [0, pi/2].
        easy_margin: See :func:`add_angle`.

    Example:
        >>> cosine, noise = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        >>> agcl_logits(cosine, noise, torch.tensor([0.0, 1.0]), amplitude=1 / 3).logits.round(decimals=3)
        tensor([[  0., -15.]])
    """
    angle = noise * (math.pi / 2 * amplitude * tail_weight).to(cosine.dtype)
    others = scale * add_angle(cosine, angle, easy_margin=easy_margin)
    own = scale * add_angle(cosine, angle + margin, easy_margin=easy_margin) if margin else None
    return ChangedLogits(others, own=own)


class AngularGCLLoss(LongTailLoss):
    """``CE(S c, y)`` on a cosine classifier with ``c_j = cos(theta_j + phi_j)``, ``phi_j = (pi/2) E |e_j| d_j``.

    ``e`` is drawn anew for every sample, class and call, and ``d_j`` is the tail weight; ``phi_y`` of the label is
    larger by the margin ``m``.

    References:
        [1] Li et al., Adjusting Logit in Gaussian Form for Long-Tailed Visual Recognition, IEEE TAI 5(10), 2024,
            arXiv 2305.10648 (the angular form).

    Args:
        class_counts: Training images per class, length C.
        scale: ``S``.
        noise: ``E`` in [0, 1], the amplitude on the smallest class as a share of a right angle.
        margin: ``m`` in [0, pi/2], radians.
        easy_margin: Turn only angles below 90 degrees, and leave the others as they are.
        focal_gamma: ``g`` of the focal form of stage 2; 0 for none. See :class:`GCLLoss`.
        signed: Draw ``e`` instead of ``|e|``.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: An option outside its range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = AngularGCLLoss([500, 50, 5])
        >>> bool(loss(torch.tensor([[0.6, 0.1, 0.4]]), torch.tensor([2])) > 6.0)
        True
    """

    head = "cosine"
    _tail_weight: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        scale: float = 30.0,
        noise: float = 0.1,
        margin: float = 0.0,
        easy_margin: bool = False,
        focal_gamma: float = 0.0,
        signed: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        check_range("scale", scale, 0.0)
        check_range("noise", noise, 0.0, 1.0)
        check_range("margin", margin, 0.0, math.pi / 2)
        check_range("focal_gamma", focal_gamma, 0.0)
        self.scale, self.noise, self.margin, self.easy_margin = scale, noise, margin, easy_margin
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
        noise = self.sample_noise(logits)
        return agcl_logits(
            logits,
            noise if self.signed else noise.abs(),
            self._tail_weight,
            scale=self.scale,
            amplitude=self.noise,
            margin=self.margin,
            easy_margin=self.easy_margin,
        )
