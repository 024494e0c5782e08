"""Hashes of stored images by their bytes, and the images that two splits share."""

from __future__ import annotations

import hashlib

import numpy as np

from longtail.counts import IntArray
from longtail.data.dataset import Encoded, Split, file_status, unread_file


def image_hashes(split: Split) -> list[bytes]:
    """Hash each stored image by its bytes alone, whatever its file: 32 bytes each.

    Raises:
        UnreadableImageError: A file was deleted since the source was read, or cannot be read.

    Example:
        >>> first, second, third = image_hashes(Split.from_arrays(np.uint8([[[0]], [[9]], [[0]]]), [0, 0, 1]))
        >>> first == third, first == second
        (True, False)
    """
    return [hashlib.sha256(_bytes(stored)).digest() for _, stored in split.scan()]


def _bytes(stored: Encoded) -> bytes:
    if stored["bytes"] is not None or stored["path"] is None:
        return stored["bytes"] or b""
    try:
        with open(stored["path"], "rb", buffering=0) as file:  # noqa: PTH123 - no Path is made of each of a million
            return file.readall()
    except OSError as error:
        raise unread_file(stored["path"], error) from None


def count_shared(split: Split, other: Split) -> int:
    """Count the images of a split that another one contains too, compared by their bytes.

    Only images whose size in bytes occurs in both are read.

    Args:
        split: The images to count.
        other: The images to search.

    Raises:
        UnreadableImageError: A file was deleted since the source was read, or cannot be read.

    Example:
        >>> images = Split.from_arrays(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), [0, 0, 1])
        >>> count_shared(images, images.select([1, 2]))
        2
    """
    mine, theirs = _sizes(split), _sizes(other)
    hashes = set(image_hashes(other.select(np.flatnonzero(np.isin(theirs, mine)))))
    return sum(digest in hashes for digest in image_hashes(split.select(np.flatnonzero(np.isin(mine, theirs)))))


def _sizes(split: Split) -> IntArray:
    """Return the size in bytes of each stored image."""
    sizes = np.zeros(len(split), dtype=np.int64)
    for row, (_, stored) in enumerate(split.scan()):
        if stored["bytes"] is not None:
            sizes[row] = len(stored["bytes"])
        elif stored["path"] is not None:
            sizes[row] = file_status(stored["path"]).st_size
    return sizes
