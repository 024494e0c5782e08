"""What is done to a trained model's logits before softmax: one gain and one offset a class, stored in model.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adjustment:
    """A post-hoc adjustment as it is applied: ``z'_j = gain_j z_j + offset_j`` on the network's unchanged logits.

    Every adjustment in use has this form: the scale ``S`` of a cosine classifier, a temperature, ``-tau log pi_j`` of
    logit adjustment, an assumed prior, and tau-normalisation, which divides ``w_j f`` (without the bias) by
    ``||w_j||^tau``.

    Attributes:
        gain: Factor on each logit, length C.
        offset: What is then added, length C.
        chosen: What it came from and how it was chosen: plain values, for people and reports.

    Example:
        >>> Adjustment(gain=(2.0, 2.0), offset=(0.0, 1.0)).apply(torch.tensor([[1.0, 1.0]]))
        tensor([[2., 3.]])
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, logits: Tensor) -> Tensor:
        """Return adjusted logits (N, C), float32 at least, for the network's logits (N, C)."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        gain, offset = (
            torch.tensor(values, dtype=wide.dtype, device=wide.device) for values in (self.gain, self.offset)
        )
        return wide * gain + offset
