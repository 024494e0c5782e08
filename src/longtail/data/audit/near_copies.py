"""Near copies: a perceptual hash finds candidates, and their pixels decide."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from longtail.counts import BoolArray, FloatArray, IntArray
from longtail.data.dataset import Split
from longtail.device import cores
from longtail.errors import LongtailError

MAX_DISTANCE = 24
"""Hashes that differ in at most this many of 256 bits may be of near copies; docs/inspect.md has the measurements."""
LEAST_LIKENESS = 0.88
"""Least similarity of near copies; docs/inspect.md has the measurements."""
MAX_PAIRS = 50_000
"""At most this many pairs of a source are compared by their pixels."""
BANDS = 13
"""Parts of the bits of a hash that are searched one after the other."""

Hashes = npt.NDArray[np.uint64]
Grays = npt.NDArray[np.float32]

_SIDE, _FREQUENCIES = 32, 16  # pictures are reduced to 32 x 32 grays; the hash uses the lowest 16 x 16 frequencies
_BITS = _FREQUENCIES**2
_MOST_BANDS = 16  # in which hashes up to 31 bits apart are found
_FLAT = 2.0  # gray levels (standard deviation) below which the hash would be made of noise
_WINDOW = 256  # most neighbors of an image that are compared in its own bucket, a quarter in each one bit away
_PAIRS_AT_A_TIME = 1 << 20
_MOST_KEPT = 1 << 22  # pairs of a band that are sorted by their distance
_SHIFT = 1  # pixels by which pictures are moved each way
_LEVELS = 12.0  # gray levels by which a plain background varies at most,
_CONTRAST = 0.12  # and at most this share of the contrast of the picture
_PLAIN = 0.8  # share of the edge that must not vary by more
_NOISE = 2 / 3  # share of those levels that counts as compression noise
_GAIN = 2.0  # largest ratio of the contrasts of two pictures
_TEXTURE = 0.24  # weight of texture within an outline: a correlation of 0.5 there equals an overlap of 0.88
_TEXTURED = 4.0  # gray levels (standard deviation) from which on an outline has texture
_LEAST_PIXELS = 20
_ASPECT = 0.1  # by which the logarithms of two width-to-height ratios may differ
_PAIRS_TO_CONFIRM = 1 << 12
_AT_A_TIME = 1024  # pairs


def pixel_digest(image: Image.Image) -> bytes:
    """Hash the pixels of an image, whatever its format, in 16 bytes.

    Example:
        >>> red = Image.new("RGB", (4, 2), "red")
        >>> pixel_digest(red) == pixel_digest(red.copy()), pixel_digest(red) == pixel_digest(red.resize((2, 4)))
        (True, False)
    """
    digest = hashlib.blake2b(f"{image.mode} {image.width} {image.height};".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def look_hash(image: Image.Image) -> bytes:
    """Compute the perceptual hash of an RGB image; hashes of near copies differ in few bits.

    The image is scaled to 32 x 32 grays; each bit tells whether one of its 256 lowest frequencies (discrete cosine
    transform) is above their median. Color, brightness and contrast hardly change it; a shift does.

    Returns:
        32 bytes; empty for an image without detail.

    Example:
        >>> picture = Image.effect_mandelbrot((256, 256), (-2, -1.2, 1, 1.5), 100).convert("RGB")
        >>> large, small = look_hash(picture), look_hash(picture.resize((100, 90)))
        >>> len(large), (int.from_bytes(large) ^ int.from_bytes(small)).bit_count() <= MAX_DISTANCE
        (32, True)
        >>> look_hash(Image.new("RGB", (50, 50), "red"))
        b''
    """
    gray = grays(image)
    if float(gray.std()) < _FLAT:
        return b""
    cosines = _cosines()
    frequencies = (cosines @ gray @ cosines.T).ravel()
    return np.packbits(frequencies > np.median(frequencies)).tobytes()


@cache
def _cosines() -> npt.NDArray[np.float32]:
    """Return the first rows of the orthonormal DCT-II, shape (16, 32)."""
    frequency, position = np.ogrid[:_FREQUENCIES, :_SIDE]
    rows = np.cos(np.pi * (2 * position + 1) * frequency / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)


def near_groups(
    hashes: Hashes,
    max_distance: int = MAX_DISTANCE,
    confirm: Callable[[IntArray, IntArray], BoolArray] | None = None,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> IntArray:
    """Join hashes into groups: two at most ``max_distance`` bits apart share a group, and so do chains of such pairs.

    Of hashes at most 25 bits apart, one of 13 bands of 19 or 20 bits differs in at most one bit (of more, 16 bands).
    Only hashes that share such a band are compared, and of a crowded bucket only neighbors: the work grows with N, not
    with its square. In each band the nearest pairs are confirmed first, and none within a group.

    Args:
        hashes: Shape (N, 4), from :func:`look_hash`.
        max_distance: In bits, at most 31.
        confirm: Takes pairs as two arrays (P,) of indices of ``hashes`` and returns which of them to join, (P,). A pair
            may be passed more than once. None joins all. If it raises :class:`EnoughPairs`, the search ends.
        progress: Called with the number of bands that were searched, :data:`BANDS` at the end.

    Returns:
        The first member of the group of each hash, shape (N,).

    Example:
        >>> near_groups(np.array([[1, 1, 1, 1], [~0, 0, 0, 0], [1, 1, 1, 3]], dtype=np.int64).view(np.uint64)).tolist()
        [0, 1, 0]
    """
    if not 0 <= max_distance < 2 * _MOST_BANDS:
        raise ValueError(f"max_distance={max_distance} must be in 0..{2 * _MOST_BANDS - 1}: the bands find no more.")
    bands = BANDS if max_distance < 2 * BANDS else _MOST_BANDS
    columns = np.ascontiguousarray(hashes.T)
    first = np.arange(len(hashes), dtype=np.int64)
    for band in range(bands):
        progress(band * BANDS // bands)
        for left, right in _near_pairs(columns, band, bands, max_distance, first):
            for at in range(0, len(left), _PAIRS_TO_CONFIRM):
                progress(band * BANDS // bands)
                part = np.s_[at : at + _PAIRS_TO_CONFIRM]
                apart = first[left[part]] != first[right[part]]  # not joined by an earlier part
                pairs = left[part][apart], right[part][apart]
                if confirm is not None and len(pairs[0]):
                    try:
                        alike = confirm(*pairs)
                    except EnoughPairs:
                        return first
                    pairs = pairs[0][alike], pairs[1][alike]
                first = _joined(first, *pairs)
    progress(BANDS)
    return first


def _near_pairs(
    columns: Hashes, band: int, bands: int, max_distance: int, first: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs of different groups that share a band and are near, the nearest first unless there are very many."""
    kept: list[tuple[IntArray, IntArray, npt.NDArray[np.uint8]]] = []

    def by_distance() -> tuple[IntArray, IntArray]:
        left, right, distance = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        kept.clear()
        order = np.argsort(distance, kind="stable")
        return left[order], right[order]

    for left, right in _candidates(columns, band, bands):
        distance = np.zeros(len(left), dtype=np.uint8)
        for column in columns:  # the first rejects nearly all
            distance += _differing_bits(column[left], column[right])
            near = distance <= max_distance
            left, right, distance = left[near], right[near], distance[near]
        apart = first[left] != first[right]
        kept.append((left[apart], right[apart], distance[apart]))
        if sum(len(part) for part, *_ in kept) > _MOST_KEPT:
            yield by_distance()
    if kept:
        yield by_distance()


