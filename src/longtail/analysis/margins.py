"""Margins: by how much the score of the true class leads the highest other, per image and by shot group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.counts import FloatArray, GroupName, IntArray
from longtail.evaluation.groups import class_weights, group_masks

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FLOOR = float(np.finfo(np.float32).tiny)
"""A probability below this, which float32 no longer holds in full, is taken for it: no margin exceeds 87.3."""
TRIMMED = 0.002
"""This share of all margins may lie beyond each end of a histogram, where it is not drawn."""


@dataclass(frozen=True)
class MarginDistribution:
    """The margins of some images.

    Attributes:
        images: How many there are.
        quantiles: At ``QUANTILES``, shape (5,); NaN without images.
        negative: Share below 0, which is classified wrongly; NaN without images.
        density: Per unit of the margin, shape (B,) for B + 1 edges; it integrates to the share of the images that lie
            within the edges. NaN without images.
    """

    images: int
    quantiles: FloatArray
    negative: float
    density: FloatArray

    @property
    def median(self) -> float:
        """The margin that half of the images exceed; NaN without images."""
        return float(self.quantiles[QUANTILES.index(0.5)])


def margins_of_predictions(
    label: IntArray,
    prediction: IntArray,
    confidence: npt.ArrayLike,
    second: npt.ArrayLike,
    probability_true: npt.ArrayLike,
) -> FloatArray:
    r"""The margins :math:`z_y - \max_{j \ne y} z_j` of the scores that softmax sees, from a file of probabilities.

    Softmax subtracts the same number from all scores of an image, so that the margin is
    :math:`\log p_y - \log \max_{j \ne y} p_j`. The highest other probability is the second where the prediction is
    right, and that of the prediction where it is wrong. Probabilities are clipped at the smallest normal float32.

    References:
        [1] Cao, Wei, Gaidon, Arechiga, Ma, Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss,
            NeurIPS 2019, section 3 (the margin of an example).

    Args:
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        confidence: Probability of the predicted class, shape (N,).
        second: Second highest probability, shape (N,).
        probability_true: Probability of the true class, shape (N,).

    Returns:
        Shape (N,), in units of the scores; positive where the prediction is right.

    Example:
        >>> found = margins_of_predictions(np.array([0, 1]), np.array([0, 0]), [0.6, 0.8], [0.3, 0.2], [0.6, 0.2])
        >>> found.round(2).tolist()
        [0.69, -1.39]
    """
    other = np.where(np.asarray(label) == np.asarray(prediction), np.asarray(second), np.asarray(confidence))
    true = np.asarray(probability_true, dtype=np.float64)
    return np.asarray(np.log(np.maximum(true, FLOOR)) - np.log(np.maximum(other, FLOOR)), dtype=np.float64)


def shared_edges(margins: Sequence[npt.ArrayLike], *, bins: int = 40) -> FloatArray:
    """Edges for histograms of several sets of margins, so that they can be laid over each other; 0 is one of them.

    They reach over all margins but the outermost ``TRIMMED`` at each end, and around 0.

    Args:
        margins: Sets of margins, of any lengths.
        bins: About how many bins there are.

    Example:
        >>> shared_edges([[-1.0, 0.0], [3.0]], bins=4).round(2).tolist()
        [-1.0, 0.0, 1.0, 1.99, 2.99]
    """
    everything = np.concatenate([np.asarray(one, dtype=np.float64).ravel() for one in margins])
    low, high = np.quantile(everything, [TRIMMED, 1 - TRIMMED]) if everything.size else (0.0, 0.0)
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    step = (high - low) / bins or 1.0
    return np.asarray(step * np.arange(np.floor(low / step), max(np.ceil(high / step), 1) + 1), dtype=np.float64)


def margin_distribution(
    margin: npt.ArrayLike, edges: FloatArray, weight: npt.ArrayLike | None = None
) -> MarginDistribution:
    """Summarize margins.

    Args:
        margin: Shape (N,).
        edges: Rising, shape (B + 1,).
        weight: How much each image counts, shape (N,); all the same when not given.

    Example:
        >>> summary = margin_distribution([-1.0, 1.0, 3.0, 9.0], np.array([-2.0, 0.0, 2.0, 4.0]))
        >>> summary.negative, summary.median, summary.density.tolist()
        (0.25, 2.0, [0.125, 0.125, 0.125])
    """
    values = np.asarray(margin, dtype=np.float64)
    worth = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not values.size:
        nothing = np.full(len(QUANTILES), np.nan)
        return MarginDistribution(0, nothing, float("nan"), np.full(len(edges) - 1, np.nan))
    share = worth / worth.sum()
    density = np.histogram(values, edges, weights=share)[0] / np.diff(edges)
    order = np.argsort(values)
    below = np.cumsum(share[order]) - share[order] / 2  # the share below an image, and half of its own
    quantiles = np.interp(QUANTILES, below, values[order])
    return MarginDistribution(len(values), quantiles, float(share[values < 0].sum()), density)


def group_margins(
    margin: FloatArray, label: IntArray, group_of: Sequence[GroupName], edges: FloatArray
) -> dict[GroupName, MarginDistribution]:
    """The distribution of the margins of each shot group, every class counting the same: below 0 is its error.

    Args:
        margin: Shape (N,).
        label: True classes, shape (N,).
        group_of: Shot group of each class, length C.
        edges: See :func:`shared_edges`.

    Example:
        >>> groups = group_margins(np.array([2.0, -1.0]), np.array([0, 1]), ["many", "few"], np.array([-2.0, 0.0, 3.0]))
        >>> groups["few"].negative, groups["medium"].images
        (1.0, 0)
    """
    weight, masks = class_weights(label), group_masks(label, group_of)
    return {name: margin_distribution(margin[mask], edges, weight[mask]) for name, mask in masks.items()}
