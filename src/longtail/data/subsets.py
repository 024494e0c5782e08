"""Long-tailed subsets: how many images of each class a profile keeps, and the seeded choice of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.data.image_data import Split
from longtail.data.ranks import ranks_within_class
from longtail.errors import LongtailError, nearest

_NEARLY = 1.1  # a source this much more imbalanced than asked still counts as mild enough


def long_tailed_counts(
    available: ClassCountsLike, imbalance_ratio: float, profile: str = "exponential"
) -> tuple[int, ...]:
    """How many images of each class a long-tailed subset keeps.

    With n_0 the largest class, C the number of classes that have images, and j the rank of a class by size (0 the
    largest; equal ones in class order, so that a balanced source is cut in its own order, as CIFAR-LT is):

    - ``"exponential"``: ``int(n_0 * (1/IR)^(j/(C-1)))`` (Cui et al. 2019; Cao et al. 2019)
    - ``"step"``: the first half of the classes n_0, the others ``int(n_0 / IR)`` (Buda et al. 2018)
    - ``"pareto"``: the power law ``int(n_0 * (j+1)^(-log IR / log C))``

    A class with fewer images than that keeps all it has; none is ever emptied.

    Args:
        available: Images per class of the source, shape (C,).
        imbalance_ratio: IR, at least 1.
        profile: One of the three above.

    Returns:
        Images per class to keep, in class order.

    Raises:
        LongtailError: The ratio is below 1, the profile unknown, or the source already more imbalanced than asked.

    Example:
        >>> long_tailed_counts([500] * 5, 100)
        (500, 158, 50, 15, 5)
        >>> long_tailed_counts([500] * 5, 100, "step")
        (500, 500, 5, 5, 5)
        >>> long_tailed_counts([500] * 5, 100, "pareto")
        (500, 68, 21, 9, 5)
    """
    counts = ClassCounts.of(available)
    if not (math.isfinite(imbalance_ratio) and imbalance_ratio >= 1):
        raise LongtailError(f"an imbalance ratio is at least 1 (balanced), got {imbalance_ratio:g}.")
    if profile not in _PROFILES:
        raise LongtailError(f"there is no profile {profile!r}.{nearest(profile, _PROFILES)}")
    present = counts.array[counts.array > 0]
    if present.max() / present.min() > imbalance_ratio * _NEARLY:
        own = present.max() / present.min()
        raise LongtailError(
            f"the source's own imbalance ratio, {own:.4g}, exceeds the {imbalance_ratio:g} asked for: ask for "
            f"{math.ceil(own)} or more, or for none."
        )
    order = np.argsort(-counts.array, kind="stable")[: len(present)]
    kept = np.zeros(len(counts), dtype=np.int64)
    for rank, label in enumerate(order):
        wanted = _PROFILES[profile](int(present.max()), imbalance_ratio, rank, len(present))
        kept[label] = min(max(wanted, 1), counts[label])
    return tuple(kept.tolist())


def cut_long_tailed(
    split: Split, classes: int | Sequence[str], imbalance_ratio: float, *, profile: str = "exponential", seed: int = 0
) -> Split:
    """Keep a long-tailed choice of the images, in their order.

    The choice depends on the seed alone: with the same seed and source, a subset at a higher ratio lies within the
    one at a lower.

    Args:
        split: The images to choose from.
        classes: The number of classes C, or their names.
        imbalance_ratio: As for :func:`long_tailed_counts`.
        profile: Likewise.
        seed: Of the choice within each class.

    Returns:
        The subset; its :meth:`~longtail.data.image_data.Split.fingerprint` identifies it.

    Example:
        >>> split = Split.from_arrays(np.zeros((40, 2, 2), np.uint8), [0] * 20 + [1] * 20)
        >>> np.bincount(cut_long_tailed(split, 2, 10).labels).tolist()
        [20, 2]
    """
    available = ClassCounts.from_labels(split.labels, classes)
    keep = np.array(long_tailed_counts(available, imbalance_ratio, profile))
    ranks = ranks_within_class(split.labels, seed=seed)
    return split.select(np.flatnonzero(ranks < keep[split.labels]))


def _exponential(largest: int, ratio: float, rank: int, classes: int) -> int:
    return int(largest * (1 / ratio) ** (rank / max(classes - 1, 1)))


def _step(largest: int, ratio: float, rank: int, classes: int) -> int:
    return largest if rank < classes // 2 else int(largest / ratio)


def _pareto(largest: int, ratio: float, rank: int, classes: int) -> int:
    power = math.log(ratio) / math.log(max(classes, 2))
    return int(largest * (rank + 1) ** -power + 1e-9)  # the last class is n_0 / IR exactly, but for rounding


_PROFILES: Mapping[str, Callable[[int, float, int, int], int]] = {
    "exponential": _exponential,
    "step": _step,
    "pareto": _pareto,
}
