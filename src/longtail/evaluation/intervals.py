"""95% intervals of figures: proportions, F1, means over classes, the worst class; the sample size that clusters leave.

Images that come in clusters are not independent: frames of one film are right or wrong together. Their intervals are
those of the effective sample size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from longtail.counts import IntArray
from longtail.formatting import percent

Array: TypeAlias = npt.NDArray[np.float64]
Interval: TypeAlias = list[float]

LEVEL = 0.95
LEVEL_TEXT = percent(LEVEL, 0)
"""The level of all intervals, as a sentence writes it."""
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard errors on either side of the middle of an interval."""


def wilson(right: npt.ArrayLike, images: npt.ArrayLike) -> Array:
    """Wilson's score interval of a proportion.

    Unlike ``p ± 1.96 sqrt(p (1 - p) / n)`` it has a width where all images are right, and stays inside [0, 1].
    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    Args:
        right: Images that are right, shape (...); fractions of an image may occur.
        images: Images, the same shape.

    Returns:
        Low and high ends, shape (..., 2); NaN where there is no image.

    Example:
        >>> wilson([3, 50], [3, 100]).round(3).tolist()
        [[0.439, 1.0], [0.404, 0.596]]
    """
    k, n = np.asarray(right, dtype=np.float64), np.asarray(images, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate, shrink = k / n, 1 + Z * Z / n
        middle = (rate + Z * Z / (2 * n)) / shrink
        half = Z / shrink * np.sqrt(np.maximum(rate * (1 - rate), 0) / n + Z * Z / (4 * n * n))
    bounds = np.stack([middle - half, middle + half], axis=-1).clip(0.0, 1.0)
    # The bounds meet the rate exactly where all or none are right; rounding must not put it outside.
    bounds[..., 0], bounds[..., 1] = np.minimum(bounds[..., 0], rate), np.maximum(bounds[..., 1], rate)
    return np.where((n > 0)[..., None], bounds, np.nan)


def share_interval(share: float | None, images: float) -> Interval | None:
    """Wilson's interval of a share of a number of images, [low, high]; None where there is no share.

    Example:
        >>> share_interval(1.0, 3.0)[1], share_interval(None, 0.0)
        (1.0, None)
    """
    return None if share is None else [float(end) for end in wilson(share * images, images)]


def f1_intervals(right: Array, images: Array, predicted: Array) -> Array:
    """Intervals of F1 per class, shape (C, 2): F1 is ``2 J / (1 + J)`` of the share J of right among all that touch it.

    Args:
        right: True positives, shape (C,).
        images: Images of each class, shape (C,).
        predicted: Predictions of each class, shape (C,).

    Example:
        >>> f1_intervals(np.array([4.0]), np.array([4.0]), np.array([5.0])).round(3).tolist()
        [[0.546, 0.982]]
    """
    share = wilson(right, images + predicted - right)
    share[images == 0] = np.nan
    bounds: Array = 2 * share / (1 + share)
    return bounds


def mean_intervals(
    right: Array, images: Array, sets: Mapping[str, Sequence[int]], *, effective: Array | None = None
) -> dict[str, Interval | None]:
    """Intervals of the mean recall of sets of classes: a smoothed bootstrap within classes, ended as Wilson does.

    A bootstrap draws the images of each class anew. Of a mean of proportions its variance is known without drawing,
    ``sum_j r_j (1 - r_j) / n_j / C^2``, so this is the bootstrap of infinitely many resamples. It needs two corrections
    for small classes. A class with all images right would not vary at all: its rate is drawn from
    ``r_j = (k_j + m) / (n_j + 1)``, where m is the mean of its set, weighing one image, and the variance is divided by
    the average loss from that. And quantiles are symmetric where few images leave room on one side only: the variance
    gives the number of images of a single proportion that the mean is worth, and Wilson's interval of that number.

    Args:
        right: Images predicted right, shape (C,).
        images: Images of each class, shape (C,); a class with none is left out.
        sets: Class indices by name.
        effective: Their effective sample size by class, shape (C,); all images when not given.

    Returns:
        [low, high] for each set; None for a set without images.

    Example:
        >>> intervals = mean_intervals(np.array([3.0, 3.0]), np.array([3.0, 3.0]), {"few": [0, 1], "many": []})
        >>> [round(end, 2) for end in intervals["few"]], intervals["many"]
        ([0.56, 1.0], None)
    """
    sizes = images if effective is None else effective
    with np.errstate(invalid="ignore"):
        recall = right / images
    tested = {name: np.array([j for j in members if images[j] > 0], dtype=np.int64) for name, members in sets.items()}
    means = {name: float(recall[rows].mean()) for name, rows in tested.items() if rows.size}
    toward = np.full(len(images), np.nan)
    # Of the sets that hold a class, the smallest counts: it comes last.
    for name in sorted(means, key=lambda name: -tested[name].size):
        total = sizes[tested[name]].sum()
        toward[tested[name]] = (means[name] * total + 0.5) / (total + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (recall * sizes + toward) / (sizes + 1)
        variance = drawn * (1 - drawn) / sizes / (1 - sizes / (sizes + 1) ** 2)
    ends_by_set: dict[str, Interval | None] = dict.fromkeys(sets)
    for name, rate in means.items():
        rows = tested[name]
        middle = drawn[rows].mean()
        alike = middle * (1 - middle) * rows.size**2 / variance[rows].sum()
        ends_by_set[name] = share_interval(rate, alike)
    return ends_by_set


def worst_interval(right: Array, images: Array) -> Interval | None:
    """An interval of the lowest recall that the classes truly have, whichever class has it.

    The lowest measured recall is lower than that on average, as the class is picked for it. So the low end is the
    lowest of all low ends, and the high end the lowest of high ends that hold for all C classes at once (Sidak). It is
    wide, and holds the truth more often than the level says.

    Args:
        right: Images predicted right, shape (C,).
        images: Images of each class, shape (C,), or their effective sample size.

    Example:
        >>> [round(end, 2) for end in worst_interval(np.array([9.0, 5.0]), np.array([10.0, 10.0]))]
        [0.19, 0.84]
    """
    from scipy.special import betaincinv

    tested = images > 0
    if not tested.any():
        return None
    k, n = right[tested], images[tested]
    missed = (1 - LEVEL) / 2  # on each side; the low end is missed only where the truly lowest class misses its own
    missed_once = 1 - (1 - missed) ** (1 / len(n))
    # The exact bounds of Clopper and Pearson: so far out, Wilson's are too narrow for a handful of images.
    low = np.where(k > 0, betaincinv(np.maximum(k, 1e-9), n - k + 1, missed), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1e-9), 1 - missed_once), 1.0)
    return [float(low.min()), float(high.min())]


