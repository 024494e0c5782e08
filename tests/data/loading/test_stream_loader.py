"""Draws from a stream: the frequencies of the sampler, every image once in a pass, the same by several processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from streams import memory_split, undealt_split

from longtail.data.loading.stream_loader import StreamLoader, StreamSampler, count_lanes
from longtail.data.samplers import STRATEGIES, class_probabilities
from longtail.data.shard_reader import StreamedImage
from longtail.data.square import Square
from longtail.errors import LongtailError

COUNTS = (640, 330, 170, 60, 33, 17, 9, 5)  # 1264 images: 158 for each of 8 lanes
DRAWS = 4000


def sampler(strategy: str, counts: tuple[int, ...] = COUNTS, **options: Any) -> StreamSampler:
    split = memory_split(counts, banded=options.pop("banded", True))
    return StreamSampler(split, counts, strategy, **{"num_samples": sum(counts), "buffer": 256, "seed": 3} | options)


def draw(stream: StreamSampler, count: int, first: int = 0) -> list[StreamedImage]:
    ours = range(stream.rank + first * stream.world_size, (first + count) * stream.world_size, stream.world_size)
    drawn = stream.take(ours)
    stream.use(drawn)
    return drawn.images


@pytest.mark.parametrize(("strategy", "banded"), [*((each, True) for each in STRATEGIES), ("square-root", False)])
def test_classes_are_drawn_as_often_as_the_sampler_asks(strategy: str, banded: bool) -> None:
    stream = sampler(strategy, banded=banded)
    stream.progress = 0.4
    wanted = class_probabilities(COUNTS, strategy, progress=0.4).numpy()
    drawn = np.bincount([image.label for image in draw(stream, DRAWS)], minlength=len(COUNTS)) / DRAWS
    assert (np.abs(drawn - wanted) <= 3 * np.sqrt(wanted * (1 - wanted) / DRAWS)).all()


def test_images_of_a_class_are_drawn_equally_often() -> None:
    """Also those at the end of a shard, over many passes."""
    images = Counter((image.shard, image.row) for image in draw(sampler("class-balanced"), DRAWS) if image.label == 3)
    assert len(images) == COUNTS[3]
    mean = sum(images.values()) / COUNTS[3]
    assert max(images.values()) - min(images.values()) <= 6 * np.sqrt(mean)


def test_shuffle_takes_every_image_once_in_a_pass_and_each_pass_in_another_order() -> None:
    stream = sampler("shuffle")
    total = sum(COUNTS)
    passes = [[(image.shard, image.row) for image in draw(stream, total)] for _ in range(2)]
    assert [len(set(each)) for each in passes] == [total, total]
    assert passes[0] != passes[1]
    assert stream.distinct.sum(axis=0).tolist() == list(COUNTS)
    assert stream.drawn.sum() == 2 * total


def test_a_pass_mixes_the_bands() -> None:
    labels = np.array([image.label for image in draw(sampler("shuffle"), sum(COUNTS))])
    half = np.bincount(labels[: len(labels) // 2], minlength=len(COUNTS))
    expected = np.array(COUNTS) / 2
    assert (np.abs(half - expected) <= 3 * np.sqrt(expected / 2) + 1).all()


@pytest.mark.parametrize("strategy", ["shuffle", "class-balanced"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_together_draw_what_one_does(strategy: str, world_size: int) -> None:
    alone = draw(sampler(strategy), 400)
    ranks = [draw(sampler(strategy, rank=rank, world_size=world_size), 400 // world_size) for rank in range(world_size)]
    assert [image for turn in zip(*ranks, strict=True) for image in turn] == alone


@pytest.mark.parametrize("strategy", ["shuffle", "effective-number"])
@pytest.mark.parametrize("used", [1, 157, 900])
def test_a_new_sampler_goes_on_where_the_state_was_taken(strategy: str, used: int) -> None:
    whole, stopped = sampler(strategy), sampler(strategy)
    expected = draw(whole, 1100)[used:]
    draw(stopped, used)
    stopped.take(range(used, used + 50))  # on its way, and never used
    resumed = sampler(strategy)
    resumed.load_tensors(stopped.tensors())
    assert draw(resumed, 1100 - used, first=used) == expected
    assert np.array_equal(resumed.distinct, whole.distinct)
    assert resumed.shared_seen == whole.shared_seen
    assert np.array_equal(resumed.drawn, whole.drawn)


def test_two_processes_go_on_where_one_stopped() -> None:
    alone = sampler("square-root")
    draw(alone, 300)
    tensors = alone.tensors()
    expected = draw(alone, 200, first=300)
    ranks = [sampler("square-root", rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_tensors(tensors)
    together = [image for turn in zip(*(draw(rank, 100, first=150) for rank in ranks), strict=True) for image in turn]
    assert together == expected
    assert np.array_equal(sum(rank.distinct for rank in ranks), alone.distinct)
    assert ranks[0].shared_seen | ranks[1].shared_seen == alone.shared_seen


def test_a_band_that_fits_its_buffer_is_read_once() -> None:
    stream = sampler("class-balanced", buffer=100_000)
    draw(stream, 3000)
    assert stream.split.reader.opened == len(stream.split.shards.shards)  # type: ignore[attr-defined]


@pytest.mark.parametrize("world_size", [9, 16])
def test_more_processes_than_shards_are_refused(world_size: int) -> None:
    with pytest.raises(LongtailError, match="--band-shards"):
        count_lanes(memory_split(COUNTS).shards, world_size)


def test_as_many_lanes_as_processes_that_share_the_hands() -> None:
    dealt, alone = memory_split(COUNTS).shards, memory_split(COUNTS, fewest=5).shards
    assert [count_lanes(dealt, processes) for processes in (1, 2, 3, 8)] == [8, 8, 3, 8]
    assert [count_lanes(alone, processes) for processes in (1, 5)] == [1, 5]


@pytest.mark.parametrize("strategy", ["shuffle", "instance"])
@pytest.mark.parametrize(
    ("hands", "processes", "lanes", "distinct"),
    [(0, 1, 1, 180), (0, 2, 2, 150), (0, 3, 3, 180), (4, 1, 2, 150), (4, 2, 2, 150), (0, 4, 0, 0), (4, 4, 0, 0)],
)
def test_no_lane_is_without_images(strategy: str, hands: int, processes: int, lanes: int, distinct: int) -> None:
    """As where a shard is empty, or all of it is held out."""
    split = undealt_split([[0] * 60, [], [0, 1] * 30, [1] * 60], num_classes=2, hands=hands)
    options = {"num_samples": 180, "buffer": 12, "world_size": processes}
    if not lanes:
        with pytest.raises(LongtailError, match="processes"):
            StreamSampler(split, (90, 90), strategy, **options)  # type: ignore[arg-type]
        return
    ranks = [StreamSampler(split, (90, 90), strategy, rank=rank, **options) for rank in range(processes)]  # type: ignore[arg-type]
    assert ranks[0].num_lanes == lanes
    images = [image for rank in ranks for image in draw(rank, 180 // processes)]
    if strategy == "shuffle":  # a lane of 60 images passes over them, while one of 120 has not given all of them
        assert len({(image.shard, image.row) for image in images}) == distinct
    assert {image.shard for image in images} == {0, 2, 3}


def test_a_state_of_other_lanes_is_refused() -> None:
    shards = [[0, 1] * 6] * 4
    two = StreamSampler(undealt_split(shards, 2), (24, 24), "shuffle", num_samples=48, buffer=8, world_size=2)
    other = StreamSampler(undealt_split(shards, 2), (24, 24), "shuffle", num_samples=48, buffer=8, rank=1, world_size=2)
    draw(two, 6)
    draw(other, 6)
    alone = StreamSampler(undealt_split(shards, 2), (24, 24), "shuffle", num_samples=48, buffer=8)
    two.load_tensors(two.tensors())
    with pytest.raises(LongtailError, match="lanes"):
        alone.load_tensors(two.tensors() | other.tensors())


def test_every_process_has_the_same_number_of_draws() -> None:
    assert {len(sampler("shuffle", counts=(30, 11), rank=rank, world_size=4)) for rank in range(4)} == {11}


def test_batches_that_were_not_used_come_again() -> None:
    split = memory_split(COUNTS)
    loader = StreamLoader(split, Square(4), torch.device("cpu"), buffer=256, threads=2)
    drawn = loader.sampler(
        "shuffle",
        split.class_counts([str(each) for each in range(len(COUNTS))]),
        num_samples=sum(COUNTS),
        seed=0,
        rank=0,
        world_size=1,
    )
    rows = drawn.indices()
    whole = [batch.labels.tolist() for batch in loader.batches(rows, 100)]
    drawn.load_tensors({})
    first = next(batches := loader.batches(rows, 100))
    batches.close()
    assert [first.labels.tolist(), *(batch.labels.tolist() for batch in loader.batches(rows[100:], 100))] == whole
    assert first.images.shape == (100, 3, 4, 4)
