"""Depthwise convolutions on a CPU whose kernel is larger than their image: a weight gradient that is not slow."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


class SmallDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution; where its kernel is larger than the image, the weight gradient is summed tap by tap.

    oneDNN has no fast kernel for that case: the gradient of 1152 kernels of 5 x 5 on 32 images of 3 x 3, in the last
    blocks of an EfficientNet at 96 px, takes 45 ms of a core, and 6 ms as 25 sums of products.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H', W') for (N, C, H, W)."""
        is_small = min(images.shape[2:]) < max(self.kernel_size)
        trains = self.training and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
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
    """Let the depthwise convolutions of a network be :class:`SmallDepthwiseConv2d`; weights and names stay.

    Example:
        >>> network = with_fast_depthwise(nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)))
        >>> type(network[0]).__name__, network(torch.zeros(2, 8, 3, 3)).shape
        ('SmallDepthwiseConv2d', torch.Size([2, 8, 3, 3]))
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_depthwise(module):
            module.__class__ = SmallDepthwiseConv2d
    return network


def _is_depthwise(module: nn.Conv2d) -> bool:
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None
        and module.stride == module.dilation == (1, 1)
        and isinstance(module.padding, tuple)
        and module.padding_mode == "zeros"
        and max(module.kernel_size) > 1
    )
