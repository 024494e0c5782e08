"""Which images stand for the classes of a run: a few of every class, more of the hardest and of the most confused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longtail.analysis.confusions import confused_pairs
from longtail.counts import FloatArray, IntArray
from longtail.evaluation.groups import Mask

HARDEST = 24
"""Classes of which the most pictures are kept, whatever the number of classes."""
PAIRS, OF_PAIR = 24, 3
"""Of the pairs of classes confused most, this many errors are kept."""


@dataclass(frozen=True)
class Detail:
    """How many training images, and as many errors, a class keeps, and how they are stored.

    Attributes:
        pictures: Of each of the two.
        side: Pixels of the longer side.
        quality: Of the compression, 0 to 100.
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
    """What a class keeps that is not looked at closely: less, the more classes there are.

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
        >>> found = choose_examples(label, taken, np.array([0.9, 0.8, 0.7, 0.6]), np.array([9, 5, 2]))
        >>> found.classes.tolist(), found.errors.tolist()
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
    place = sorted_keys[np.searchsorted(keys, label[wrong] * size + prediction[wrong], sorter=sorted_keys)]
    order = np.lexsort((-confidence[wrong], place))
    wrong, place = wrong[order], place[order]
    turn = _rank(place)
    order = np.lexsort((place, turn, label[wrong]))
    kept = np.zeros(len(wrong), dtype=bool)
    kept[order] = _rank(label[wrong][order]) < limit[label[wrong][order]]
    kept |= (place < PAIRS) & (turn < OF_PAIR)
    return np.asarray(wrong[kept][np.argsort(-confidence[wrong[kept]], kind="stable")], dtype=np.int64)


def _rank(ordered: IntArray) -> IntArray:
    """The place of each entry among those equal to it, in an array in which equals stand together and rise."""
    return np.asarray(np.arange(len(ordered)) - np.searchsorted(ordered, ordered), dtype=np.int64)
