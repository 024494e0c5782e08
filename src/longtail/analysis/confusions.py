"""Confusions by shot group, pair and class, and the choice of example images of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.metrics import Mask, group_means, shot_group_indices

HARDEST = 24
"""Classes of which the most pictures are kept, whatever the number of classes."""
PAIRS, OF_PAIR = 24, 3
"""Of the pairs of classes confused most, this many errors are kept."""


@dataclass(frozen=True)
class Destinations:
    """Confusions between shot groups; rows and columns are many, medium and few.

    Every class counts the same, as in the figures of the shot groups: ``right`` is the accuracy of the group.

    Attributes:
        images: Images whose true class is in the group, shape (3,).
        right: Share that is classified right, mean over the classes, shape (3,); NaN for a group without images.
        wrong: Share of the row's group that is taken for *another* class, of the column's group, shape (3, 3). With
            ``right`` a row sums to 1.
        others: Share of the other classes, seen from a class of the row's group, that lie in the column's group, shape
            (3, 3): where errors would go that knew nothing of the images. NaN for a group without classes.
    """

    images: IntArray
    right: FloatArray
    wrong: FloatArray
    others: FloatArray

    @property
    def of_errors(self) -> FloatArray:
        """Share of the *wrongly* classified images of the row's group, (3, 3); NaN where none is wrong."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.wrong / self.wrong.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True)
class ConfusedPairs:
    """Classes that are taken for others, one entry for each pair that occurs, the most frequent first.

    Attributes:
        label: The true class, shape (P,).
        prediction: The class it is taken for, shape (P,).
        images: Number of images, shape (P,).
        share: That, as a fraction of all images of the true class, shape (P,).
    """

    label: IntArray
    prediction: IntArray
    images: IntArray
    share: FloatArray


