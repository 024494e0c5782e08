"""FBL: the curricula, and the pull on feature norms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from longtail.losses import FBLoss
from longtail.losses.fbl import curriculum_weight, fbl_logits

CURRICULA: dict[Any, Any] = {
    "parabolic": lambda t: t**2,
    "linear": lambda t: t,
    "cosine": lambda t: 1 - math.cos(math.pi * t / 2),
    "sine": lambda t: math.sin(math.pi * t / 2),
    "constant": lambda _: 1.0,
    "reverse": lambda t: 1 - t,
}


@pytest.mark.parametrize("name", CURRICULA)
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_curriculum(name: Any, progress: float) -> None:
    value = curriculum_weight(name, torch.tensor(progress, dtype=torch.float64))
    assert value.item() == pytest.approx(CURRICULA[name](progress))
    loss = FBLoss([500, 50, 5], curriculum=name, strength=10.0)
    loss.progress = progress
    features = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    changed = loss.adjust_logits(torch.zeros(1, 3, dtype=torch.float64), features).logits
    expected = -CURRICULA[name](progress) * 10.0 / 5.0 * torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(changed, expected, rtol=1e-6, atol=1e-7)


def test_tail_samples_are_pushed_to_larger_norms() -> None:
    loss = FBLoss([500, 50, 5])
    loss.progress = 1.0
    features = torch.tensor([[3.0, 4.0]], requires_grad=True)
    loss(torch.zeros(1, 3), torch.tensor([2]), features).backward()
    assert features.grad is not None
    assert (features.grad @ features.detach().T).item() < 0


def test_zero_features_change_logits_by_a_finite_amount() -> None:
    features = torch.zeros(1, 4, requires_grad=True)
    changed = fbl_logits(torch.zeros(1, 2), features, torch.tensor([0.0, 1.0]), torch.tensor(60.0))
    assert changed.tolist() == [[0.0, pytest.approx(-6e13)]]


def test_unknown_curriculum_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="parabolic"):
        FBLoss([5, 3], curriculum="parabola")  # type: ignore[arg-type]
