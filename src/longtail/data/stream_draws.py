"""Draws from a stream: bands mixed and classes accepted by a sampling strategy, through a buffer that is resumable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from longtail.counts import BoolArray, FloatArray, IntArray
from longtail.data.shard_reader import ShardReader, StreamedImage


@dataclass(frozen=True)
class BandShare:
    """The part of a frequency band that a lane draws from.

    Attributes:
        shards: Numbers of its shards.
        images: Number of images in them.
        kept: Images by shard that are read once and kept, shared by lanes; None where shards are read again.
    """

    shards: tuple[int, ...]
    images: int
    kept: dict[int, list[StreamedImage]] | None = None


@dataclass(frozen=True)
class Chances:
    """How often bands and classes are drawn.

    With w_c the probability of class c that the sampler asks for and n_c its images, the images of a band come from
    the stream with probability n_c / sum n of the band. A band is drawn with the sum of its w, and an image of it is
    accepted with a_c = (w_c / n_c) / max (w / n) of the band. So P(c) = sum w * n_c a_c / sum (n a) = w_c.

    Attributes:
        bands: Probability of each band, (B,).
        accept: Probability that an image of a class is accepted, (C,).
    """

    bands: FloatArray
    accept: FloatArray

    @classmethod
    def of(cls, probabilities: FloatArray, counts: IntArray, band_of: IntArray) -> Chances:
        """Return the chances of a stream.

        Args:
            probabilities: Wanted probability of each class, w, (C,).
            counts: Images of each class, n, (C,).
            band_of: Band of each class, (C,).

        Example:
            >>> chances = Chances.of(np.array([0.5, 0.3, 0.2]), np.array([100, 50, 5]), np.array([0, 0, 1]))
            >>> chances.bands.tolist(), chances.accept.round(3).tolist()
            ([0.8, 0.2], [0.833, 1.0, 1.0])
        """
        ratio = np.divide(probabilities, counts, out=np.zeros(len(counts)), where=counts > 0)
        size = int(band_of.max()) + 1
        largest = np.zeros(size)
        np.maximum.at(largest, band_of, ratio)
        accept = np.divide(ratio, largest[band_of], out=np.zeros(len(counts)), where=largest[band_of] > 0)
        bands = np.bincount(band_of, weights=probabilities, minlength=size).astype(np.float64)
        return cls(bands, accept)

    def reads(self, counts: IntArray, band_of: IntArray) -> float:
        """Return how many images are read for one that is drawn.

        Example:
            >>> Chances(np.ones(1), np.array([0.1, 1.0])).reads(np.array([90, 10]), np.array([0, 0])).__round__(2)
            5.26
        """
        size = len(self.bands)
        images = np.bincount(band_of, weights=counts, minlength=size)
        accepted = np.bincount(band_of, weights=counts * self.accept, minlength=size)
        return float((self.bands * np.divide(images, accepted, out=np.zeros(size), where=accepted > 0)).sum())


@dataclass(frozen=True)
class LaneState:
    """Where a lane stands, as whole numbers.

    Attributes:
        position: Draws so far.
        cursors: For each band its pass, shard within the pass, next row, and images left in the pass; int64 (B, 4).
        sizes: Images in the buffer of each band, int64 (B,).
        buffer: Shard and row of these images, int64 (K, 2), one band after the other.
    """

    position: int
    cursors: IntArray
    sizes: IntArray
    buffer: IntArray


@dataclass
class _Band:
    """The images of one band, pass after pass, in an order that a buffer shuffles; each pass shuffles its shards."""

    reader: ShardReader
    share: BandShare
    capacity: int
    key: Sequence[int]
    passes: int = 0
    number: int = 0  # of the shard, in the order of the pass
    row: int = 0
    left: int = 0  # images of this pass that were not drawn or rejected
    buffer: list[StreamedImage] = field(default_factory=list)
    _open: Iterator[StreamedImage] | None = None

    def __post_init__(self) -> None:
        self.left = self.share.images
        self.capacity = max(1, min(self.capacity, self.share.images))

    def take(self, uniform: float, most: int) -> StreamedImage:
        """Take an image out of the buffer, once that is full or has ``most`` images."""
        while len(self.buffer) < min(self.capacity, most):
            self.buffer.append(self._next())
        slot = int(uniform * len(self.buffer))
        self.buffer[slot], self.buffer[-1] = self.buffer[-1], self.buffer[slot]
        self.left -= 1
        return self.buffer.pop()

    def _next(self) -> StreamedImage:
        while True:
            if self._open is None:
                order = np.random.default_rng([*self.key, self.passes]).permutation(len(self.share.shards))
                self._open = self._images(self.share.shards[order[self.number]], self.row)
            image = next(self._open, None)
            if image is not None:
                self.row = image.row + 1
                return image
            self._open, self.row, self.number = None, 0, self.number + 1
            if self.number == len(self.share.shards):
                self.number, self.passes = 0, self.passes + 1

    def _images(self, shard: int, first: int) -> Iterator[StreamedImage]:
        kept = self.share.kept
        if kept is None:
            return self.reader.images(shard, first)
        if shard not in kept:
            kept[shard] = list(self.reader.images(shard))
        return (image for image in kept[shard] if image.row >= first)

    def restore(self, cursor: IntArray, rows: IntArray) -> None:
        """Go to where a state was taken, and read the images of its buffer again."""
        self.passes, self.number, self.row, self.left = (int(value) for value in cursor)
        wanted: dict[int, set[int]] = {}
        for shard, row in rows.tolist():
            wanted.setdefault(shard, set()).add(row)
        found: dict[tuple[int, int], StreamedImage] = {}
        for shard, numbers in wanted.items():
            for image in self._images(shard, min(numbers)):
                if image.row in numbers:
                    found[shard, image.row] = image
                if image.row >= max(numbers):
                    break
        self.buffer = [found[shard, row] for shard, row in rows.tolist()]


class Lane:
    """An endless sequence of draws from some shards of every band; all of it follows from its key and the shards.

    Args:
        reader: Reads the shards.
        shares: Its part of each band.
        capacity: Images in the buffer of each band.
        key: Seed words.
    """

    def __init__(self, reader: ShardReader, shares: Sequence[BandShare], capacity: int, key: Sequence[int]) -> None:
        self.key = tuple(key)
        self.has_images: BoolArray = np.array([share.images > 0 for share in shares])
        self.bands = [_Band(reader, share, capacity, (*self.key, number)) for number, share in enumerate(shares)]
        self.position = 0

    def draw(self, chances: Chances | None) -> StreamedImage:
        """Draw the next image.

        Args:
            chances: Of bands and classes; None takes every image once in each pass, bands mixed evenly.
        """
        random = np.random.default_rng([*self.key, len(self.bands), self.position])
        self.position += 1
        if chances is None:
            left = np.array([band.left for band in self.bands], dtype=np.float64)
            if not left.any():  # the next pass
                for band in self.bands:
                    band.left = band.share.images
                left = np.array([band.left for band in self.bands], dtype=np.float64)
            band = self.bands[_choose(left, random.random())]
            return band.take(random.random(), band.left)
        band = self.bands[_choose(chances.bands * self.has_images, random.random())]
        while True:
            image = band.take(random.random(), band.capacity)
            if random.random() < chances.accept[image.label]:
                return image

    @property
    def state(self) -> LaneState:
        """Where the lane stands."""
        cursors = [[band.passes, band.number, band.row, band.left] for band in self.bands]
        rows = [[image.shard, image.row] for band in self.bands for image in band.buffer]
        return LaneState(
            self.position,
            np.array(cursors, dtype=np.int64),
            np.array([len(band.buffer) for band in self.bands], dtype=np.int64),
            np.array(rows, dtype=np.int64).reshape(-1, 2),
        )

    def restore(self, state: LaneState) -> None:
        """Go to where a state was taken; the lane has to be new."""
        self.position = state.position
        parts = np.split(state.buffer, np.cumsum(state.sizes)[:-1])
        for band, cursor, rows in zip(self.bands, state.cursors, parts, strict=True):
            band.restore(cursor, rows)


def _choose(weights: FloatArray, uniform: float) -> int:
    """Return an index with a probability in proportion to its weight."""
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, int(np.flatnonzero(weights)[-1]))  # where the product is rounded up to all of it
