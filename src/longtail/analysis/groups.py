"""Which images belong to which shot group, from their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES, GroupName, IntArray

Mask = npt.NDArray[np.bool_]


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
