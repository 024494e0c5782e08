"""Long-tailed subsets: the number of images that a profile keeps of each class, and their seeded choice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from longtail.counts import ClassCounts, ClassCountsLike, IntArray
from longtail.data.dataset import Split
from longtail.errors import LongtailError, nearest

PROFILES = ("exponential", "step", "pareto")
_NEARLY = 1.1  # tolerance for a source slightly more imbalanced than the ratio asked for


def ranks_within_class(labels: IntArray, *, seed: int) -> IntArray:
    """Number the images of each class 0, 1, 2, ... in a seeded random order.

    Keeping the ranks below k gives k random images of a class; a smaller k keeps a subset of them. The raw stream of
    NumPy's PCG64 is used, which NumPy promises never to change, so that a seed always means the same images.

    Args:
        labels: Class indices, shape (N,).
        seed: Any integer >= 0.

    Returns:
        Ranks, shape (N,).

    Example:
        >>> ranks = ranks_within_class(np.array([0, 0, 1, 0]), seed=0)
        >>> sorted(ranks[[0, 1, 3]].tolist()), int(ranks[2])
        ([0, 1, 2], 0)
    """
    keys = random_keys(len(labels), seed=seed)
    order = np.lexsort((keys, labels))
    starts = np.cumsum(np.bincount(labels)) - np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - starts[labels[order]]
    return ranks


def random_keys(size: int, *, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """Seeded random 64-bit keys, shape (size,), the same on every machine and NumPy version.

    Example:
        >>> bool((random_keys(3, seed=1) == random_keys(3, seed=1)).all())
        True
    """
    return np.random.PCG64(seed).random_raw(size)


def long_tailed_counts(
    available: ClassCountsLike, imbalance_ratio: float, profile: str = "exponential"
) -> tuple[int, ...]:
    """Return the number of images of each class in a long-tailed subset.

    With n_0 the largest class, C the number of classes that have images, and j the rank of a class by size (0 the
    largest; equal ones in class order, so that a balanced source is cut in its own order, as CIFAR-LT is):

    - ``"exponential"``: ``int(n_0 * (1/IR)^(j/(C-1)))`` (Cui et al. 2019; Cao et al. 2019)
    - ``"step"``: the first half of the classes n_0, the others ``int(n_0 / IR)`` (Buda et al. 2018)
    - ``"pareto"``: the power law ``int(n_0 * (j+1)^(-log IR / log C))``

    A class with fewer images than that keeps all of them; no class is emptied.

    Args:
        available: Images per class of the source, shape (C,).
        imbalance_ratio: IR, at least 1.
        profile: ``"exponential"``, ``"step"`` or ``"pareto"``.

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
    if profile not in PROFILES:
        raise LongtailError(f"there is no profile {profile!r}.{nearest(profile, PROFILES)}")
    present = counts.array[counts.array > 0]
    ratio = present.max() / present.min()
    if ratio > imbalance_ratio * _NEARLY:
        raise LongtailError(
            f"the source's own imbalance ratio, {ratio:.4g}, exceeds the {imbalance_ratio:g} asked for: ask for "
            f"{math.ceil(ratio)} or more, or for none."
        )
    order = np.argsort(-counts.array, kind="stable")[: len(present)]
    sizes = np.zeros(len(counts), dtype=np.int64)
    for rank, label in enumerate(order):
        wanted = _size_by_rank(profile, int(present.max()), imbalance_ratio, rank, len(present))
        sizes[label] = min(max(wanted, 1), counts[label])
    return tuple(sizes.tolist())


def cut_long_tailed(
    split: Split, classes: int | Sequence[str], imbalance_ratio: float, *, profile: str = "exponential", seed: int = 0
) -> Split:
    """Choose a long-tailed subset of the images, in their order.

    With the same seed and source, the subset at a higher ratio is contained in the one at a lower ratio.

    Args:
        split: The images to choose from.
        classes: The number of classes C, or their names.
        imbalance_ratio: As for :func:`long_tailed_counts`.
        profile: As for :func:`long_tailed_counts`.
        seed: Seed of the choice within each class.

    Returns:
        The subset; its :meth:`~longtail.data.dataset.Split.fingerprint` identifies it.

    Example:
        >>> split = Split.from_arrays(np.zeros((40, 2, 2), np.uint8), [0] * 20 + [1] * 20)
        >>> np.bincount(cut_long_tailed(split, 2, 10).labels).tolist()
        [20, 2]
    """
    available = ClassCounts.from_labels(split.labels, classes)
    keep = np.array(long_tailed_counts(available, imbalance_ratio, profile))
    ranks = ranks_within_class(split.labels, seed=seed)
    return split.select(np.flatnonzero(ranks < keep[split.labels]))


def _size_by_rank(profile: str, largest: int, ratio: float, rank: int, classes: int) -> int:
    """Return the number of images that a profile wants of the class at a rank by size."""
    match profile:
        case "exponential":
            return int(largest * (1 / ratio) ** (rank / max(classes - 1, 1)))
        case "step":
            return largest if rank < classes // 2 else int(largest / ratio)
        case _:
            power = math.log(ratio) / math.log(max(classes, 2))
            # The last class has n_0 / IR exactly, which rounding would make 1 less.
            return int(largest * (rank + 1) ** -power + 1e-9)
