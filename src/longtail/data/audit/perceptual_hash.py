"""What an image looks like, in 256 bits: a DCT hash, and the search for hashes that nearly agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from longtail.counts import IntArray

MAX_DISTANCE = 24
"""Hashes that differ in at most this many of 256 bits may be of near copies; docs/inspect.md has the measurements."""

Hashes = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

_SIDE, _KEPT = 32, 16  # the picture is brought to 32 x 32 grays; of its frequencies the lowest 16 x 16 are kept
_BANDS = 16  # of 16 bits each
_FLAT = 2.0  # gray levels (standard deviation) below which the hash would be made of noise
_WINDOW = 256  # at most so many neighbours of an image are compared in a bucket, so that the work stays linear
_PAIRS_AT_A_TIME = 1 << 20


def pixel_digest(image: Image.Image) -> bytes:
    """16 bytes that two images share if, and in practice only if, all their pixels are equal, whatever their format.

    Example:
        >>> red = Image.new("RGB", (4, 2), "red")
        >>> pixel_digest(red) == pixel_digest(red.copy()), pixel_digest(red) == pixel_digest(red.resize((2, 4)))
        (True, False)
    """
    digest = hashlib.blake2b(f"{image.mode} {image.width} {image.height};".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def look_hash(image: Image.Image) -> bytes:
    """Hash what an RGB image looks like; near copies have hashes that differ in few bits.

    The image is scaled to 32 x 32 grays; a bit says whether one of its 256 lowest frequencies (discrete cosine
    transform) is above their median. Colours, brightness and contrast change next to nothing; a shift does.

    Returns:
        32 bytes; none for an image with no detail to tell it by.

    Example:
        >>> picture = Image.effect_mandelbrot((256, 256), (-2, -1.2, 1, 1.5), 100).convert("RGB")
        >>> one, other = look_hash(picture), look_hash(picture.resize((100, 90)))
        >>> len(one), (int.from_bytes(one) ^ int.from_bytes(other)).bit_count() <= MAX_DISTANCE
        (32, True)
        >>> look_hash(Image.new("RGB", (50, 50), "red"))
        b''
    """
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0).convert("L")
    gray = np.asarray(small, dtype=np.float32)
    if float(gray.std()) < _FLAT:
        return b""
    cosines = _cosines()
    frequencies = (cosines @ gray @ cosines.T).ravel()
    return np.packbits(frequencies > np.median(frequencies)).tobytes()


@cache
def _cosines() -> npt.NDArray[np.float32]:
    """The first rows of the orthonormal DCT-II, shape (16, 32)."""
    frequency, place = np.ogrid[:_KEPT, :_SIDE]
    rows = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)


def near_groups(
    hashes: Hashes,
    max_distance: int = MAX_DISTANCE,
    confirm: Callable[[IntArray, IntArray], BoolArray] | None = None,
) -> IntArray:
    """Join hashes into groups: two at most ``max_distance`` bits apart share a group, and so do chains of such pairs.

    Of hashes at most 31 bits apart, one of 16 bands of 16 bits differs in at most one bit. Only hashes that share
    such a band are compared, and of a crowded bucket only neighbours: the work grows with N, not with its square.

    Args:
        hashes: Shape (N, 4), from :func:`look_hash`.
        max_distance: In bits, at most 31.
        confirm: Takes pairs as two arrays (P,) of places in ``hashes`` and returns which of them to join, (P,). A pair
            may be passed more than once. None joins them all.

    Returns:
        The first member of the group of each hash, shape (N,).

    Example:
        >>> near_groups(np.array([[1, 1, 1, 1], [~0, 0, 0, 0], [1, 1, 1, 3]], dtype=np.int64).view(np.uint64)).tolist()
        [0, 1, 0]
    """
    if not 0 <= max_distance < 2 * _BANDS:
        raise ValueError(f"max_distance={max_distance} must be in 0..{2 * _BANDS - 1}: the bands find no more.")
    words = np.ascontiguousarray(hashes).view(np.uint16)
    first = np.arange(len(hashes), dtype=np.int64)
    for band in range(_BANDS):
        for one, other in _candidates(words, band):
            apart = first[one] != first[other]  # joined by an earlier band: no need to look again
            one, other = one[apart], other[apart]
            near = _bits()[words[one] ^ words[other]].sum(axis=1, dtype=np.int64) <= max_distance
            one, other = one[near], other[near]
            if confirm is not None and len(one):
                alike = confirm(one, other)
                one, other = one[alike], other[alike]
            first = _joined(first, one, other)
    return first


def _candidates(words: npt.NDArray[np.uint16], band: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs whose words of a band are equal or one bit apart, a chunk at a time."""
    order = np.lexsort((words[:, (band + 1) % _BANDS], words[:, band])).astype(np.int64)
    values = words[order, band]
    place = np.arange(len(order), dtype=np.int64)
    end = np.searchsorted(values, values, side="right")
    yield from _expanded(order, place, place + 1, end)
    for bit in range(16):
        lower = np.flatnonzero(values & (1 << bit) == 0)  # the other of each pair has the bit
        wanted = values[lower] | np.uint16(1 << bit)
        start, stop = (np.searchsorted(values, wanted, side=side) for side in ("left", "right"))
        yield from _expanded(order, lower, start, stop)


def _expanded(order: IntArray, place: IntArray, start: IntArray, stop: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Pair the hash at each place with those at ``start`` to ``stop``, at most a window of them."""
    length = np.clip(stop - start, 0, _WINDOW)
    ends = np.cumsum(length)
    cuts = np.searchsorted(ends, np.arange(0, ends[-1] if len(ends) else 0, _PAIRS_AT_A_TIME), side="right")
    for low, high in pairwise([*cuts.tolist(), len(place)]):
        counts = length[low:high]
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        others = np.repeat(start[low:high], counts) + offset
        yield order[np.repeat(place[low:high], counts)], order[others]


def _joined(first: IntArray, one: IntArray, other: IntArray) -> IntArray:
    """Merge the groups of each pair; a group is known by its lowest member."""
    while True:
        a, b = first[one], first[other]
        if np.array_equal(a, b):
            return first
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(first, first[first]):
            first = first[first]


@cache
def _bits() -> npt.NDArray[np.uint8]:
    """How many bits are set in each 16-bit number."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return np.asarray(np.unpackbits(numbers).reshape(-1, 16).sum(axis=1), dtype=np.uint8)
