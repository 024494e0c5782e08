"""Gradients: what raises the logit of a class against what lowers it, by class and by shot group, over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.groups import group_numbers


@dataclass(frozen=True)
class GradientBalance:
    """Raising against lowering gradient, and their ratio; below 1 a logit was pushed down more than it was pulled up.

    Attributes:
        classes: Ratio of each class in each epoch, shape (E, C); NaN for a class without images in that epoch.
        groups: Of all classes of a shot group together, shape (E, 3), in the order of ``GROUP_NAMES``.
        whole: The same over several epochs together, shape (3,).
        raised: Accumulated gradient that raises the logit of a class, mean over those of a group that have images in
            the epoch, shape (E, 3); NaN where none has. A mean, so that groups of other sizes can be compared.
        lowered: The same of the gradient that lowers it; ``raised / lowered`` is ``groups``.
    """

    classes: FloatArray
    groups: FloatArray
    whole: FloatArray
    raised: FloatArray
    lowered: FloatArray


def gradient_ratio(positive: npt.ArrayLike, negative: npt.ArrayLike) -> FloatArray:
    r"""The ratio :math:`\sum_i \max(-g_{ic}, 0) / \sum_i \max(g_{ic}, 0)` of accumulated gradients.

    For cross-entropy the first is the sum of ``1 - p_c`` over the images of the class, and the second that of ``p_c``
    over all others. A classifier that has settled gives 1: its bias would move otherwise.

    References:
        [1] Tan et al., Equalization Loss v2, CVPR 2021, arXiv 2012.08548, equation 5.
        [2] Li, Cheung, Hu, Key Point Sensitive Loss for Long-Tailed Visual Recognition, IEEE TPAMI 45(4), 2023:
            negative gradients drown the tail.

    Args:
        positive: Accumulated gradient that raises the logit, any shape.
        negative: Accumulated gradient that lowers it, of the same shape.

    Returns:
        Of that shape; NaN where there is no negative gradient, so that nothing can be compared.

    Example:
        >>> gradient_ratio([1.0, 3.0, 2.0], [4.0, 3.0, 0.0]).tolist()
        [0.25, 1.0, nan]
    """
    up, down = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    return np.where(down > 0, up / np.where(down > 0, down, 1.0), np.nan)


def gradient_balance(
    positive: npt.ArrayLike, negative: npt.ArrayLike, images: IntArray, group_of: Sequence[GroupName], *,
    together: int | None = None,
) -> GradientBalance:  # fmt: skip
    """Ratios by class and by group.

    Args:
        positive: Accumulated gradient that raises the logit of each class, shape (E, C).
        negative: Accumulated gradient that lowers it, shape (E, C).
        images: How often an image of the class was drawn in the epoch, shape (E, C).
        group_of: Shot group of each class, length C.
        together: So many epochs, from the first, make up ``whole``; all when not given. A second stage that draws the
            classes otherwise is not to be added to the first.

    Returns:
        Sums and ratios; a class without images, which nothing can raise, is NaN by itself and no part of its group.

    Example:
        >>> found = gradient_balance([[4, 1, 0]], [[4, 2, 1]], np.array([[9, 3, 0]]), ["many", "few", "few"])
        >>> found.classes.tolist(), found.groups.tolist()
        ([[1.0, 0.5, nan]], [[1.0, nan, 0.5]])
        >>> found.raised.tolist(), found.lowered.tolist()
        ([[4.0, nan, 1.0]], [[4.0, nan, 2.0]])
    """
    there = images > 0
    up = np.where(there, np.asarray(positive, dtype=np.float64), 0.0)
    down = np.where(there, np.asarray(negative, dtype=np.float64), 0.0)
    numbers = group_numbers(group_of)
    raised, lowered, present = (
        np.stack([part[:, numbers == number].sum(axis=1) for number in range(len(GROUP_NAMES))], axis=1)
        for part in (up, down, there)
    )
    some = np.where(present > 0, present, np.nan)
    return GradientBalance(
        classes=gradient_ratio(up, down),
        groups=gradient_ratio(raised, lowered),
        whole=gradient_ratio(raised[:together].sum(axis=0), lowered[:together].sum(axis=0)),
        raised=raised / some,
        lowered=lowered / some,
    )
