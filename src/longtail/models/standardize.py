"""Standardize: where features were computed elsewhere, this stands in the place of the backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FARTHEST = 1e15  # deviations from the mean; the square still fits float32, in which the classifier computes


class Standardize(nn.Module):
    """``(x - mean) / deviation`` of each feature, with the numbers of the data it was fitted to.

    Computed in float64, so that offset and unit of a feature do not change the result, which is float32. Not every
    accelerator supports float64: leave this module on the CPU.

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
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(num_features, dtype=torch.float64))

    def fit(self, features: Tensor) -> Standardize:
        """Take mean and deviation from features (N, D); a feature that never changes keeps its scale."""
        largest = features.double().abs().amax(dim=0)
        unit = torch.where(largest > 0, largest, 1.0)  # a square of 1e200 would be infinite, one of 1e-200 zero
        deviation, mean = torch.std_mean(features.double() / unit, dim=0, correction=0)
        # Rounding a constant does not make it vary.
        constant = (features.amin(dim=0) == features.amax(dim=0)) | (
            deviation <= torch.finfo(features.dtype).eps * mean.abs()
        )
        self.mean.copy_(mean * unit)
        self.deviation.copy_(torch.where(constant, torch.ones_like(deviation), deviation * unit))
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return standardized features, float32 (N, D); values beyond 1e15 deviations are clipped."""
        # In halves, as the difference of two large numbers may overflow float64.
        distance = (features.double() / 2 - self.mean / 2) / (self.deviation / 2)
        return distance.clamp(-_FARTHEST, _FARTHEST).float()
