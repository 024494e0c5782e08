"""Depthwise convolutions on images smaller than their kernel have the gradients of any other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from longtail.models.depthwise import Float32Training, SmallDepthwiseConv2d, with_fast_depthwise


@pytest.mark.parametrize(
    ("side", "kernel", "padding"), [(3, 5, 2), (1, 3, 1), (2, 5, 2), (4, 7, 3), (3, 5, 1), (9, 5, 2)]
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_those_of_a_plain_convolution(
    side: int, kernel: int, padding: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(16, 16, kernel, padding=padding, groups=16, bias=False)).double()
    fast = with_fast_depthwise(copy.deepcopy(plain))
    images = torch.randn(4, 16, side, side, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    slopes = []
    for network in (plain, fast):
        result = network(images)
        total = (result * torch.linspace(-1, 1, result.numel(), dtype=torch.float64).view(result.shape)).sum()
        wanted = torch.autograd.grad(total, (images, next(network.parameters())))
        slopes.append((result, *wanted))
    for first, second in zip(*slopes, strict=True):
        torch.testing.assert_close(first, second)
    assert isinstance(fast[0], SmallDepthwiseConv2d)
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_other_convolutions_are_left_as_they_are() -> None:
    others = [
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 16, 3, groups=8, bias=False),
        nn.Conv2d(8, 8, 1, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
    ]
    changed = with_fast_depthwise(nn.Sequential(*others))
    assert not any(isinstance(module, SmallDepthwiseConv2d) for module in changed)
    assert [isinstance(module, Float32Training) for module in changed] == [False, True, False, True, True, True]


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (9, 1), (9, 2)])
def test_under_autocast_they_train_in_float32(side: int, stride: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(16, 16, 5, stride, padding=2, groups=16, bias=False))
    fast = with_fast_depthwise(copy.deepcopy(plain))
    images = torch.randn(4, 16, side, side).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = fast(images)
    slope = torch.randn(result.shape).bfloat16()
    (gradient,) = torch.autograd.grad(result, fast.parameters(), slope)
    (expected,) = torch.autograd.grad(plain(images.float()), plain.parameters(), slope.float())
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, expected)  # to rounding in float32
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert fast.eval()(images).equal(plain(images))
