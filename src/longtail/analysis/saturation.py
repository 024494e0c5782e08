"""Saturation: how the probability of the true class is spread over the epochs, and how much gradient is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.groups import group_numbers

EDGES = (
    0.0, 0.001, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
    0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1.0,
)  # fmt: skip
"""Bins of p_y, fine where softmax saturates; a bin holds its lower edge, and the last one holds 1 too."""
BINS = len(EDGES) - 1
THRESHOLDS = (0.9, 0.99, 0.999)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def group_histograms(histograms: npt.NDArray[np.integer[Any]], group_of: Sequence[GroupName]) -> IntArray:
    """Add up the histograms of the classes of each shot group.

    Args:
        histograms: Images per class and bin, shape (E, C, B).
        group_of: Shot group of each class, length C.

    Returns:
        Shape (E, 3, B), in the order of ``GROUP_NAMES``; zeros for a group without classes.

    Example:
        >>> counts = np.array([[[1, 0], [2, 1], [0, 4]]])
        >>> group_histograms(counts, ["many", "few", "few"]).tolist()
        [[[1, 0], [0, 0], [2, 5]]]
    """
    numbers = group_numbers(group_of)
    parts = [histograms[:, numbers == number].sum(axis=1) for number in range(len(GROUP_NAMES))]
    return np.stack(parts, axis=1).astype(np.int64)


def share_past(histograms: IntArray, threshold: float, edges: Sequence[float] = EDGES) -> FloatArray:
    """Share of the images whose p_y is at least ``threshold``.

    Args:
        histograms: Images per bin, shape (..., B).
        threshold: One of the edges.
        edges: Rising, length B + 1.

    Returns:
        Shape (...), in [0, 1]; NaN where there are no images.

    Raises:
        ValueError: ``threshold`` is no edge, so that the images of a bin would have to be split.

    Example:
        >>> share_past(np.array([[2, 1, 1], [0, 0, 0]]), 0.9, edges=(0.0, 0.5, 0.9, 1.0)).tolist()
        [0.25, nan]
    """
    if threshold not in edges:
        raise ValueError(f"{threshold} is no edge of these histograms; take one of {', '.join(map(str, edges))}.")
    total = histograms.sum(axis=-1)
    past = histograms[..., list(edges).index(threshold) :].sum(axis=-1)
    return np.where(total > 0, past / np.maximum(total, 1), np.nan)


def histogram_quantiles(
    histograms: IntArray, quantiles: Sequence[float] = QUANTILES, edges: Sequence[float] = EDGES
) -> FloatArray:
    """Quantiles of p_y, taken as spread evenly within each bin.

    Args:
        histograms: Images per bin, shape (..., B).
        quantiles: Which ones, in [0, 1], length Q.
        edges: Rising, length B + 1.

    Returns:
        Shape (..., Q); NaN where there are no images.

    Example:
        >>> histogram_quantiles(np.array([[2, 2], [0, 0]]), [0.25, 0.5], edges=(0.0, 0.5, 1.0)).tolist()
        [[0.25, 0.5], [nan, nan]]
    """
    flat = histograms.reshape(-1, histograms.shape[-1])
    found = np.full((len(flat), len(quantiles)), np.nan)
    bounds = np.asarray(edges, dtype=np.float64)
    for row, counts in enumerate(flat):
        if counts.any():
            found[row] = _quantiles(counts, quantiles, bounds)
    return found.reshape(*histograms.shape[:-1], len(quantiles))


def _quantiles(counts: IntArray, quantiles: Sequence[float], edges: FloatArray) -> FloatArray:
    reached = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    # An empty bin is a flat piece of the distribution: only its ends that hold images are met on the way up.
    kept = np.concatenate([[True], counts > 0]) | np.concatenate([counts > 0, [True]])
    return np.asarray(np.interp(np.asarray(quantiles, dtype=np.float64), reached[kept], edges[kept]), dtype=np.float64)


def group_means(values: npt.ArrayLike, images: IntArray, group_of: Sequence[GroupName]) -> FloatArray:
    """Mean over the images of each shot group of something known per class, such as the gradient size 1 - p_y.

    Args:
        values: Mean of each class, shape (E, C); not looked at where the class has no images.
        images: How many images that is of, shape (E, C).
        group_of: Shot group of each class, length C.

    Returns:
        Shape (E, 3), in the order of ``GROUP_NAMES``; NaN for a group without images.

    Example:
        >>> group_means([[0.25, 0.5, np.nan]], np.array([[1, 3, 0]]), ["many", "many", "few"]).tolist()
        [[0.4375, nan, nan]]
    """
    numbers = group_numbers(group_of)
    weighted = np.where(images > 0, np.asarray(values, dtype=np.float64), 0.0) * images
    found = []
    for number in range(len(GROUP_NAMES)):
        total = images[:, numbers == number].sum(axis=1)
        sums = weighted[:, numbers == number].sum(axis=1)
        found.append(np.where(total > 0, sums / np.maximum(total, 1), np.nan))
    return np.stack(found, axis=1)
