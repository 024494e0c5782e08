"""Records of each class epoch by epoch: gradients, and the saturation of its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.metrics import shot_group_indices

EDGES = (0.0, 0.001, 0.01, *(step / 20 for step in range(1, 20)), 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1.0)
"""Bins of p_y, fine where softmax saturates; a bin holds its lower edge, and the last one holds 1 too."""
BINS = len(EDGES) - 1
THRESHOLDS = (0.9, 0.99, 0.999)


@dataclass(frozen=True)
class GradientBalance:
    """Raising against lowering gradient, and their ratio; below 1 a logit was pushed down more than it was pulled up.

    Attributes:
        classes: Ratio of each class in each epoch, shape (E, C); NaN for a class without images in that epoch.
        groups: Of all classes of a shot group together, shape (E, 3), in the order of ``GROUP_NAMES``.
        whole: The same over all epochs together, shape (3,); give those of one stage, as a second one may draw the
            classes otherwise.
        raised: Accumulated gradient that raises the logit of a class, mean over those of a group that have images in
            the epoch, shape (E, 3); NaN where none has. A mean, so that groups of other sizes can be compared.
        lowered: The same of the gradient that lowers it; ``raised / lowered`` is ``groups``.
    """

    classes: FloatArray
    groups: FloatArray
    whole: FloatArray
    raised: FloatArray
    lowered: FloatArray


def gradient_ratio(positive: npt.ArrayLike, negative: npt.ArrayLike) -> FloatArray:
    r"""The ratio :math:`\sum_i \max(-g_{ic}, 0) / \sum_i \max(g_{ic}, 0)` of accumulated gradients.

    For cross-entropy the first is the sum of ``1 - p_c`` over the images of the class, and the second that of ``p_c``
    over all others. A classifier that has settled gives 1: its bias would move otherwise.

    References:
        [1] Tan et al., Equalization Loss v2, CVPR 2021, arXiv 2012.08548, equation 5.
        [2] Li, Cheung, Hu, Key Point Sensitive Loss for Long-Tailed Visual Recognition, IEEE TPAMI 45(4), 2023:
            negative gradients drown the tail.

    Args:
        positive: Accumulated gradient that raises the logit, any shape.
        negative: Accumulated gradient that lowers it, of the same shape.

    Returns:
        Of that shape; NaN where there is no negative gradient, so that nothing can be compared.

    Example:
        >>> gradient_ratio([1.0, 3.0, 2.0], [4.0, 3.0, 0.0]).tolist()
        [0.25, 1.0, nan]
    """
    up, down = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    return np.where(down > 0, up / np.where(down > 0, down, 1.0), np.nan)


def gradient_balance(
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    images: IntArray,
    group_of: Sequence[GroupName],
) -> GradientBalance:
    """Ratios by class and by group.

    Args:
        positive: Accumulated gradient that raises the logit of each class, shape (E, C).
        negative: Accumulated gradient that lowers it, shape (E, C).
        images: Number of images drawn of the class in the epoch, shape (E, C).
        group_of: Shot group of each class, length C.

    Returns:
        Sums and ratios; a class without images, which nothing can raise, is NaN by itself and no part of its group.

    Example:
        >>> balance = gradient_balance([[4, 1, 0]], [[4, 2, 1]], np.array([[9, 3, 0]]), ["many", "few", "few"])
        >>> balance.classes.tolist(), balance.groups.tolist()
        ([[1.0, 0.5, nan]], [[1.0, nan, 0.5]])
        >>> balance.raised.tolist(), balance.lowered.tolist()
        ([[4.0, nan, 1.0]], [[4.0, nan, 2.0]])
    """
    there = images > 0
    up = np.where(there, np.asarray(positive, dtype=np.float64), 0.0)
    down = np.where(there, np.asarray(negative, dtype=np.float64), 0.0)
    raised, lowered, present = (group_sums(part, group_of) for part in (up, down, there))
    some = np.where(present > 0, present, np.nan)
    return GradientBalance(
        classes=gradient_ratio(up, down),
        groups=gradient_ratio(raised, lowered),
        whole=gradient_ratio(raised.sum(axis=0), lowered.sum(axis=0)),
        raised=raised / some,
        lowered=lowered / some,
    )


def group_sums(values: npt.NDArray[Any], group_of: Sequence[GroupName]) -> npt.NDArray[Any]:
    """Add up the classes of each shot group, such as their histograms.

    Args:
        values: Shape (E, C, ...), such as images per class and bin, (E, C, B).
        group_of: Shot group of each class, length C.

    Returns:
        Shape (E, 3, ...), in the order of ``GROUP_NAMES``; zeros for a group without classes.

    Example:
        >>> counts = np.array([[[1, 0], [2, 1], [0, 4]]])
        >>> group_sums(counts, ["many", "few", "few"]).tolist()
        [[[1, 0], [0, 0], [2, 5]]]
    """
    numbers = shot_group_indices(group_of)
    return np.stack([values[:, numbers == number].sum(axis=1) for number in range(len(GROUP_NAMES))], axis=1)


def share_past(histograms: IntArray, threshold: float, edges: Sequence[float] = EDGES) -> FloatArray:
    """Share of the images whose p_y is at least ``threshold``.

    Args:
        histograms: Images per bin, shape (..., B).
        threshold: One of the edges.
        edges: Rising, length B + 1.

    Returns:
        Shape (...), in [0, 1]; NaN where there are no images.

    Raises:
        ValueError: ``threshold`` is not an edge, so that the images of a bin would have to be split.

    Example:
        >>> share_past(np.array([[2, 1, 1], [0, 0, 0]]), 0.9, edges=(0.0, 0.5, 0.9, 1.0)).tolist()
        [0.25, nan]
    """
    if threshold not in edges:
        raise ValueError(f"{threshold} is not an edge of these histograms: take one of {', '.join(map(str, edges))}.")
    total = histograms.sum(axis=-1)
    past = histograms[..., list(edges).index(threshold) :].sum(axis=-1)
    return np.where(total > 0, past / np.maximum(total, 1), np.nan)


def histogram_quantiles(histograms: IntArray, quantiles: Sequence[float], edges: Sequence[float] = EDGES) -> FloatArray:
    """Quantiles of p_y, taken as spread evenly within each bin.

    Args:
        histograms: Images per bin, shape (..., B).
        quantiles: Quantiles in [0, 1], length Q.
        edges: Rising, length B + 1.

    Returns:
        Shape (..., Q); NaN where there are no images.

    Example:
        >>> histogram_quantiles(np.array([[2, 2], [0, 0]]), [0.25, 0.5], edges=(0.0, 0.5, 1.0)).tolist()
        [[0.25, 0.5], [nan, nan]]
    """
    flat, bounds = histograms.reshape(-1, histograms.shape[-1]), np.asarray(edges, dtype=np.float64)
    values = np.full((len(flat), len(quantiles)), np.nan)
    for row in np.flatnonzero(flat.any(axis=1)):
        images = flat[row]
        reached = np.append(0, np.cumsum(images)) / images.sum()
        # An empty bin is a flat piece of the distribution: only its ends that hold images are met on the way up.
        met = np.append(True, images > 0) | np.append(images > 0, True)
        values[row] = np.interp(quantiles, reached[met], bounds[met])
    return values.reshape(*histograms.shape[:-1], len(quantiles))


def group_image_means(values: npt.ArrayLike, images: IntArray, group_of: Sequence[GroupName]) -> FloatArray:
    """Mean over the images of each shot group of something known per class, such as the gradient size 1 - p_y.

    Args:
        values: Mean of each class, shape (E, C); not looked at where the class has no images.
        images: Number of images behind each, shape (E, C).
        group_of: Shot group of each class, length C.

    Returns:
        Shape (E, 3), in the order of ``GROUP_NAMES``; NaN for a group without images.

    Example:
        >>> group_image_means([[0.25, 0.5, np.nan]], np.array([[1, 3, 0]]), ["many", "many", "few"]).tolist()
        [[0.4375, nan, nan]]
    """
    weighted = np.where(images > 0, np.asarray(values, dtype=np.float64), 0.0) * images
    total, sums = group_sums(images, group_of), group_sums(weighted, group_of)
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)
