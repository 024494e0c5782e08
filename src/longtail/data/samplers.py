"""Which image comes next: the re-balanced sampling strategies as seeded, resumable index samplers for any rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray, IntArray
from longtail.data.epoch_sampler import EpochSampler, IndexArray
from longtail.data.strategies import STRATEGIES, class_probabilities
from longtail.errors import LongtailError, nearest

__all__ = [
    "SAMPLERS",
    "STRATEGIES",
    "EpochSampler",
    "LongTailSampler",
    "ShuffleSampler",
    "build_sampler",
    "class_probabilities",
]

LabelsLike: TypeAlias = Sequence[int] | npt.NDArray[Any] | torch.Tensor

SAMPLERS = ("shuffle", *STRATEGIES)
_CHUNK = 1 << 14  # draws at once: large enough that numpy does the work, small enough to stay in cache


class LongTailSampler(EpochSampler):
    """Draw images with replacement, the class first and then an image of it, by one of the re-balancing strategies.

    Building groups the images by class once (one integer sort); a draw is a table lookup and two multiplications an
    image, in whole arrays. A class with zero images is never drawn.

    Args:
        labels: Class of each image, shape (N,), in ``0 .. C-1``.
        class_counts: Images per class, shape (C,), or just the number of classes C.
        strategy: A name of :func:`class_probabilities`.
        num_samples: Draws in an epoch over all ranks; N when not given.
        seed: Seed of the draw, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.
        beta: The b of the effective-number strategies.

    Raises:
        LongtailError: No such strategy.
        ValueError: Labels out of range, counts that are not those of the labels, or a number out of range.

    Example:
        >>> sampler = LongTailSampler([0, 0, 0, 0, 0, 0, 1], 2, strategy="class-balanced", num_samples=1000)
        >>> 0.45 < (sampler.indices() == 6).double().mean() < 0.55
        tensor(True)
        >>> sampler.set_epoch(1)
        >>> len(list(sampler))
        1000
    """

    def __init__(
        self,
        labels: LabelsLike,
        class_counts: ClassCountsLike | int,
        *,
        strategy: str = "class-balanced",
        num_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        beta: float = 0.9999,
    ) -> None:
        values = _label_array(labels)
        super().__init__(len(values), num_samples=num_samples, seed=seed, rank=rank, world_size=world_size)
        given = None if isinstance(class_counts, int) else ClassCounts.of(class_counts)
        classes = class_counts if isinstance(class_counts, int) else len(ClassCounts.of(class_counts))
        self._order, found = _group_by_class(values, classes)
        self.class_counts = _matching(found, given)
        self.strategy, self.beta = strategy, beta
        self._counts = found
        self._first = np.cumsum(found) - found
        self.probabilities()  # a wrong name or beta is found here, not at the first batch

    def probabilities(self) -> torch.Tensor:
        """The probability of each class at the present progress, float64 of shape (C,)."""
        return class_probabilities(self.class_counts, self.strategy, progress=self.progress, beta=self.beta)

    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IndexArray]:
        chances = class_probabilities(self.class_counts, self.strategy, progress=progress, beta=self.beta).numpy()
        cumulative, buckets = _lookup_table(chances)
        total = len(self) * self.world_size
        for start in range(0, total, _CHUNK):
            ours = slice((self.rank - start) % self.world_size, None, self.world_size)
            # Two numbers a draw, side by side: a longer draw then begins with the shorter one.
            pairs = random.random((min(_CHUNK, total - start), 2))[ours]
            classes = _look_up(pairs[:, 0], cumulative, buckets)
            # u < 1 gives floor(u n) < n in float64 for every n below 2^52.
            offsets = (pairs[:, 1] * self._counts[classes]).astype(np.int64)
            yield self._order[self._first[classes] + offsets]


class ShuffleSampler(EpochSampler):
    """Every image once an epoch in a seeded order; up to ``world_size - 1`` repeat so that ranks are equally long.

    Args:
        labels: Class of each image, shape (N,); only their number is used.
        class_counts: Taken so that all samplers are built alike; not used.
        num_samples: Stop an epoch after this many images over all ranks, at most N; N when not given.
        seed: Seed of the order, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.

    Raises:
        ValueError: More samples than images, or a number out of range.

    Example:
        >>> sorted(ShuffleSampler([0, 0, 1, 1, 1]))
        [0, 1, 2, 3, 4]
        >>> [len(ShuffleSampler([0, 0, 1, 1, 1], rank=rank, world_size=2)) for rank in range(2)]
        [3, 3]
    """

    def __init__(
        self,
        labels: LabelsLike,
        class_counts: ClassCountsLike | int | None = None,  # noqa: ARG002  (one signature for all samplers)
        *,
        num_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        images = len(labels)
        super().__init__(images, num_samples=num_samples, seed=seed, rank=rank, world_size=world_size)
        if num_samples is not None and num_samples > images:
            raise ValueError(f"num_samples={num_samples} exceeds the {images} images; draw with 'instance' to repeat.")

    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IndexArray]:  # noqa: ARG002
        order = _empty_index(self.num_images)
        order[:] = np.arange(self.num_images, dtype=order.dtype)
        random.shuffle(order)
        total, stride = len(self) * self.world_size, self.world_size
        for start in range(self.rank, total, _CHUNK * stride):
            ours = np.arange(start, min(start + _CHUNK * stride, total), stride)
            yield order.take(ours, mode="wrap")  # past the last image, the first ones again


def build_sampler(
    strategy: str,
    labels: LabelsLike,
    class_counts: ClassCountsLike | int,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    beta: float = 0.9999,
) -> EpochSampler:
    """Build the sampler of that name: ``"shuffle"`` or a strategy of :func:`class_probabilities`.

    Args:
        strategy: The name; ``"shuffle"`` goes through every image once, the others draw with replacement.
        labels: Class of each image, shape (N,).
        class_counts: Images per class, shape (C,), or the number of classes.
        num_samples: Indices in an epoch over all ranks; N when not given.
        seed: Seed of the draw, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.
        beta: The b of the effective-number strategies.

    Raises:
        LongtailError: No such strategy; the message names the nearest one.

    Example:
        >>> len(build_sampler("square-root", [0, 0, 1], 2))
        3
    """
    if strategy not in SAMPLERS:
        raise LongtailError(f"There is no sampling strategy {strategy!r}.{nearest(strategy, SAMPLERS)}")
    if strategy == "shuffle":
        return ShuffleSampler(
            labels, class_counts, num_samples=num_samples, seed=seed, rank=rank, world_size=world_size
        )
    return LongTailSampler(
        labels,
        class_counts,
        strategy=strategy,
        num_samples=num_samples,
        seed=seed,
        rank=rank,
        world_size=world_size,
        beta=beta,
    )


def _label_array(labels: LabelsLike) -> npt.NDArray[np.integer[Any]]:
    values = np.asarray(labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers of shape (N,), got {values.dtype} of shape {values.shape}.")
    return values


def _empty_index(size: int) -> IndexArray:
    # int32 is half the memory for every data set there is.
    return np.empty(size, dtype=np.int32) if size < 2**31 else np.empty(size, dtype=np.int64)


def _group_by_class(labels: npt.NDArray[np.integer[Any]], classes: int) -> tuple[IndexArray, IntArray]:
    """Image indices sorted by class, shape (N,), and the images of each class, shape (C,)."""
    if labels.min() < 0 or labels.max() >= classes:
        wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise ValueError(f"label {wrong} is outside 0..{classes - 1}; give the right number of classes.")
    # Class and index in one integer: a plain in-place sort of those is the fastest grouping numpy has.
    shift = len(labels).bit_length()
    keys = labels.astype(np.int64)
    keys <<= shift
    for start in range(0, len(keys), _CHUNK):
        keys[start : start + _CHUNK] += np.arange(start, min(start + _CHUNK, len(keys)))
    keys.sort()
    counts = np.diff(np.searchsorted(keys, np.arange(classes + 1) << shift))
    order = _empty_index(len(keys))
    for start in reversed(range(0, len(keys), _CHUNK)):
        order[start : start + _CHUNK] = keys[start:] & ((1 << shift) - 1)
        keys.resize(start, refcheck=False)  # nothing views the keys: give their memory back while the order grows
    return order, counts


def _matching(found: IntArray, given: ClassCounts | None) -> ClassCounts:
    if given is None:
        return ClassCounts(found)
    wrong = np.flatnonzero(given.array != found)
    if len(wrong):
        name, said, have = given.names[wrong[0]], given[int(wrong[0])], found[wrong[0]]
        raise ValueError(f"class {name!r} has {have} labels but a count of {said}: give the counts of these labels.")
    return given


def _lookup_table(chances: FloatArray) -> tuple[FloatArray, IndexArray]:
    """The cumulative probabilities, shape (C,), and for each of K equal buckets of [0, 1) its first class."""
    cumulative = np.cumsum(chances)
    cumulative /= cumulative[-1]
    size = 1 << (4 * len(chances)).bit_length()  # a power of two, so that u * K is exact
    buckets = _empty_index(size)
    for start in range(0, size, _CHUNK):
        edges = np.arange(start, min(start + _CHUNK, size)) / size
        buckets[start : start + _CHUNK] = np.searchsorted(cumulative, edges, side="right")
    return cumulative, buckets


def _look_up(uniform: FloatArray, cumulative: FloatArray, buckets: IndexArray) -> IndexArray:
    """The class of each number in [0, 1), exactly ``searchsorted(cumulative, uniform, side="right")``, much faster.

    The first class of a number's bucket is right for most; only numbers past its end are searched for. ``right``
    skips a class of zero width, so that a class without images is never returned.
    """
    classes = buckets[(uniform * len(buckets)).astype(np.int64)]
    late = np.flatnonzero(cumulative[classes] <= uniform)
    classes[late] = np.searchsorted(cumulative, uniform[late], side="right")
    return classes
