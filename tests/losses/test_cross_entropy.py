"""Cross-entropy and its focal form."""

from __future__ import annotations

import torch
from torch.nn import functional

from longtail.losses import (
    FocalLoss,
)

COUNTS = [500, 50, 5]


LOGITS = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.1, -1.0], [0.0, 2.0, 0.5]], dtype=torch.float64)


TARGET = torch.tensor([0, 2, 1])


def test_focal_gamma_zero_is_cross_entropy() -> None:
    torch.testing.assert_close(FocalLoss(COUNTS, gamma=0.0)(LOGITS, TARGET), functional.cross_entropy(LOGITS, TARGET))


def test_focal_factor_is_in_the_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    p = logits.softmax(1)[torch.arange(3), TARGET]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    value = FocalLoss(COUNTS)(logits, TARGET)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (value, expected)))
