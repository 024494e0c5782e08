"""Logit adjustment: balanced softmax is its case of tau one."""

from __future__ import annotations

import torch
from torch.nn import functional

from longtail.losses import (
    BalancedSoftmaxLoss,
    LogitAdjustedLoss,
)

COUNTS = [500, 50, 5]


LOGITS = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.1, -1.0], [0.0, 2.0, 0.5]], dtype=torch.float64)


TARGET = torch.tensor([0, 2, 1])


def test_balanced_softmax_is_logit_adjustment_at_one() -> None:
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    expected = functional.cross_entropy(LOGITS + prior.log(), TARGET)
    for loss in (BalancedSoftmaxLoss(COUNTS), LogitAdjustedLoss(COUNTS)):
        torch.testing.assert_close(loss(LOGITS, TARGET), expected, rtol=1e-6, atol=0)
    half = functional.cross_entropy(LOGITS + 0.5 * prior.log(), TARGET)
    torch.testing.assert_close(LogitAdjustedLoss(COUNTS, tau=0.5)(LOGITS, TARGET), half, rtol=1e-6, atol=0)
