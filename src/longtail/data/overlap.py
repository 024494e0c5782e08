"""The overlap of two sets of images, compared by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longtail.counts import IntArray
from longtail.data.dataset import Split, gone
from longtail.data.loading.cache import image_hashes


def count_shared(split: Split, other: Split) -> int:
    """Count the images of a split whose bytes occur in another one too.

    Only images whose size in bytes occurs in both are read.

    Args:
        split: The images to count.
        other: The images to search.

    Raises:
        UnreadableImageError: A file has gone since the source was read, or cannot be read.

    Example:
        >>> images = Split.from_arrays(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), [0, 0, 1])
        >>> count_shared(images, images.select([1, 2]))
        2
    """
    mine, theirs = _sizes(split), _sizes(other)
    hashes = set(image_hashes(other.select(np.flatnonzero(np.isin(theirs, mine)))))
    return sum(digest in hashes for digest in image_hashes(split.select(np.flatnonzero(np.isin(mine, theirs)))))


def _sizes(split: Split) -> IntArray:
    """The bytes of each stored image."""
    sizes = np.zeros(len(split), dtype=np.int64)
    for row, (_, stored) in enumerate(split.scan()):
        if stored["bytes"] is not None:
            sizes[row] = len(stored["bytes"])
        elif stored["path"] is not None:
            try:
                sizes[row] = Path(stored["path"]).stat().st_size
            except OSError:
                raise gone(stored["path"]) from None
    return sizes
