"""Re-balancing: class probabilities of every strategy, and the seeded, resumable index samplers that draw by them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray, IntArray
from longtail.errors import LongtailError, nearest

IndexArray: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
LabelsLike: TypeAlias = Sequence[int] | npt.NDArray[Any] | torch.Tensor

STRATEGIES = ("instance", "class-balanced", "square-root", "progressive", "effective-number", "cben")
SAMPLERS = ("shuffle", *STRATEGIES)
_CBEN_SPAN = 1e-5  # how far CBEN raises beta from the largest class to the smallest
_CHUNK = 1 << 14  # draws at once: large enough that numpy does the work, small enough to stay in cache


def class_probabilities(
    class_counts: ClassCountsLike, strategy: str, *, progress: float = 0.0, beta: float = 0.9999
) -> torch.Tensor:
    """Return the probability that a draw of a sampling strategy is of each class.

    ========================  ==========================================================================
    ``"instance"``            ``n_j / N``, every image equally likely
    ``"class-balanced"``      ``1 / C``, every class equally likely
    ``"square-root"``         ``sqrt(n_j)``, normalized [1]
    ``"progressive"``         ``(1 - t) instance + t class-balanced``, t the training progress [1]
    ``"effective-number"``    ``n_j (1 - b) / (1 - b^n_j)``, normalized [2]
    ``"cben"``                the same with ``b_j = b + 1e-5 minmax(log n_max - log n_j)`` [3]
    ========================  ==========================================================================

    References:
        [1] Kang et al., Decoupling representation and classifier for long-tailed recognition, ICLR 2020, section 4.1.
        [2] Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019, equation 2.
        [3] Li, Cheung, Lu, Long-tailed visual recognition via Gaussian clouded logit adjustment, CVPR 2022, 3.4.

    Args:
        class_counts: Training images per class, shape (C,).
        strategy: One of the names above.
        progress: Training progress t in [0, 1]; only ``"progressive"`` uses it.
        beta: The b of the effective number, in (0, 1); for ``"cben"`` below 0.99999.

    Returns:
        float64 tensor of shape (C,) that sums to 1; a class with zero images has probability 0.

    Raises:
        LongtailError: There is no such strategy; the message names the nearest one.
        ValueError: ``progress`` or ``beta`` is out of range.

    Example:
        >>> class_probabilities([90, 9, 1, 0], "instance").tolist()
        [0.9, 0.09, 0.01, 0.0]
        >>> class_probabilities([81, 9, 1, 0], "square-root").mul(13).round().tolist()
        [9.0, 3.0, 1.0, 0.0]
    """
    if strategy not in STRATEGIES:
        raise LongtailError(f"There is no sampling strategy {strategy!r}.{nearest(strategy, STRATEGIES)}")
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress is the share of training that is done, in [0, 1], got {progress}.")
    limit = 1.0 - _CBEN_SPAN if strategy == "cben" else 1.0
    if not 0.0 < beta < limit:
        raise ValueError(f"beta must lie between 0 and {limit:g} for {strategy!r}, got {beta}.")
    weights = _class_weights(ClassCounts.of(class_counts), strategy, progress, beta)
    return torch.from_numpy(weights / weights.sum())


def _class_weights(counts: ClassCounts, strategy: str, progress: float, beta: float) -> FloatArray:
    images = counts.array.astype(np.float64)
    present = (images > 0).astype(np.float64)
    match strategy:
        case "instance":  # Equation 27: n_j
            return images
        case "class-balanced":  # Equation 28: 1 for each class with images
            return present
        case "square-root":  # Equation 29: sqrt(n_j)
            return np.asarray(np.sqrt(images), dtype=np.float64)
        case "progressive":  # Equation 30: (1 - t) n_j / N + t / C
            return np.asarray((1 - progress) * images / images.sum() + progress * present / present.sum())
        case "effective-number":  # Equation 31: n_j (1 - b) / (1 - b^n_j)
            return _effective_number_weights(images, np.full_like(images, beta))
        case _:  # Equation 32: b_j = b + 1e-5 w_j
            return _effective_number_weights(images, beta + _CBEN_SPAN * counts.tail_weight)


def _effective_number_weights(images: FloatArray, beta: FloatArray) -> FloatArray:
    # expm1 is exact for 1 - b^n with b^n close to 1, as for every tail class.
    effective = -np.expm1(np.maximum(images, 1) * np.log(beta))
    return np.asarray(images * (1 - beta) / effective, dtype=np.float64)


class EpochSampler(Sampler[int], ABC):
    """Base class: one seeded draw per epoch, of which a rank takes every ``world_size``-th index.

    The whole draw depends on ``(seed, epoch)`` alone, so the k-th batches of size b of all ranks make up the k-th
    batch of size ``b * world_size`` of a single process. Every rank has the same number of indices.

    Args:
        num_images: Images that can be drawn, N.
        num_samples: Indices in an epoch over all ranks; N when not given. Rounded up to a multiple of ``world_size``.
        seed: Seed of the draw, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.

    Attributes:
        epoch: The current epoch; change it by :meth:`set_epoch`.
        position: Indices of this epoch that this rank has consumed; iterating does not move it, :meth:`advance` does.
    """

    def __init__(self, num_images: int, *, num_samples: int | None, seed: int, rank: int, world_size: int) -> None:
        wanted = num_images if num_samples is None else num_samples
        if num_images < 1 or wanted < 1:
            raise ValueError(f"a sampler needs at least one image and one draw, got {num_images} and {wanted}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}: check world_size={world_size}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        self.num_images, self.seed, self.rank, self.world_size = num_images, seed, rank, world_size
        self._length = -(-wanted // world_size)
        self.epoch = 0
        self.position = 0
        self._progress = 0.0
        self._drawn_at: float | None = None

    @abstractmethod
    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IndexArray]:
        """Yield the len(self) indices of this rank in blocks: every ``world_size``-th of the draw, from ``rank`` on."""

    def __len__(self) -> int:
        """Number of indices of this rank in a whole epoch, whatever the position."""
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Yield the rest of this epoch, from :attr:`position` on, without holding the whole draw in memory."""
        drawn = itertools.chain.from_iterable(block.tolist() for block in self._blocks())
        return itertools.islice(drawn, self.position, None)

    def indices(self) -> torch.Tensor:
        """This rank's indices of the current epoch, int64 of shape (len(self),), the consumed ones included."""
        drawn, filled = np.empty(len(self), dtype=np.int64), 0
        for block in self._blocks():
            drawn[filled : filled + len(block)] = block
            filled += len(block)
        return torch.from_numpy(drawn)

    def _blocks(self) -> Iterator[IndexArray]:
        if self._drawn_at is None:
            self._drawn_at = self._progress
        return self._draw(np.random.default_rng([self.seed, self.epoch]), self._drawn_at)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; every epoch has a draw of its own."""
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, got {epoch}.")
        self.epoch, self.position, self._drawn_at = epoch, 0, None

    def advance(self, consumed: int) -> None:
        """Record that this rank consumed ``consumed`` more indices."""
        if consumed < 0 or self.position + consumed > len(self):
            raise ValueError(f"cannot advance by {consumed} from {self.position}: this epoch has {len(self)} indices.")
        self.position += consumed

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]; a draw in progress keeps its value until the next :meth:`set_epoch`."""
        return self._progress

    @progress.setter
    def progress(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"progress is the share of training that is done, in [0, 1], got {value}.")
        self._progress = float(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint holds of this rank next to epoch and step; only a stream has anything."""
        return {}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from what :meth:`tensors` returned on all ranks together."""

    def state_dict(self) -> dict[str, int | float]:
        """Return the state as plain numbers, the same on every rank, for JSON."""
        progress = self._progress if self._drawn_at is None else self._drawn_at
        numbers: dict[str, int | float] = {"epoch": self.epoch, "position": self.position, "seed": self.seed}
        return {**numbers, "progress": progress, "world_size": self.world_size}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from :meth:`state_dict`, also with another number of ranks if it divides the position.

        Raises:
            ValueError: The state does not fit this sampler, which is left unchanged.
        """
        missing = {"epoch", "position", "seed", "progress", "world_size"} - state.keys()
        if missing:
            raise ValueError(f"a sampler's state must have {sorted(missing)}: give what state_dict() returned.")
        position, uneven = divmod(int(state["position"]) * int(state["world_size"]), self.world_size)
        if uneven:
            raise ValueError(f"resume with {int(state['world_size'])} processes as before, not {self.world_size}.")
        if not 0 <= position <= len(self):
            raise ValueError(f"position {position} is beyond the {len(self)} indices here: resume on the same data.")
        self.progress = float(state["progress"])
        self.seed = int(state["seed"])
        self.epoch, self.position = int(state["epoch"]), position
        self._drawn_at = self._progress if position else None


class LongTailSampler(EpochSampler):
    """Draw images with replacement, the class first and then an image of it, by one of the re-balancing strategies.

    Construction groups the images by class (one integer sort); a draw is a table lookup and two multiplications per
    image, on whole arrays. A class with zero images is never drawn.

    Args:
        labels: Class of each image, shape (N,), in ``0 .. C-1``.
        class_counts: Images per class, shape (C,), or just the number of classes C.
        strategy: A name of :func:`class_probabilities`; ``"progressive"`` follows :attr:`progress`, to be set before
            each epoch.
        num_samples: Draws in an epoch over all ranks; N when not given.
        seed: Seed of the draw, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.
        beta: The b of the effective-number strategies.

    Raises:
        LongtailError: There is no such strategy.
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
        values = np.asarray(labels)
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"labels must be whole numbers of shape (N,), got {values.dtype} of shape {values.shape}.")
        super().__init__(len(values), num_samples=num_samples, seed=seed, rank=rank, world_size=world_size)
        given = int(class_counts) if isinstance(class_counts, int | np.integer) else ClassCounts.of(class_counts)
        self._order, self._counts = _group_by_class(values, given if isinstance(given, int) else len(given))
        self.class_counts = ClassCounts(self._counts) if isinstance(given, int) else given
        for label in np.flatnonzero(self.class_counts.array != self._counts).tolist():
            name, number = self.class_counts.names[label], self.class_counts[label]
            raise ValueError(
                f"class {name!r} has {self._counts[label]} labels but a count of {number}: "
                "give the counts of these labels."
            )
        self.strategy, self.beta = strategy, beta
        self._first = np.cumsum(self._counts) - self._counts
        self.probabilities()  # raises for a wrong name or beta

    def probabilities(self) -> torch.Tensor:
        """Return the probability of each class at the current progress, float64 of shape (C,)."""
        return class_probabilities(self.class_counts, self.strategy, progress=self.progress, beta=self.beta)

    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IndexArray]:
        chances = class_probabilities(self.class_counts, self.strategy, progress=progress, beta=self.beta)
        cumulative, buckets = _lookup_table(chances.numpy())
        total = len(self) * self.world_size
        for start in range(0, total, _CHUNK):
            of_rank = slice((self.rank - start) % self.world_size, None, self.world_size)
            # Two adjacent numbers per draw, so that a longer draw begins with the shorter one.
            pairs = random.random((min(_CHUNK, total - start), 2))[of_rank]
            classes = _look_up(pairs[:, 0], cumulative, buckets)
            # u < 1 gives floor(u n) < n in float64 for every n below 2^52.
            offsets = (pairs[:, 1] * self._counts[classes]).astype(np.int64)
            yield self._order[self._first[classes] + offsets]


