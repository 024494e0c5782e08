"""Effective sample size of images that come in clusters: frames of one film are right or wrong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.counts import IntArray
from longtail.evaluation.intervals import Array


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
    return float(_sample_sizes(np.zeros_like(label), _by_class(label, cluster), correlation, 1)[0])


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


def _by_class(label: IntArray, cluster: IntArray) -> IntArray:
    """Number the clusters within each class: images of two classes are right or wrong for different reasons."""
    numbers: IntArray = np.unique(label * (int(cluster.max(initial=0)) + 1) + cluster, return_inverse=True)[1]
    return numbers


def _class_of(label: IntArray, cluster: IntArray) -> IntArray:
    """The class of each cluster that :func:`_by_class` has numbered."""
    classes = np.zeros(int(cluster.max(initial=-1)) + 1, dtype=np.int64)
    classes[cluster] = label
    return classes


def _sample_sizes(label: IntArray, cluster: IntArray, correlation: float, num_classes: int) -> Array:
    cluster = _by_class(label, cluster)
    squares = np.bincount(cluster).astype(np.float64) ** 2
    images = np.bincount(label, minlength=num_classes).astype(np.float64)
    weight = np.bincount(_class_of(label, cluster), weights=squares, minlength=num_classes) / np.maximum(images, 1)
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
    cluster = _by_class(label, cluster)
    owner, sizes = _class_of(label, cluster), np.bincount(cluster).astype(np.float64)
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
