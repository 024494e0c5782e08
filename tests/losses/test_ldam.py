"""LDAMLoss: margins worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from longtail.losses import (
    LDAMLoss,
)


def test_ldam_margins_by_hand() -> None:
    loss = LDAMLoss([16, 1], max_margin=0.5, scale=10.0)
    cosine = torch.tensor([[0.5, 0.5]])
    assert loss(cosine, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(10 * 0.25)))
    assert loss(cosine, torch.tensor([1])).item() == pytest.approx(math.log1p(math.exp(10 * 0.5)))
