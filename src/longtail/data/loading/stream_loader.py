"""Batches from a stream: draws by lane, decoded by threads, with the state of the last batch that was used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike, IntArray
from longtail.data.loading.loaders import Batch, Loader
from longtail.data.loading.workers import read_ahead
from longtail.data.samplers import SAMPLERS, EpochSampler, IndexArray, class_probabilities
from longtail.data.shard_index import ShardedSplit
from longtail.data.shard_reader import StreamedImage
from longtail.data.sources.stream import StreamedSplit
from longtail.data.square import Square, read_square
from longtail.data.stream_draws import BandShare, Chances, Lane, LaneState
from longtail.device import default_workers
from longtail.errors import LongtailError, nearest

LANES = 8
"""Number of lanes of a stream with enough shards: 1, 2, 4 or 8 processes make the same draws."""


def count_lanes(split: ShardedSplit, world_size: int) -> int:
    """Return the number of lanes that draws take turns in: a multiple of the processes, with a shard each of any band.

    A lane without images has nothing to draw, as where all images of its shards are held out: then there are fewer.

    Args:
        split: The shards.
        world_size: Number of processes.

    Raises:
        LongtailError: There are fewer shards with images than processes.

    Example:
        >>> from longtail.data.shard_index import Shard
        >>> shards = tuple(Shard(f"{number}.parquet", images) for number, images in enumerate((3, 1, 2, 0)))
        >>> count_lanes(ShardedSplit((6,), (0,), shards, hands=4), 1)
        2
    """
    halved = [LANES >> step for step in range(LANES.bit_length())] if split.hands else []
    for lanes in [*(lanes for lanes in halved if lanes % world_size == 0 == split.hands % lanes), world_size]:
        shares = (band_shares(split, lane, lanes, {}) for lane in range(lanes))
        fewest = min(len(split.dealt(band, lanes)) for band in range(split.num_bands))
        if lanes <= fewest and all(any(share.images for share in of_lane) for of_lane in shares):
            return lanes
    raise LongtailError(
        f"{world_size} processes need as many shards with images, of each band where there are bands, and there are "
        f"fewer: start fewer, or prepare with --band-shards {world_size}."
    )


def shared_bands(split: ShardedSplit, most: int) -> list[int]:
    """Return the smallest bands, as many as have ``most`` images together: each lane draws from all of them.

    A lane that had a part of so few images would draw their classes in the proportions of that part.

    Example:
        >>> from longtail.data.shard_index import Shard
        >>> shards = tuple(Shard(f"{band}.parquet", images, band=band) for band, images in enumerate((900, 200, 30)))
        >>> shared_bands(ShardedSplit((900, 200, 30), (0, 1, 2), shards), most=500)
        [2, 1]
    """
    order = np.argsort(split.band_sizes, kind="stable")
    fits = np.cumsum(split.band_sizes[order]) <= most
    return [int(band) for band in order[fits]]


def band_shares(
    split: ShardedSplit, lane: int, lanes: int, kept: Mapping[int, dict[int, list[StreamedImage]]]
) -> list[BandShare]:
    """Return the part of each band that a lane draws from: every ``lanes``-th of its shards, or all of a shared band.

    Args:
        split: The shards.
        lane: Number of the lane.
        lanes: Number of lanes.
        kept: Images of the shared bands by shard, to be filled when they are read.

    Example:
        >>> from longtail.data.shard_index import Shard
        >>> shards = tuple(Shard(f"{number}.tar", images=10 + number) for number in range(5))
        >>> band_shares(ShardedSplit((60,), (0,), shards), 1, 2, {})
        [BandShare(shards=(1, 3), images=24, kept=None)]
    """
    shares = []
    for band in range(split.num_bands):
        numbers = split.dealt(band) if band in kept else split.dealt(band, lanes)[lane::lanes]
        shares.append(BandShare(tuple(numbers), sum(split.shards[number].images for number in numbers), kept.get(band)))
    return shares


@dataclass(frozen=True)
class Drawn:
    """The images of a batch.

    Attributes:
        images: As they were drawn.
        lanes: The lane of each.
        states: Where the lanes of this process stand after it.
    """

    images: list[StreamedImage]
    lanes: list[int]
    states: dict[int, LaneState]


class StreamSampler(EpochSampler):
    """Draw from a stream by a sampling strategy; an index is the number of a draw within its epoch.

    Draw k of an epoch comes from lane k modulo the number of lanes, and rank r makes every R-th draw from r on, so that
    R processes together draw what one does, as long as R divides the number of lanes. ``"shuffle"`` takes each image
    once in a pass over the shards of its lane; passes follow one another without regard to epochs.

    Args:
        split: The stream.
        class_counts: Images of each class.
        strategy: A name of :data:`~longtail.data.samplers.SAMPLERS`.
        num_samples: Draws in an epoch over all ranks.
        buffer: Images in the shuffle buffers of all lanes and bands together.
        seed: Seed of the draws, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.
        beta: The b of the effective-number strategies.
    """

    def __init__(
        self,
        split: StreamedSplit,
        class_counts: ClassCountsLike,
        strategy: str,
        *,
        num_samples: int,
        buffer: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        beta: float = 0.9999,
    ) -> None:
        super().__init__(len(split), num_samples=num_samples, seed=seed, rank=rank, world_size=world_size)
        if strategy not in SAMPLERS:
            raise LongtailError(f"There is no sampling strategy {strategy!r}.{nearest(strategy, SAMPLERS)}")
        self.class_counts = ClassCounts.of(class_counts)
        self.split, self.strategy, self.beta = split, strategy, beta
        shards = split.shards
        self.num_lanes = count_lanes(shards, world_size)
        self.capacity = max(1, buffer // (self.num_lanes * shards.num_bands))
        shared = [] if strategy == "shuffle" else shared_bands(shards, buffer)
        self._kept = {band: dict[int, list[StreamedImage]]() for band in shared}
        self._is_shared = np.array([shard.band in self._kept for shard in shards.shards])
        self._first_image = np.cumsum([0, *(_rows(split, number) for number in range(len(shards.shards)))])
        self._seen = np.zeros(self._first_image[-1], dtype=np.bool_)  # by shard and row
        shape = (self.num_lanes, len(self.class_counts))
        self.drawn, self.distinct = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self.shared_seen: dict[int, int] = {}  # number of an image of a shared band: its class
        self._lanes: dict[int, Lane] = {}  # ahead of what was used, by what is on its way
        self._states: dict[int, LaneState] = {}  # after the last batch that was used

    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IndexArray]:
        del random, progress
        yield np.arange(self.rank, len(self) * self.world_size, self.world_size)

    def take(self, draws: Sequence[int]) -> Drawn:
        """Make draws, which have to follow those of the call before.

        Args:
            draws: Their numbers within the epoch, of this rank.
        """
        self._open()
        chances = self._chances()
        lanes = [number % self.num_lanes for number in draws]
        images = [self._lanes[lane].draw(chances) for lane in lanes]
        return Drawn(images, lanes, {number: lane.state for number, lane in self._lanes.items()})

    def use(self, drawn: Drawn) -> None:
        """Record that a batch is used: a state taken now continues after it."""
        self._states = drawn.states
        for image, lane in zip(drawn.images, drawn.lanes, strict=True):
            self.drawn[lane, image.label] += 1
            number = int(self._first_image[image.shard]) + image.row
            if self._is_shared[image.shard]:
                self.shared_seen[number] = image.label
            elif not self._seen[number]:
                self._seen[number] = True
                self.distinct[lane, image.label] += 1

    def rewind(self) -> None:
        """Drop what was drawn and not used."""
        self._lanes = {}

    def _open(self) -> None:
        if self._lanes:
            return
        for number in range(self.rank, self.num_lanes, self.world_size):
            shares = band_shares(self.split.shards, number, self.num_lanes, self._kept)
            lane = Lane(self.split.reader, shares, self.capacity, (self.seed, number))
            if number in self._states:
                lane.restore(self._states[number])
            self._lanes[number] = lane

    def _chances(self) -> Chances | None:
        if self.strategy == "shuffle":
            return None
        wanted = class_probabilities(self.class_counts, self.strategy, progress=self.progress, beta=self.beta)
        return Chances.of(wanted.numpy(), self.class_counts.array, np.array(self.split.shards.bands))

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the lanes of this rank."""
        tensors: dict[str, Tensor] = {}
        for number, state in self._states.items():
            arrays = {
                "position": np.array([state.position]),
                "cursors": state.cursors,
                "sizes": state.sizes,
                "buffer": state.buffer,
                "drawn": self.drawn[number],
                "distinct": self.distinct[number],
                "seen": np.packbits(self._seen[self._images_of(number)]),
                "shared": np.array([*self.shared_seen.items()], dtype=np.int64).reshape(-1, 2),
            }
            tensors |= {f"{number}.{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return tensors

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`tensors` of all ranks returned, also with another number of ranks.

        Raises:
            LongtailError: The state is of another number of lanes.
        """
        numbers = {int(name.partition(".")[0]) for name in tensors}
        ours = range(self.rank, self.num_lanes, self.world_size)
        if numbers and not set(ours) <= numbers <= set(range(self.num_lanes)):
            raise LongtailError(
                f"the checkpoint has {len(numbers)} lanes of the stream and {self.world_size} processes need "
                f"{self.num_lanes}: resume with the number of processes that it was made with."
            )
        self.rewind()
        self._states = {}
        for counts in (self._seen, self.drawn, self.distinct):
            counts[...] = 0
        self.shared_seen = {}
        for number in ours if numbers else ():
            part = {name: tensors[f"{number}.{name}"].numpy() for name in ("cursors", "sizes", "buffer")}
            self._states[number] = LaneState(int(tensors[f"{number}.position"].item()), **part)
            self.drawn[number], self.distinct[number] = (tensors[f"{number}.{name}"] for name in ("drawn", "distinct"))
            images = self._images_of(number)
            self._seen[images] = np.unpackbits(tensors[f"{number}.seen"].numpy(), count=len(images))
            self.shared_seen |= {int(image): int(label) for image, label in tensors[f"{number}.shared"]}

    def _images_of(self, lane: int) -> IntArray:
        """Return the numbers of the images that belong to a lane alone."""
        shares = band_shares(self.split.shards, lane, self.num_lanes, self._kept)
        shards = [shard for share in shares if share.kept is None for shard in share.shards]
        starts, ends = self._first_image[:-1], self._first_image[1:]
        return np.concatenate([np.arange(0), *(np.arange(starts[shard], ends[shard]) for shard in shards)])


def _rows(split: StreamedSplit, shard: int) -> int:
    """Return the number of rows of a shard, held-out ones included."""
    return split.shards.shards[shard].images + len(split.reader.left_out.get(shard, ()))


class StreamLoader(Loader):
    """Images of a stream, read by one thread and decoded by others ahead of the consumer.

    Args:
        split: The stream.
        square: The square that images are brought to.
        device: Device of the batches.
        buffer: Images in the shuffle buffers.
        threads: Number of decoding threads; None takes :func:`default_workers`.
    """

    def __init__(
        self, split: StreamedSplit, square: Square, device: torch.device, *, buffer: int, threads: int | None = None
    ) -> None:
        super().__init__(torch.zeros(0, dtype=torch.int64), device)
        self.split, self.square, self.buffer = split, square, buffer
        self.threads = max(1, default_workers() if threads is None else threads)
        self._sampler: StreamSampler | None = None

    def sampler(
        self, strategy: str, class_counts: ClassCounts, *, num_samples: int, seed: int, rank: int, world_size: int
    ) -> EpochSampler:
        """Build the sampler whose draws the next batches are, in place of an earlier one."""
        self._sampler = StreamSampler(
            self.split,
            class_counts,
            strategy,
            num_samples=num_samples,
            buffer=self.buffer,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        return self._sampler

    def _batches(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Batch]:
        del on_device
        sampler = self._sampler
        assert sampler is not None
        draws = (part.tolist() for part in parts)
        unused = len(parts)
        try:
            with (
                closing(read_ahead(sampler.take, draws, threads=1, ahead=2)) as drawn,
                closing(read_ahead(self._decode, drawn, threads=self.threads, ahead=self.threads + 1)) as decoded,
            ):
                for part, (batch, pixels, labels) in zip(parts, decoded, strict=True):
                    sampler.use(batch)
                    unused -= 1
                    yield Batch(pixels.to(self.device), labels.to(self.device), part)
        finally:
            if unused:
                sampler.rewind()

    def _decode(self, drawn: Drawn) -> tuple[Drawn, Tensor, Tensor]:
        pixels = np.empty((len(drawn.images), 3, self.square.size, self.square.size), dtype=np.uint8)
        for place, image in enumerate(drawn.images):
            pixels[place] = read_square(image.data, self.square, image.name).transpose(2, 0, 1)
        labels = np.array([image.label for image in drawn.images], dtype=np.int64)
        return drawn, torch.from_numpy(pixels), torch.from_numpy(labels)

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:
        for batch in self._batches(parts, on_device):
            yield batch.images