@dataclass(frozen=True)
class EffectiveSize:
    """The effective sample size of a split: the number of independent images that its images are worth.

    Attributes:
        unit: The independent unit: ``image``, or the column whose values define the clusters.
        correlation: Of right and wrong within a cluster, in [0, 1]; None where the unit is the image.
        images: By class, shape (C,).
        predicted: By predicted class, shape (C,).
        total: Of all images together.
    """

    unit: str
    correlation: float | None
    images: Array
    predicted: Array
    total: float


def effective_sample_size(
    label: IntArray, prediction: IntArray, cluster: IntArray, num_classes: int, *, unit: str
) -> EffectiveSize:
    """Compute the effective sample size of a split whose images come in clusters.

    Images of a cluster (the frames of a film, the photos of one animal) agree more than others in being right or wrong,
    by an intraclass correlation r that is estimated from all classes together: a class alone may have one cluster only.
    By Kish's design effect, n images in clusters of on average m (large clusters weigh more) are worth
    ``n / (1 + (m - 1) r)``: all of them where r is 0, one for each cluster where it is 1. Where r cannot be estimated
    (every class has one cluster, or all images are right), it is taken to be 1.

    Args:
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        cluster: Number of the cluster of each image, shape (N,), at least 0.
        num_classes: C.
        unit: The column that the clusters come from.

    Example:
        >>> film = prediction = np.array([0, 0, 0, 1, 1, 1])
        >>> worth = effective_sample_size(np.zeros(6, int), prediction, film, 2, unit="film")
        >>> worth.correlation, worth.images.tolist(), worth.total
        (1.0, [2.0, 0.0], 2.0)
    """
    correlation = intraclass_correlation(label, prediction == label, cluster)
    images, predicted = (_sample_sizes(of, cluster, correlation, num_classes) for of in (label, prediction))
    return EffectiveSize(unit, correlation, images, predicted, pooled_sample_size(label, cluster, correlation))


