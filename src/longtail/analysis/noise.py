"""The effective cloud: how far, and how unevenly, the noise of a loss moves the logit of each class."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail.counts import FloatArray
from longtail.device import seeded
from longtail.losses.base import LongTailLoss

AT_ONCE = 1 << 22
"""Numbers drawn at a time, so that a thousand draws for thousands of classes fit in memory."""


@dataclass(frozen=True)
class EffectiveCloud:
    """Perturbation of each class's logit, each of shape (C,), in units of the logits that the loss takes.

    Attributes:
        mean: Mean of the perturbation; below zero where the noise pulls the logit down.
        spread: Its standard deviation.
    """

    mean: FloatArray
    spread: FloatArray


def effective_cloud(
    loss: LongTailLoss,
    *,
    draws: int = 4096,
    logit: float = 0.0,
    weight: npt.NDArray[np.floating] | Tensor | None = None,
    seed: int = 0,
) -> EffectiveCloud:
    """Mean and standard deviation of what the noise of a loss adds to the logit of each class that is not the label.

    The logits are drawn through the loss itself, its :meth:`sample_noise` and :meth:`adjust_logits`, and compared with
    their value for zero noise; so a loss that is written tomorrow is measured as well. For GCL the mean is
    ``-A d_j E|e|`` with ``E|e| = 0.265`` for ``e = clamp(Normal(0, 1/3), -1, 1)``, whatever the cosine. For AGCL the
    noise turns the angle, so that the answer depends on where it stood: at ``logit=0``, a right angle, it is largest.

    References:
        [1] Li, Cheung, Lu, Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022,
            arXiv 2305.11733, which says what the cloud is for.

    Args:
        loss: Any loss of this package; it is left as it is, and so is PyTorch's generator.
        draws: Draws a class.
        logit: The logit that is perturbed, the same for all classes: a cosine where the loss is made for those.
        weight: The classifier's weight, shape (C, D), for a loss that carries its noise through the classifier.
        seed: Seed of the draws.

    Returns:
        NaN for every class where the loss adds no noise, or reads a classifier and ``weight`` is not given.

    Raises:
        ValueError: Fewer than two draws.

    Example:
        >>> from longtail.losses import CrossEntropyLoss, GCLLoss
        >>> effective_cloud(GCLLoss([500, 50, 5], noise=0.5)).mean.round(2).tolist()
        [0.0, -0.07, -0.13]
        >>> effective_cloud(CrossEntropyLoss([500, 50, 5])).mean.tolist()
        [nan, nan, nan]
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}.")
    classes, absent = loss.num_classes, np.full(loss.num_classes, np.nan)
    if loss.needs_classifier and weight is None:
        return EffectiveCloud(absent, absent.copy())
    noisy, width = copy.deepcopy(loss), 1
    if weight is not None:
        width = weight.shape[1]
        if loss.needs_classifier:
            classifier = nn.Linear(width, classes, bias=False, device=loss.class_counts.device)
            classifier.load_state_dict({"weight": torch.as_tensor(weight, dtype=torch.float32)})
            noisy.attach_classifier(classifier)
    still = _without_noise(noisy)
    totals = torch.zeros(2, classes, dtype=torch.float64, device=loss.class_counts.device)
    with torch.no_grad(), seeded(totals.device, seed):
        largest = max(1, AT_ONCE // max(classes, width))
        for size in (min(largest, draws - begun) for begun in range(0, draws, largest)):
            logits = torch.full((size, classes), logit, device=totals.device)
            features = torch.ones(size, width, device=totals.device)
            moved = (
                noisy.adjust_logits(logits, features).logits - still.adjust_logits(logits, features).logits
            ).double()
            totals += torch.stack([moved.sum(0), (moved**2).sum(0)])
    if not totals[1].any():
        return EffectiveCloud(absent, absent.copy())
    mean, square = (totals / draws).cpu().numpy()
    spread = np.sqrt(np.maximum(square - mean**2, 0.0) * draws / (draws - 1))
    return EffectiveCloud(mean / loss.logit_scale, spread / loss.logit_scale)


def _without_noise(loss: LongTailLoss) -> LongTailLoss:
    """A copy whose draws are all zero; a loss that wraps another draws in the inner one."""
    still = copy.deepcopy(loss)
    for module in still.modules():
        if isinstance(module, LongTailLoss):
            module.sample_noise = torch.zeros_like  # type: ignore[method-assign,assignment]
    return still