class ShuffleSampler(EpochSampler):
    """Every image once per epoch in a seeded order; up to ``world_size - 1`` are repeated to make ranks equally long.

    Args:
        labels: Class of each image, shape (N,); only their number is used.
        class_counts: Not used; for the signature that all samplers share.
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
            positions = np.arange(start, min(start + _CHUNK * stride, total), stride)
            yield order.take(positions, mode="wrap")  # past the last image, the first ones again


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
    """Build a sampler by name: ``"shuffle"`` or a strategy of :func:`class_probabilities`.

    Args:
        strategy: Its name; ``"shuffle"`` yields every image once, the others draw with replacement.
        labels: Class of each image, shape (N,).
        class_counts: Images per class, shape (C,), or the number of classes.
        num_samples: Indices in an epoch over all ranks; N when not given.
        seed: Seed of the draw, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.
        beta: The b of the effective-number strategies.

    Raises:
        LongtailError: There is no such strategy; the message names the nearest one.

    Example:
        >>> len(build_sampler("square-root", [0, 0, 1], 2))
        3
    """
    if strategy not in SAMPLERS:
        raise LongtailError(f"There is no sampling strategy {strategy!r}.{nearest(strategy, SAMPLERS)}")
    build = ShuffleSampler if strategy == "shuffle" else partial(LongTailSampler, strategy=strategy, beta=beta)
    return build(labels, class_counts, num_samples=num_samples, seed=seed, rank=rank, world_size=world_size)


def _empty_index(size: int) -> IndexArray:
    # int32 is half the memory for every data set there is.
    return np.empty(size, dtype=np.int32) if size < 2**31 else np.empty(size, dtype=np.int64)


def _group_by_class(labels: npt.NDArray[np.integer[Any]], classes: int) -> tuple[IndexArray, IntArray]:
    """Return image indices sorted by class, shape (N,), and the number of images per class, shape (C,)."""
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"label {wrong} is outside 0..{classes - 1}; give the right number of classes.")
    # Class and index in one integer: sorting those in place is the fastest grouping in numpy.
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
        keys.resize(start, refcheck=False)  # no view of the keys exists: return their memory while the order grows
    return order, counts


def _lookup_table(chances: FloatArray) -> tuple[FloatArray, IndexArray]:
    """Return the cumulative probabilities, shape (C,), and the first class in each of K equal buckets of [0, 1)."""
    cumulative = np.cumsum(chances)
    cumulative /= cumulative[-1]
    size = 1 << (4 * len(chances)).bit_length()  # a power of two, so that u * K is exact
    buckets = _empty_index(size)
    for start in range(0, size, _CHUNK):
        edges = np.arange(start, min(start + _CHUNK, size)) / size
        buckets[start : start + _CHUNK] = np.searchsorted(cumulative, edges, side="right")
    return cumulative, buckets


def _look_up(uniform: FloatArray, cumulative: FloatArray, buckets: IndexArray) -> IndexArray:
    """Compute ``searchsorted(cumulative, uniform, side="right")``, the class of each number in [0, 1), but faster.

    The first class of its bucket is right for most numbers; only those past its end are searched. ``right``
    skips a class of zero width, so that a class without images is never returned.
    """
    classes = buckets[(uniform * len(buckets)).astype(np.int64)]
    late = np.flatnonzero(cumulative[classes] <= uniform)
    classes[late] = np.searchsorted(cumulative, uniform[late], side="right")
    return classes
