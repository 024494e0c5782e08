"""Shot groups: the figures of many, medium and few, and which images are of which; an empty group has none, never 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.counts import GROUP_NAMES, GroupName, IntArray

Groups: TypeAlias = Mapping[GroupName, Sequence[int] | npt.NDArray[np.int64]]
Mask: TypeAlias = npt.NDArray[np.bool_]


def group_recall(recall: Tensor, classes: Sequence[int] | npt.NDArray[np.int64]) -> Tensor:
    """The mean recall of a group's classes, a float64 scalar; NaN where none of them has images.

    Args:
        recall: Recall per class, shape (C,), NaN for a class without images.
        classes: The group's class indices, possibly none.

    Example:
        >>> group_recall(torch.tensor([0.5, 1.0, torch.nan]).double(), [1, 2]).item()
        1.0
    """
    index = torch.as_tensor(np.asarray(classes, dtype=np.int64), device=recall.device)
    return recall[index].nanmean()


def group_numbers(group_of: Sequence[GroupName]) -> IntArray:
    """The position of each class's group in ``GROUP_NAMES``, shape (C,).

    Example:
        >>> group_numbers(["few", "many", "many"]).tolist()
        [2, 0, 0]
    """
    return np.array([GROUP_NAMES.index(name) for name in group_of], dtype=np.int64)


def group_masks(label: IntArray, group_of: Sequence[GroupName]) -> dict[GroupName, Mask]:
    """For every group, which images are truly of it, shape (N,); a group without images has a mask of no image.

    Args:
        label: True classes, shape (N,).
        group_of: Shot group of each class, length C.

    Example:
        >>> {name: mask.tolist() for name, mask in group_masks(np.array([0, 1, 0]), ["many", "few"]).items()}
        {'many': [True, False, True], 'medium': [False, False, False], 'few': [False, True, False]}
    """
    numbers = group_numbers(group_of)[label]
    return {name: numbers == number for number, name in enumerate(GROUP_NAMES)}
