"""Standardize: where features were computed elsewhere, this stands in the place of the backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """``(x - mean) / deviation`` of each feature, with the numbers of the data it was fitted to.

    Args:
        num_features: Feature size D.

    Example:
        >>> rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
        >>> Standardize(2).fit(rows)(rows).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))

    def fit(self, features: Tensor) -> Standardize:
        """Take mean and deviation from features (N, D); a feature that never changes keeps its scale."""
        wide = features.double()
        deviation, mean = torch.std_mean(wide, dim=0, correction=0)
        # What rounding leaves of a constant is no variation.
        constant = deviation <= torch.finfo(torch.float32).eps * mean.abs().clamp_min(1e-30)
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(constant, torch.ones_like(deviation), deviation))
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised features, (N, D)."""
        return (features - self.mean) / self.deviation