def pooled_sample_size(label: IntArray, cluster: IntArray, correlation: float) -> float:
    """Compute the effective sample size of images of any classes; see :func:`effective_sample_size`.

    Args:
        label: True classes, shape (N,).
        cluster: Number of the cluster of each image, shape (N,).
        correlation: Within a cluster of one class, from :func:`intraclass_correlation`.

    Example:
        >>> film = np.array([0, 0, 1, 1])
        >>> [pooled_sample_size(np.zeros(4, int), film, correlation) for correlation in (0.0, 1.0)]
        [4.0, 2.0]
    """
    numbers, _ = _clusters(label, cluster)
    return float(_sample_sizes(np.zeros_like(label), numbers, correlation, 1)[0])


def class_sample_sizes(label: IntArray, value: Array, cluster: IntArray) -> Array:
    """Compute the effective sample size of each class, by the correlation of a value within clusters.

    Args:
        label: Class of each image, shape (N,), with at least one image of every class.
        value: A value per image, such as the difference of two models on it, shape (N,).
        cluster: Number of the cluster of each image, shape (N,), at least 0.

    Returns:
        Shape (C,).

    Example:
        >>> class_sample_sizes(np.zeros(4, int), np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1])).tolist()
        [2.0]
    """
    correlation = intraclass_correlation(label, value, cluster)
    return _sample_sizes(label, cluster, correlation, int(label.max(initial=-1)) + 1)


def _clusters(label: IntArray, cluster: IntArray) -> tuple[IntArray, IntArray]:
    """Number the clusters within each class: images of two classes are right or wrong for different reasons.

    Returns:
        The number of the cluster of each image, shape (N,), and the class of each cluster.
    """
    pairs = label * (int(cluster.max(initial=0)) + 1) + cluster
    _, first, numbers = np.unique(pairs, return_index=True, return_inverse=True)
    return numbers, label[first]


def _sample_sizes(label: IntArray, cluster: IntArray, correlation: float, num_classes: int) -> Array:
    cluster, owner = _clusters(label, cluster)
    squares = np.bincount(cluster).astype(np.float64) ** 2
    images = np.bincount(label, minlength=num_classes).astype(np.float64)
    weight = np.bincount(owner, weights=squares, minlength=num_classes) / np.maximum(images, 1)
    return np.asarray(images / (1 + np.maximum(weight - 1, 0) * correlation), dtype=np.float64)


def intraclass_correlation(label: IntArray, value: npt.NDArray[np.bool_] | Array, cluster: IntArray) -> float:
    """Compute the intraclass correlation by a one-way analysis of variance within each class, its squares added up.

    Args:
        label: True classes, shape (N,).
        value: A value that images of a cluster may share: being right, being kept by a threshold, or any number,
            shape (N,).
        cluster: Number of the cluster of each image, shape (N,).

    Returns:
        In [0, 1]; 1 where it cannot be estimated.

    Example:
        >>> film, right = np.array([0, 0, 1, 1]), np.array([True, True, False, False])
        >>> intraclass_correlation(np.zeros(4, int), right, film)
        1.0
    """
    cluster, owner = _clusters(label, cluster)
    sizes = np.bincount(cluster).astype(np.float64)
    cluster_mean = np.bincount(cluster, weights=value) / sizes
    images = np.bincount(label).astype(np.float64)
    class_mean = np.bincount(label, weights=value) / np.maximum(images, 1)
    between = (sizes * (cluster_mean - class_mean[owner]) ** 2).sum()
    within = ((value - cluster_mean[cluster]) ** 2).sum()
    classes = int((images > 0).sum())
    free_between, free_within = len(sizes) - classes, len(label) - len(sizes)
    if free_between == 0 or between + within == 0:
        return 1.0
    if free_within == 0:  # every cluster is a single image
        return 0.0
    typical = (images.sum() - (np.bincount(owner, weights=sizes**2) / np.maximum(images, 1)).sum()) / free_between
    mean_between, mean_within = between / free_between, within / free_within
    correlation = (mean_between - mean_within) / (mean_between + (typical - 1) * mean_within)
    return float(np.clip(correlation, 0.0, 1.0))
