"""Depthwise convolutions on images smaller than their kernel have the gradients of any other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from longtail.models.depthwise import SmallDepthwiseConv2d, with_fast_depthwise


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
    assert {type(module) for module in with_fast_depthwise(nn.Sequential(*others))} == {nn.Conv2d}
