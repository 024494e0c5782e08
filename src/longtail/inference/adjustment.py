"""What is done to a trained model's logits before softmax: one gain and one offset a class, stored in model.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray

Prior: TypeAlias = Literal["train", "uniform"] | tuple[float, ...]
"""A mix of classes: as in training, all alike, or a share of each class."""


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
        prior: The mix of classes that the probabilities assume once it is applied.

    Example:
        >>> Adjustment(gain=(2.0, 2.0), offset=(0.0, 1.0)).apply(torch.tensor([[1.0, 1.0]]))
        tensor([[2., 3.]])
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    prior: Prior = "train"

    def apply(self, logits: Tensor) -> Tensor:
        """Return adjusted logits (N, C), float32 at least, for the network's logits (N, C)."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        gain, offset = (
            torch.tensor(values, dtype=wide.dtype, device=wide.device) for values in (self.gain, self.offset)
        )
        return wide * gain + offset


def prior_shares(prior: Prior, class_counts: ClassCountsLike) -> FloatArray:
    """Return the share of each class, float64 (C,), summing to 1.

    Args:
        prior: ``"train"``, ``"uniform"``, or positive shares of any sum, length C.
        class_counts: Training images per class, length C; a class with none counts as one.

    Example:
        >>> prior_shares("train", [75, 25]).tolist(), prior_shares("uniform", [75, 25]).tolist()
        ([0.75, 0.25], [0.5, 0.5])
    """
    counts = ClassCounts.of(class_counts)
    if prior == "train":
        return counts.prior
    shares = np.ones(len(counts)) if prior == "uniform" else np.asarray(prior, dtype=np.float64)
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def logit_adjustment(
    class_counts: ClassCountsLike, tau: float, *, temperature: float = 1.0, scale: float = 1.0, prior: Prior = "train"
) -> Adjustment:
    """Logit adjustment of calibrated logits: ``S z_j / T - tau log pi_j``.

    The temperature comes first, so that ``tau`` says which mix of classes the probabilities then assume: the one the
    network was trained for, divided by ``pi^tau``. ``tau = 1`` on a network trained on the images as they come assumes
    all classes alike; a strength between 0 and 1 assumes ``pi^(1 - tau)``. With ``T = 1`` it is
    :func:`longtail.evaluation.adjust.logit_adjust`; with ``tau = 0``, temperature scaling.

    References:
        [1] Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 9.

    Args:
        class_counts: Training images per class, length C; a class with none counts as one.
        tau: Strength; 0 adjusts nothing.
        temperature: T > 0.
        scale: What multiplies the logits anyhow: the ``S`` of a cosine classifier.
        prior: The mix that the network's own probabilities assume.

    Example:
        >>> adjustment = logit_adjustment([75, 25], 1.0)
        >>> adjustment.apply(torch.zeros(1, 2)).softmax(dim=1), adjustment.prior
        (tensor([[0.2500, 0.7500]]), 'uniform')
    """
    frequencies = ClassCounts.of(class_counts).prior
    offset = tuple(float(value) for value in -tau * np.log(frequencies) + 0.0)  # + 0.0 turns -0.0 into 0.0
    after: Prior = prior
    if prior == "train" and tau == 1:
        after = "uniform"
    elif tau != 0:
        logs = np.log(prior_shares(prior, class_counts)) - tau * np.log(frequencies)
        after = tuple(float(value) for value in np.exp(logs - np.logaddexp.reduce(logs)))
    return Adjustment((scale / temperature,) * len(offset), offset, prior=after)


def tau_normalization(weight: Tensor, bias: Tensor | None, tau: float, *, temperature: float = 1.0) -> Adjustment:
    """Tau-normalisation of a linear classifier, from its logits: ``(z_j - b_j) / (T ||w_j||^tau)``.

    It equals the classifier with the weights of :func:`longtail.evaluation.adjust.tau_normalize` and no bias. Its
    probabilities are taken to assume all classes alike, which is what it is for; no formula says so.

    References:
        [1] Kang et al., Decoupling representation and classifier for long-tailed recognition, ICLR 2020, equation 4.

    Args:
        weight: The classifier's weights (C, D).
        bias: Its bias (C,), which is taken out, or None.
        tau: 0 takes out the bias alone, 1 makes all lengths equal.
        temperature: T > 0.

    Example:
        >>> weight, bias = torch.tensor([[3.0, 4.0], [0.0, 0.5]]), torch.tensor([1.0, 1.0])
        >>> tau_normalization(weight, bias, 1.0).apply(torch.tensor([[11.0, 1.5]]))
        tensor([[2., 1.]])
    """
    length = weight.detach().double().norm(dim=1)
    gain = torch.where(length > 0, length, 1.0) ** -tau / temperature
    taken = torch.zeros_like(gain) if bias is None else bias.detach().double()
    return Adjustment(tuple(gain.tolist()), tuple((-taken * gain + 0.0).tolist()), prior="uniform")