def _candidates(columns: Hashes, band: int, bands: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs whose words of a band are equal or one bit apart, in chunks."""
    words = _word(columns, band, bands)
    order = np.lexsort((_word(columns, (band + 1) % bands, bands), words)).astype(np.int64)
    values = words[order]
    width = -(-_BITS // bands)
    start = np.concatenate(([0], np.cumsum(np.bincount(values, minlength=1 << width))))  # place of each word
    position = np.arange(len(order), dtype=np.int64)
    yield from _expanded(order, position, position + 1, start[values + 1], _WINDOW)
    for bit in range(width):
        lower = np.flatnonzero(values & (1 << bit) == 0)  # the other of each pair has the bit
        wanted = values[lower] | (1 << bit)
        yield from _expanded(order, lower, start[wanted], start[wanted + 1], _WINDOW // 4)


def _word(columns: Hashes, band: int, bands: int) -> npt.NDArray[np.int32]:
    """Return every ``bands``-th bit of each hash as a number, int32 (N,)."""
    word = np.zeros(columns.shape[1], dtype=np.int32)
    for place, bit in enumerate(range(band, _BITS, bands)):
        word |= ((columns[bit // 64] >> np.uint64(bit % 64)) & np.uint64(1)).astype(np.int32) << place
    return word


def _expanded(
    order: IntArray, left: IntArray, start: IntArray, stop: IntArray, window: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Pair the hash at each place of ``left`` with those at ``start`` to ``stop``, at most ``window`` of them."""
    length = np.clip(stop - start, 0, window)
    some = length > 0
    left, start, length = left[some], start[some], length[some]
    totals = np.cumsum(length)
    cuts = np.searchsorted(totals, np.arange(0, totals[-1] if len(totals) else 0, _PAIRS_AT_A_TIME), side="right")
    for low, high in pairwise([*cuts.tolist(), len(left)]):
        counts = length[low:high]
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        others = np.repeat(start[low:high], counts) + offset
        yield order[np.repeat(left[low:high], counts)], order[others]


def _joined(first: IntArray, left: IntArray, right: IntArray) -> IntArray:
    """Merge the groups of each pair; a group is identified by its lowest member."""
    while True:
        a, b = first[left], first[right]
        if np.array_equal(a, b):
            return first
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(first, first[first]):
            first = first[first]


def _differing_bits(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Count the bits in which numbers differ, uint8 (P,)."""
    words = (left ^ right).view(np.uint16).reshape(-1, 4).T
    return np.asarray(_bits()[words[0]] + _bits()[words[1]] + _bits()[words[2]] + _bits()[words[3]])


@cache
def _bits() -> npt.NDArray[np.uint8]:
    """Return the number of set bits of each 16-bit number."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return np.asarray(np.unpackbits(numbers).reshape(-1, 16).sum(axis=1), dtype=np.uint8)


def grays(image: Image.Image) -> Grays:
    """Reduce an image to 32 x 32 grays, float32."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0).convert("L")
    return np.asarray(small, dtype=np.float32)


def likeness(left: Grays, right: Grays) -> FloatArray:
    """Compute the similarity of pictures: 1 if equal up to brightness, contrast and a small shift, 0 if unrelated.

    This is the correlation of their pixels. On a plain background, as behind silhouettes, most pixels agree whatever
    is shown; there it is intersection over union, with each pixel weighted by its distance from the background, and
    texture within the common outline has to correlate as well.

    Args:
        left: Shape (P, 32, 32), from :func:`grays`.
        right: Shape (P, 32, 32), from :func:`grays`.

    Returns:
        Shape (P,), at most 1; negative values are possible.

    Example:
        >>> square, bar = np.full((2, 1, 32, 32), 255, np.float32)
        >>> square[:, 8:24, 8:24], bar[:, 8:24, 14:18] = 0, 0
        >>> likeness(square, square * 0.9).round(2).tolist(), likeness(square, bar).round(2).tolist()
        ([1.0], [0.2])
    """
    shown, reference = _foreground(left), _foreground(right)
    levels = [
        np.minimum(_LEVELS, _CONTRAST * np.percentile(np.abs(part), 98, axis=(1, 2))) for part in (shown, reference)
    ]
    is_plain = np.minimum(*map(_plain_share, (shown, reference), levels)) >= _PLAIN
    middle = slice(_SHIFT, _SIDE - _SHIFT)
    whole = np.ones_like(shown[:, middle, middle])
    best = np.full(len(left), -1.0)
    for down, along in product(range(2 * _SHIFT + 1), repeat=2):
        part = np.s_[:, down : _SIDE - 2 * _SHIFT + down, along : _SIDE - 2 * _SHIFT + along]
        similarity = _correlation(shown[:, middle, middle], reference[part], whole)
        if is_plain.any():
            similarity[is_plain] = _likeness_on_plain(
                _without_noise(shown[:, middle, middle], levels[0])[is_plain],
                _without_noise(reference[part], levels[1])[is_plain],
            )
        best = np.maximum(best, similarity)
    return best


class EnoughPairs(Exception):  # noqa: N818 - not an error of the program
    """Raised to end a search for near copies."""


class PixelCheck:
    """Decides by pixels whether pairs of images look alike; decodes only these images.

    Args:
        images: Split and row of each image.
        max_pairs: Most pairs to compare; None takes :data:`MAX_PAIRS`.

    Attributes:
        is_full: Whether there were more pairs, which count as different.
    """

    def __init__(self, images: Sequence[tuple[Split, int]], max_pairs: int | None = None) -> None:
        self.is_full = False
        self._images = images
        self._max_pairs = MAX_PAIRS if max_pairs is None else max_pairs
        self._pictures: dict[int, tuple[float, npt.NDArray[np.uint8]]] = {}  # log of width over height, and pixels
        self._alike: dict[tuple[int, int], bool] = {}

    @property
    def compared(self) -> int:
        """Number of pairs that were compared."""
        return len(self._alike)

    def __call__(self, left: IntArray, right: IntArray) -> BoolArray:
        """Return whether the images at these indices look alike, shape (P,).

        Raises:
            EnoughPairs: As many pairs as allowed were compared before, and none of these is one of them.
        """
        pairs = list(zip(np.minimum(left, right).tolist(), np.maximum(left, right).tolist(), strict=True))
        fresh = [pair for pair in dict.fromkeys(pairs) if pair not in self._alike]
        room = self._max_pairs - self.compared
        self.is_full = self.is_full or len(fresh) > room
        if not room and len(fresh) == len(set(pairs)):
            raise EnoughPairs
        if compared := fresh[:room]:
            firsts, seconds = np.array(compared, dtype=np.int64).T
            alike = self.likeness(firsts, seconds) >= LEAST_LIKENESS
            self._alike.update(zip(compared, alike.tolist(), strict=True))
        return np.array([self._alike.get(pair, False) for pair in pairs], dtype=np.bool_)

    def likeness(self, left: IntArray, right: IntArray) -> FloatArray:
        """Return the similarity of the images at these indices, shape (P,)."""
        parts = [np.empty(0)]
        for at in range(0, len(left), _AT_A_TIME):
            pair = [positions[at : at + _AT_A_TIME].tolist() for positions in (left, right)]
            unread = {*pair[0], *pair[1]} - self._pictures.keys()
            with ThreadPoolExecutor(cores()) as pool:
                self._pictures.update(zip(unread, pool.map(self._picture, unread), strict=True))
            first, second = ([self._pictures[position] for position in positions] for positions in pair)
            stacks = (np.stack([gray for _, gray in part]).astype(np.float32) for part in (first, second))
            alike = likeness(*stacks)
            shapes = np.subtract([shape for shape, _ in first], [shape for shape, _ in second])
            alike[np.abs(shapes) > _ASPECT] = 0
            parts.append(alike)
        return np.concatenate(parts)

    def _picture(self, position: int) -> tuple[float, npt.NDArray[np.uint8]]:
        split, row = self._images[position]
        try:
            image = split.image(row)
        except LongtailError:  # deleted since it was hashed
            return math.inf, np.zeros((_SIDE, _SIDE), dtype=np.uint8)
        return math.log(image.width / image.height), grays(image).astype(np.uint8)


def _edges(pictures: Grays) -> Grays:
    return np.concatenate((pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]), axis=1)


def _foreground(pictures: Grays) -> Grays:
    """Subtract the gray level of the edge, shape (P, 32, 32)."""
    return np.asarray(pictures - np.median(_edges(pictures), axis=1)[:, None, None], dtype=np.float32)


def _plain_share(foreground: Grays, levels: FloatArray) -> FloatArray:
    """Return the share of the edge that shows only background, shape (P,)."""
    return np.asarray((np.abs(_edges(foreground)) <= levels[:, None]).mean(axis=1), dtype=np.float64)


def _without_noise(foreground: Grays, levels: FloatArray) -> Grays:
    noise = (_NOISE * levels)[:, None, None]
    return np.asarray(np.sign(foreground) * np.maximum(np.abs(foreground) - noise, 0), dtype=np.float32)


def _centered(pictures: Grays, where: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
    """Subtract the mean within a mask of zeros and ones, shape (P, S, S), from the pixels in it; others become 0."""
    number = np.maximum(where.sum(axis=(1, 2), keepdims=True), 1)
    return np.asarray((pictures - (pictures * where).sum(axis=(1, 2), keepdims=True) / number) * where)


def _correlation(left: Grays, right: Grays, where: Grays) -> FloatArray:
    """Return the correlation of the pixels within a mask, shape (P,)."""
    left, right = _centered(left, where), _centered(right, where)
    energy = (left**2).sum(axis=(1, 2)) * (right**2).sum(axis=(1, 2))
    return np.asarray((left * right).sum(axis=(1, 2)) / np.sqrt(np.maximum(energy, 1e-6)), dtype=np.float64)


def _likeness_on_plain(left: Grays, right: Grays) -> FloatArray:
    """Return the similarity of foregrounds on a plain background, shape (P,)."""
    from scipy.ndimage import binary_erosion

    # The common outline without its border.
    inside = binary_erosion((left != 0) & (right != 0), np.ones((1, 3, 3)))
    texture = _correlation(left, right, inside.astype(np.float32))
    number = np.maximum(inside.sum(axis=(1, 2)), 1)
    spread = np.sqrt([(_centered(part, inside) ** 2).sum(axis=(1, 2)) / number for part in (left, right)]).max(axis=0)
    texture[(spread < _TEXTURED) | (number < _LEAST_PIXELS)] = 1
    gain = np.sqrt((left**2).sum(axis=(1, 2)) / np.maximum((right**2).sum(axis=(1, 2)), 1e-6))
    right = right * np.clip(gain, 1 / _GAIN, _GAIN)[:, None, None]
    # Intersection: the value nearer to zero if the signs agree, else nothing.
    shared = np.where(left * right > 0, np.minimum(np.abs(left), np.abs(right)), 0).sum(axis=(1, 2))
    either = np.abs(left).sum(axis=(1, 2)) + np.abs(right).sum(axis=(1, 2)) - shared
    overlap = np.asarray(shared / np.maximum(either, 1e-6), dtype=np.float64)
    return np.minimum(overlap, 1 - (1 - texture) * _TEXTURE)
