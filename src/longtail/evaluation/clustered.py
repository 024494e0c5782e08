"""Effective sample size of images that come in clusters: frames of one film are right or wrong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.counts import IntArray
from longtail.evaluation.intervals import Array


@dataclass(frozen=True)
class EffectiveSize:
    """How many independent images those of a split are worth, where some belong together.

    Attributes:
        unit: What is independent of each other: ``image``, or the column whose values hold images together.
        correlation: Of right and wrong within a unit, in [0, 1]; None where the unit is the image.
        images: For each class, shape (C,).
        predicted: For each predicted class, shape (C,).
        total: For all images together.
    """

    unit: str
    correlation: float | None
    images: Array
    predicted: Array
    total: float


def effective_sample_size(
    label: IntArray, prediction: IntArray, group: IntArray, num_classes: int, *, unit: str
) -> EffectiveSize:
    """Count how many independent images those of a split are worth.

    Images of a group (the frames of a film, the photos of one animal) agree more than others in being right or wrong,
    by a correlation r that is estimated from all classes together: a class alone may have one group only. By Kish's
    design effect, n images in groups of on average m (large groups weigh more) are worth ``n / (1 + (m - 1) r)``:
    all of them where r is 0, one for each group where it is 1. Where nothing says how large r is (every class has one
    group, or all images are right), it is taken to be 1.

    Args:
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        group: Number of the group of each image, shape (N,), at least 0.
        num_classes: C.
        unit: What a group is called: the column it comes from.

    Example:
        >>> film = prediction = np.array([0, 0, 0, 1, 1, 1])
        >>> worth = effective_sample_size(np.zeros(6, int), prediction, film, 2, unit="film")
        >>> worth.correlation, worth.images.tolist(), worth.total
        (1.0, [2.0, 0.0], 2.0)
    """
    correlation = intraclass_correlation(label, prediction == label, group)
    return EffectiveSize(
        unit, correlation,
        images=_sample_sizes(label, group, correlation, num_classes),
        predicted=_sample_sizes(prediction, group, correlation, num_classes),
        total=pooled_sample_size(label, group, correlation),
    )  # fmt: skip


def pooled_sample_size(label: IntArray, group: IntArray, correlation: float) -> float:
    """How many independent images some images of any classes are worth; see :func:`effective_sample_size`.

    Args:
        label: True classes, shape (N,).
        group: Number of the group of each image, shape (N,).
        correlation: Within a group of one class, from :func:`intraclass_correlation`.

    Example:
        >>> film = np.array([0, 0, 1, 1])
        >>> [pooled_sample_size(np.zeros(4, int), film, correlation) for correlation in (0.0, 1.0)]
        [4.0, 2.0]
    """
    return float(_sample_sizes(np.zeros_like(label), _pairs(label, group), correlation, 1)[0])


def class_sample_sizes(label: IntArray, value: Array, group: IntArray) -> Array:
    """The effective sample size of each class, by the correlation of a value within groups.

    Args:
        label: Class of each image, shape (N,), with at least one image of every class.
        value: A value per image, such as the difference of two models on it, shape (N,).
        group: Number of the group of each image, shape (N,), at least 0.

    Returns:
        Shape (C,).

    Example:
        >>> class_sample_sizes(np.zeros(4, int), np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1])).tolist()
        [2.0]
    """
    return _sample_sizes(label, group, intraclass_correlation(label, value, group), int(label.max(initial=-1)) + 1)


def _pairs(label: IntArray, group: IntArray) -> IntArray:
    """One number for each group within a class: images of two classes are right or wrong for reasons of their own."""
    found: IntArray = np.unique(label * (int(group.max(initial=0)) + 1) + group, return_inverse=True)[1]
    return found


def _sample_sizes(label: IntArray, group: IntArray, correlation: float, size: int) -> Array:
    pair = _pairs(label, group)
    sizes = np.bincount(pair)
    owner = np.zeros(len(sizes), dtype=np.int64)
    owner[pair] = label
    images = np.bincount(label, minlength=size).astype(np.float64)
    weight = np.bincount(owner, weights=sizes.astype(np.float64) ** 2, minlength=size) / np.maximum(images, 1)
    return np.asarray(images / (1 + np.maximum(weight - 1, 0) * correlation), dtype=np.float64)


def intraclass_correlation(label: IntArray, hit: npt.NDArray[np.bool_] | Array, group: IntArray) -> float:
    """The intraclass correlation of a one-way analysis of variance within each class, its squares added up.

    Args:
        label: True classes, shape (N,).
        hit: A value that images of a group may share: being right, being kept by a threshold, or any number, shape
            (N,).
        group: Number of the group of each image, shape (N,).

    Returns:
        In [0, 1]; 1 where nothing says how large it is.

    Example:
        >>> film, right = np.array([0, 0, 1, 1]), np.array([True, True, False, False])
        >>> intraclass_correlation(np.zeros(4, int), right, film)
        1.0
    """
    pair = _pairs(label, group)
    sizes = np.bincount(pair).astype(np.float64)
    owner = np.zeros(len(sizes), dtype=np.int64)
    owner[pair] = label
    group_rate = np.bincount(pair, weights=hit) / sizes
    images = np.bincount(label).astype(np.float64)
    rate = np.bincount(label, weights=hit) / np.maximum(images, 1)
    between = (sizes * (group_rate - rate[owner]) ** 2).sum()
    within = ((hit - group_rate[pair]) ** 2).sum()
    classes = int((images > 0).sum())
    free_between, free_within = len(sizes) - classes, len(label) - len(sizes)
    if free_between == 0 or between + within == 0:
        return 1.0
    if free_within == 0:  # every group is a single image
        return 0.0
    typical = (images.sum() - (np.bincount(owner, weights=sizes**2) / np.maximum(images, 1)).sum()) / free_between
    mean_between, mean_within = between / free_between, within / free_within
    found = (mean_between - mean_within) / (mean_between + (typical - 1) * mean_within)
    return float(np.clip(found, 0.0, 1.0))
