"""Depthwise convolutions that train on a CPU without the slow gradients of oneDNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

_KINDS: dict[type[nn.Conv2d], type[nn.Conv2d]] = {}  # what :class:`Float32Training` has been mixed into


class Float32Training:
    """A convolution, mixed into its class, that autocast on a CPU leaves in float32 while it trains.

    oneDNN has no fast gradient of a depthwise convolution in bfloat16: those of an EfficientNet-Lite0 at 96 px take
    three quarters of a step. Input and output stay in the dtype of autocast.
    """

    training: bool

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H', W') for (N, C, H, W)."""
        convolve: Callable[[Tensor], Tensor] = super().forward  # type: ignore[misc]
        trains = self.training and torch.is_grad_enabled() and images.device.type == "cpu"
        if not (trains and torch.is_autocast_enabled("cpu")):
            return convolve(images)
        with torch.autocast("cpu", enabled=False):
            return convolve(images.float()).to(torch.get_autocast_dtype("cpu"))


class SmallDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution; where its kernel is larger than the image, the weight gradient is summed tap by tap.

    oneDNN has no fast kernel for that case: the gradient of 1152 kernels of 5 x 5 on 32 images of 3 x 3, in the last
    blocks of an EfficientNet at 96 px, takes 45 ms of a core, and 6 ms as 25 sums of products.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H', W') for (N, C, H, W)."""
        is_small = min(images.shape[2:]) < max(self.kernel_size)
        trains = self.training and torch.is_grad_enabled()
        if not (is_small and trains and images.device.type == "cpu"):
            return super().forward(images)
        result: Tensor = _Depthwise.apply(images, self.weight, self.padding)  # type: ignore[no-untyped-call]
        return result


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 without bias."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return F.conv2d(images, weight, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        images, weight = ctx.saved_tensors
        below = above = None
        if ctx.needs_input_grad[0]:
            below = conv2d_input(images.shape, weight, gradient, padding=ctx.padding, groups=len(weight))  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            above = depthwise_weight_gradient(images, gradient, weight.shape, ctx.padding)
        return below, above, None


def depthwise_weight_gradient(images: Tensor, gradient: Tensor, shape: torch.Size, padding: tuple[int, int]) -> Tensor:
    """Return the gradient of the weights (C, 1, K, L) of a depthwise convolution of stride 1.

    Args:
        images: Its input (N, C, H, W).
        gradient: That of its output (N, C, H', W').
        shape: Of the weights.
        padding: Rows and columns of zeros around the images.

    Example:
        >>> images, gradient = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        >>> depthwise_weight_gradient(images, gradient, torch.Size([1, 1, 3, 3]), (1, 1)).tolist()
        [[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]
    """
    pixels, slopes = images.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    (height, width), (rows, columns) = images.shape[2:], gradient.shape[2:]
    result = images.new_zeros(shape[2], shape[3], len(images[0]))
    for i in range(shape[2]):
        for j in range(shape[3]):  # output (a, b) sees pixel (a + i - p, b + j - q)
            down, right = i - padding[0], j - padding[1]
            a, b = max(0, -down), max(0, -right)
            c, d = min(rows, height - down), min(columns, width - right)
            if a < c and b < d:
                seen = pixels[:, a + down : c + down, b + right : d + right]
                result[i, j] = (seen * slopes[:, a:c, b:d]).sum((0, 1, 2))
    return result.permute(2, 0, 1).unsqueeze(1)


def with_fast_depthwise(network: nn.Module) -> nn.Module:
    """Let the depthwise convolutions of a network train fast; weights and names stay.

    Each becomes a :class:`Float32Training`, and where it can be, a :class:`SmallDepthwiseConv2d` too.

    Example:
        >>> network = with_fast_depthwise(nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)))
        >>> isinstance(network[0], SmallDepthwiseConv2d), network(torch.zeros(2, 8, 3, 3)).shape
        (True, torch.Size([2, 8, 3, 3]))
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1:
            module.__class__ = _trained_in_float32(SmallDepthwiseConv2d if _is_plain(module) else type(module))
    return network


def _trained_in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    if not issubclass(kind, Float32Training) and kind not in _KINDS:
        _KINDS[kind] = type(kind.__name__, (Float32Training, kind), {"__module__": kind.__module__})
    return _KINDS.get(kind, kind)


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether a depthwise convolution is one that :class:`SmallDepthwiseConv2d` can take the place of."""
    return (
        type(module) is nn.Conv2d
        and module.bias is None
        and module.stride == module.dilation == (1, 1)
        and isinstance(module.padding, tuple)
        and module.padding_mode == "zeros"
        and max(module.kernel_size) > 1
    )
