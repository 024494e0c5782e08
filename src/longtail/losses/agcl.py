"""AGCL: Gaussian clouded logits in angular form; the noise turns the angle between feature and class."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import threshold

from longtail.counts import ClassCountsLike
from longtail.losses.base import AdjustedLogits, AutoValue, CommonOptions, check_range
from longtail.losses.gcl import GCLLoss

# The square of sin(theta) up to which it counts as 0; the slope of the root is infinite there.
_FLOOR = 1e-7
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]  # exact to 1e-13 up to pi / 4
CACHED = 1 << 16  # numbers worked on at a time: tensors of this size stay in a core's cache


def add_angle(cosine: Tensor, angle: Tensor, *, easy_margin: bool = False) -> Tensor:
    """``cos(theta + phi)``, continued where it would turn back, shape (N, C).

    Differentiable once, in the cosine; the angle, which is noise, gets no gradient.

    Args:
        cosine: ``cos(theta)``, shape (N, C), in [-1, 1].
        angle: ``phi`` in [-pi, pi], shape (N, C).
        easy_margin: Add the angle only where ``cos(theta) > 0``. Otherwise it is added where ``theta + phi <= pi``,
            and ``cos(theta) - sin(phi)`` is taken beyond.

    Example:
        >>> add_angle(torch.tensor([[1.0, 0.0, -1.0]]), torch.full((1, 3), torch.pi / 6)).round(decimals=3)
        tensor([[ 0.8660, -0.5000, -1.5000]])
    """
    turned: Tensor = _AddAngle.apply(cosine, angle, easy_margin)  # type: ignore[no-untyped-call]
    return turned


class _AddAngle(torch.autograd.Function):
    """Works out the slope with the value, so that one tensor is kept for the backward pass and not ten."""

    @staticmethod
    def forward(ctx: FunctionCtx, cosine: Tensor, angle: Tensor, easy_margin: bool) -> Tensor:
        rows = len(cosine) if torch.compiler.is_compiling() else max(1, CACHED // cosine.shape[1])
        if rows >= len(cosine):
            value, slope = _turned(cosine, angle, easy_margin)
        else:
            value, slope = torch.empty_like(cosine), torch.empty_like(cosine)
            for start in range(0, len(cosine), rows):
                part = slice(start, start + rows)
                value[part], slope[part] = _turned(cosine[part], angle[part], easy_margin)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


def _turned(cosine: Tensor, angle: Tensor, easy_margin: bool) -> tuple[Tensor, Tensor]:
    """The value of :func:`add_angle` and its slope in the cosine; in place where no caller sees the tensor."""
    if easy_margin:
        # Equation 25: no angle where cos(theta) <= 0. A zero angle leaves value and slope as they are, for less than a
        # choice of the two.
        angle = cosine.sign().clamp_(min=0).mul_(angle)
    sin_angle, cos_angle = _sine_and_cosine(angle)
    square = (1 - cosine).mul_(1 + cosine)
    # 1 / sin(theta), and zero at the ends, where the slope is infinite and only the rest of it is taken.
    inverse = threshold(square, _FLOOR, math.inf).rsqrt_()
    value = (cosine * cos_angle).addcmul_(square.mul_(inverse), sin_angle, value=-1)
    slope = inverse.mul_(cosine).mul_(sin_angle).add_(cos_angle)
    if easy_margin:
        return value, slope
    # Equation 24: cos(theta + phi) where theta + phi <= pi, else cos(theta) - sin(phi). The condition needs no arc
    # cosine; a negative angle never passes pi. It is a number, as choosing by a truth value takes ten times as long.
    within = torch.maximum(cos_angle.add_(cosine), -angle).ge_(0)
    return torch.lerp(cosine - sin_angle, value, within), slope.sub_(1).mul_(within).add_(1)


def _sine_and_cosine(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Both for angles in [-pi, pi]; compiled, from the series of a quarter of the angle, doubled twice.

    The compiler works out what is cheap for it anew wherever it is needed, and takes these two for cheap.
    """
    if not torch.compiler.is_compiling():
        return angle.sin(), angle.cos()
    quarter = angle / 4
    square = quarter.square()
    series = square * _SINE[-1]
    for coefficient in reversed(_SINE[1:-1]):
        series.add_(coefficient).mul_(square)
    sine = series.add_(_SINE[0]).mul_(quarter)
    cosine = (1 - sine.square()).sqrt_()
    for _ in range(2):  # sin 2x = 2 sin x cos x, cos 2x = 1 - 2 sin^2 x
        sine, cosine = cosine.mul_(sine).mul_(2), 1 - sine.square_().mul_(2)
    return sine, cosine


def agcl_logits(
    cosine: Tensor,
    noise: Tensor,
    tail_weight: Tensor,
    *,
    scale: float = 30.0,
    amplitude: float,
    margin: float = 0.0,
    easy_margin: bool = False,
    signed: bool = False,
) -> AdjustedLogits:
    """``S cos(theta_j + phi_j)`` with ``phi_j = (pi/2) E |e_j| w_j``, and ``phi_y + m`` for the label.

    Args:
        cosine: Cosine logits, shape (N, C), in [-1, 1].
        noise: ``e``, shape (N, C), in [-1, 1].
        tail_weight: ``w_j`` in [0, 1], 0 at the head and 1 at the tail, shape (C,).
        scale: ``S``.
        amplitude: ``E`` in [0, 1].
        margin: ``m`` in [0, pi/2].
        easy_margin: See :func:`add_angle`.
        signed: Take ``e`` in place of ``|e|``.

    Example:
        >>> cosine, noise = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        >>> agcl_logits(cosine, noise, torch.tensor([0.0, 1.0]), amplitude=1 / 3).logits.round(decimals=3)
        tensor([[  0., -15.]])
    """
    # Equation 23: phi_j = (pi/2) E |e_j| w_j, and phi_y plus m
    limit = (math.pi / 2 * amplitude * tail_weight).to(cosine.dtype)
    angle = noise * limit if signed else noise.abs().mul_(limit)
    others = add_angle(cosine, angle, easy_margin=easy_margin).mul_(scale)
    target = add_angle(cosine, angle.add_(margin), easy_margin=easy_margin).mul_(scale) if margin else None
    return AdjustedLogits(others, target_logits=target)


class AngularGCLLoss(GCLLoss):
    """``CE(S c, y)`` on a cosine classifier with ``c_j = cos(theta_j + phi_j)``, ``phi_j = (pi/2) E |e_j| w_j``.

    ``e`` is drawn anew for every sample, class and call, and ``w_j`` is the tail weight; ``phi_y`` of the label is
    larger by the margin ``m``. Differentiable once.

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

    # No E is published for CIFAR-LT.
    auto_values = MappingProxyType({"scale": AutoValue(30.0), "noise": AutoValue(0.1)})

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
        check_range("noise", noise, 0.0, 1.0)
        check_range("margin", margin, 0.0, math.pi / 2)
        options: Any = {"scale": scale, "noise": noise, "margin": margin, "focal_gamma": focal_gamma, "signed": signed}
        super().__init__(class_counts, **options, **common)
        self.easy_margin = easy_margin

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``S c``."""
        noise = self.sample_noise(logits)
        return agcl_logits(logits, noise, self._tail_weight, easy_margin=self.easy_margin, **self._cloud)
