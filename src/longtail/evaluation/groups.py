"""Figures of the shot groups many, medium and few, and the images of each; an empty group has no figure, never 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray

Groups: TypeAlias = Mapping[GroupName, Sequence[int] | npt.NDArray[np.int64]]
Mask: TypeAlias = npt.NDArray[np.bool_]


def group_mean(values: npt.ArrayLike | Tensor, classes: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Average a figure over the classes of a group, each class counting the same; NaN where none has a figure.

    Args:
        values: A figure of each class, such as its recall, shape (C,); NaN for a class without images.
        classes: The group's class indices, possibly none.

    Example:
        >>> group_mean([0.5, 1.0, np.nan], [1, 2]), group_mean([0.5, 1.0, np.nan], [])
        (1.0, nan)
    """
    index = torch.as_tensor(np.asarray(classes, dtype=np.int64))
    return float(torch.as_tensor(values, dtype=torch.float64)[index].nanmean())


def group_means(values: npt.ArrayLike, group_of: Sequence[GroupName]) -> FloatArray:
    """Average a figure over the classes of each group, float64 (3,) in the order of ``GROUP_NAMES``.

    Args:
        values: A figure of each class, shape (C,); NaN for a class without images.
        group_of: Shot group of each class, length C.

    Example:
        >>> group_means([0.5, 1.0, 0.0], ["many", "few", "few"]).tolist()
        [0.5, nan, 0.5]
    """
    numbers = group_numbers(group_of)
    return np.array([group_mean(values, np.flatnonzero(numbers == number)) for number in range(len(GROUP_NAMES))])


def group_numbers(group_of: Sequence[GroupName]) -> IntArray:
    """Return the position of each class's group in ``GROUP_NAMES``, shape (C,).

    Example:
        >>> group_numbers(["few", "many", "many"]).tolist()
        [2, 0, 0]
    """
    return np.array([GROUP_NAMES.index(name) for name in group_of], dtype=np.int64)


def group_masks(label: IntArray, group_of: Sequence[GroupName]) -> dict[GroupName, Mask]:
    """Mark the images whose true class is in each group, shape (N,); a group without images has an empty mask.

    Args:
        label: True classes, shape (N,).
        group_of: Shot group of each class, length C.

    Example:
        >>> {name: mask.tolist() for name, mask in group_masks(np.array([0, 1, 0]), ["many", "few"]).items()}
        {'many': [True, False, True], 'medium': [False, False, False], 'few': [False, True, False]}
    """
    numbers = group_numbers(group_of)[label]
    return {name: numbers == number for number, name in enumerate(GROUP_NAMES)}


def class_weights(label: IntArray) -> FloatArray:
    """Weights of images under which every class counts the same, as it does in the figures of the shot groups.

    Args:
        label: True classes, shape (N,).

    Returns:
        One over the number of images of the class, shape (N,).

    Example:
        >>> class_weights(np.array([0, 0, 1])).tolist()
        [0.5, 0.5, 1.0]
    """
    return np.asarray(1.0 / np.maximum(np.bincount(label), 1)[label], dtype=np.float64)
