"""The one place where subsets and splits draw chance: a seeded random rank for every image within its class."""

from __future__ import annotations

import numpy as np

from longtail.counts import IntArray


def ranks_within_class(labels: IntArray, *, seed: int) -> IntArray:
    """Number the images of each class 0, 1, 2, ... in a seeded random order.

    Keeping the ranks below k gives k random images of a class; a smaller k keeps a subset of them. The raw stream of
    NumPy's PCG64 is used, which NumPy promises never to change, so that a seed means the same images for good.

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