def destinations(label: IntArray, prediction: IntArray, group_of: Sequence[GroupName]) -> Destinations:
    """Count where the images of each group go, every class counting the same.

    Args:
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        group_of: Shot group of each class, length C.

    Example:
        >>> shares = destinations(np.array([0, 1, 1, 2, 2]), np.array([0, 0, 2, 2, 2]), ["many", "few", "few"])
        >>> shares.right.tolist()
        [1.0, nan, 0.5]
        >>> shares.of_errors[2].tolist()  # of the errors on few-shot images
        [0.5, 0.0, 0.5]
    """
    numbers, size = shot_group_indices(group_of), len(GROUP_NAMES)
    images = np.bincount(label, minlength=len(numbers))
    wrong = label != prediction
    missed = np.bincount(label[wrong] * size + numbers[prediction[wrong]], minlength=len(numbers) * size)
    shares = missed.reshape(-1, size) / np.maximum(images, 1)[:, None]
    shares[images == 0] = np.nan
    taken = np.stack([group_means(column, group_of) for column in shares.T], axis=1)
    right = group_means(1 - shares.sum(axis=1), group_of)
    classes = np.bincount(numbers, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        others = (classes[None, :] - np.eye(size)) / (len(numbers) - 1)
    others[classes == 0] = np.nan
    of_group = np.bincount(numbers, weights=images, minlength=size).astype(np.int64)
    return Destinations(of_group, right, taken, others)


def confused_pairs(label: IntArray, prediction: IntArray, num_classes: int) -> ConfusedPairs:
    """Count every pair of a true and another predicted class that occurs; no C x C matrix is made.

    Of pairs with as many images, the one that takes the larger share of its class comes first, then the lower index.

    Args:
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        num_classes: C.

    Example:
        >>> pairs = confused_pairs(np.array([0, 0, 0, 1, 1]), np.array([0, 2, 2, 0, 1]), 3)
        >>> list(zip(pairs.label.tolist(), pairs.prediction.tolist(), pairs.images.tolist()))
        [(0, 2, 2), (1, 0, 1)]
    """
    wrong = label != prediction
    keys, images = np.unique(label[wrong] * num_classes + prediction[wrong], return_counts=True)
    true, taken = keys // num_classes, keys % num_classes
    share = images / np.bincount(label, minlength=num_classes)[true]
    order = np.lexsort((keys, -share, -images))
    return ConfusedPairs(true[order], taken[order], images[order].astype(np.int64), share[order])


def nearest_confusions(pairs: ConfusedPairs, num_classes: int, limit: int = 3) -> list[list[tuple[int, float]]]:
    """List the ``limit`` classes that each class is taken for most often.

    Args:
        pairs: From :func:`confused_pairs`, of the same classes.
        num_classes: C.
        limit: The most that are listed of a class.

    Returns:
        For each of the C classes, the index of each other class and the fraction of its own images that it gets, the
        most frequent first; fewer than ``limit``, or none, where it is taken for no more.

    Example:
        >>> pairs = confused_pairs(np.array([0, 0, 0, 0, 1]), np.array([2, 1, 2, 0, 1]), 3)
        >>> nearest_confusions(pairs, 3, limit=2)
        [[(2, 0.5), (1, 0.25)], [], []]
    """
    nearest: list[list[tuple[int, float]]] = [[] for _ in range(num_classes)]
    columns = (pairs.label.tolist(), pairs.prediction.tolist(), pairs.share.tolist())
    for label, other, share in zip(*columns, strict=True):
        if len(nearest[label]) < limit:
            nearest[label].append((other, share))
    return nearest


@dataclass(frozen=True)
class Detail:
    """Number of training images, and of errors, that a class keeps, and how they are stored.

    Attributes:
        pictures: Pictures of each of the two.
        side: Pixels of the longer side.
        quality: Quality of the compression, 0 to 100.
    """

    pictures: int
    side: int
    quality: int


FULL = Detail(6, 96, 80)
"""A class that is looked at closely, and every class where there are not many."""


@dataclass(frozen=True)
class Examples:
    """The images that stand for the classes of a run.

    Attributes:
        classes: All classes, the hardest first and untested ones last, shape (C,).
        close: Whether a class is among the hardest or in one of the pairs confused most, shape (C,) by class index.
        errors: Rows of test images that are classified wrongly, the most confident first.
    """

    classes: IntArray
    close: Mask
    errors: IntArray


def usual_detail(num_classes: int) -> Detail:
    """Return the examples of a class that is not looked at closely: fewer, the more classes there are.

    At any number of classes the file and the page that embeds it stay at a few MB.

    Example:
        >>> [usual_detail(size).pictures for size in (100, 1000, 8142)]
        [6, 2, 1]
    """
    if num_classes <= 400:
        return FULL
    return Detail(2, 64, 60) if num_classes <= 2000 else Detail(1, 32, 40)


def choose_examples(label: IntArray, prediction: IntArray, confidence: FloatArray, counts: IntArray) -> Examples:
    """Choose the classes to look at closely, and the errors to show.

    Of equally hard classes, those with fewer training images come first.

    Args:
        label: True classes of the test images, shape (N,).
        prediction: Predicted classes, shape (N,).
        confidence: Probability of the predicted class, shape (N,).
        counts: Training images per class, shape (C,).

    Example:
        >>> label, taken = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
        >>> examples = choose_examples(label, taken, np.array([0.9, 0.8, 0.7, 0.6]), np.array([9, 5, 2]))
        >>> examples.classes.tolist(), examples.errors.tolist()
        ([1, 0, 2], [2])
    """
    size = len(counts)
    images, right = np.bincount(label, minlength=size), np.bincount(label[label == prediction], minlength=size)
    recall = np.where(images > 0, right / np.maximum(images, 1), np.inf)
    classes = np.lexsort((counts, recall))
    pairs = confused_pairs(label, prediction, size)
    close = np.zeros(size, dtype=bool)
    close[np.concatenate([classes[:HARDEST], pairs.label[:PAIRS], pairs.prediction[:PAIRS]])] = True
    limit = np.where(close, FULL.pictures, usual_detail(size).pictures)
    return Examples(classes, close, varied_errors(label, prediction, confidence, limit))


def varied_errors(label: IntArray, prediction: IntArray, confidence: FloatArray, limit: IntArray) -> IntArray:
    """Rows of wrongly classified images that show what a class is taken for, the most confident first.

    Of each class its wrong answers take turns, the most frequent first, each with the image whose confidence is the
    highest. The ``PAIRS`` pairs confused most of all have ``OF_PAIR`` images even beyond the limit of the class.

    Args:
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (N,).
        confidence: Probability of the predicted class, shape (N,).
        limit: Images of each class, shape (C,).

    Example:
        >>> label, taken = np.zeros(8, dtype=int), np.array([1, 1, 1, 1, 2, 0, 0, 0])
        >>> varied_errors(label, taken, np.array([0.6, 0.9, 0.8, 0.7, 0.3, 1, 1, 1]), np.array([2, 2, 2])).tolist()
        [1, 2, 3, 4]
    """
    size = len(limit)
    pairs = confused_pairs(label, prediction, size)
    keys = pairs.label * size + pairs.prediction
    sorted_keys = np.argsort(keys)
    wrong = np.flatnonzero(label != prediction)
    pair = sorted_keys[np.searchsorted(keys, label[wrong] * size + prediction[wrong], sorter=sorted_keys)]
    order = np.lexsort((-confidence[wrong], pair))
    wrong, pair = wrong[order], pair[order]
    turn = _rank(pair)
    order = np.lexsort((pair, turn, label[wrong]))
    chosen = np.zeros(len(wrong), dtype=bool)
    chosen[order] = _rank(label[wrong][order]) < limit[label[wrong][order]]
    chosen |= (pair < PAIRS) & (turn < OF_PAIR)
    return np.asarray(wrong[chosen][np.argsort(-confidence[wrong[chosen]], kind="stable")], dtype=np.int64)


def _rank(ordered: IntArray) -> IntArray:
    """The position of each entry among those equal to it, in an array in which equals stand together and rise."""
    return np.asarray(np.arange(len(ordered)) - np.searchsorted(ordered, ordered), dtype=np.int64)
