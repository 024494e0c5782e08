"""Streams of small images: written as shards, or in memory, where a draw costs nothing but itself."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from longtail.counts import ClassCounts
from longtail.data.dataset import ImageData, Split
from longtail.data.loading.shards import Plan, write_shards
from longtail.data.shard_index import Shard, ShardedSplit, frequency_bands
from longtail.data.shard_reader import ShardFolder, StreamedImage
from longtail.data.sources.stream import StreamedSplit

COUNTS = (64, 40, 25, 12, 5)


def digit_data(counts: Sequence[int] = COUNTS, test: int = 4) -> ImageData:
    """Real digits of the first classes, the same number of each for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = [np.flatnonzero(bunch.target == label) for label in range(len(counts))]
    parts = {
        "train": np.concatenate([of[:count] for of, count in zip(rows, counts, strict=True)]),
        "test": np.concatenate([of[-test:] for of in rows]),
    }
    pixels = (bunch.images * (255 / 16)).round().astype(np.uint8)
    splits = {name: Split.from_arrays(pixels[part], bunch.target[part]) for name, part in parts.items()}
    return ImageData("digits", tuple(map(str, range(len(counts)))), splits)


def write_stream(folder: Path, counts: Sequence[int] = COUNTS, *, test: bool = True, fewest: int = 4) -> Path:
    """Write digits as shards of frequency bands."""
    data = digit_data(counts)
    data = data if test else ImageData(data.source, data.classes, {"train": data.splits["train"]})
    write_shards(data, folder, fewest=fewest)
    return folder


def png(value: int) -> bytes:
    """Encode a small image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 0, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(labels: Sequence[Any], first: int = 0) -> bytes:
    """Return a WebDataset archive with an image for each label; a number or text is the class, a mapping JSON."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, label in enumerate(labels, start=first):
            extra = (
                ("json", json.dumps(label))
                if isinstance(label, Mapping)
                else ("cls" if isinstance(label, int) else "txt", str(label))
            )
            for ending, data in (("png", png(number)), (extra[0], extra[1].encode())):
                entry = tarfile.TarInfo(f"{number:05d}.{ending}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


PNG = png(7)


class MemoryReader:
    """Shards in memory, of images without pixels."""

    def __init__(self, shards: Sequence[Sequence[int]]) -> None:
        self.shards, self.left_out = shards, dict[int, frozenset[int]]()
        self.opened = 0

    def images(self, shard: int, first: int = 0) -> Iterator[StreamedImage]:
        self.opened += 1
        if self.opened > 100_000:
            raise AssertionError("shards are opened again and again")
        for row, label in enumerate(self.shards[shard][first:], start=first):
            yield StreamedImage(shard, row, label, PNG, f"{shard}/{row}")


def memory_split(counts: Sequence[int], *, fewest: int = 8, banded: bool = True) -> StreamedSplit:
    """Return a stream in memory whose shards are dealt as `prepare` deals them."""
    classes = ClassCounts(counts)
    labels = np.repeat(np.arange(len(counts)), counts)
    bands = frequency_bands(classes, fewest) if banded else np.zeros(len(counts), dtype=np.int64)
    plan = Plan.deal(labels, bands, fewest)
    rows = [labels[rows].tolist() for _, rows in plan.shards]
    shards = tuple(Shard(f"{number}", len(rows), band=band) for number, (band, rows) in enumerate(plan.shards))
    index = ShardedSplit(classes.counts, tuple(bands.tolist()), shards, fewest)
    reader: Any = MemoryReader(rows)
    return StreamedSplit("stream:memory", ShardFolder("memory", {}, "parquet"), index, reader)


def undealt_split(shards: Sequence[Sequence[int]], num_classes: int, hands: int = 0) -> StreamedSplit:
    """Return a stream in memory of shards with these labels, without bands."""
    labels = [label for shard in shards for label in shard]
    counts = tuple(np.bincount(labels, minlength=num_classes).tolist())
    files = tuple(Shard(f"{number}", len(rows)) for number, rows in enumerate(shards))
    reader: Any = MemoryReader(shards)
    index = ShardedSplit(counts, (0,) * num_classes, files, hands)
    return StreamedSplit("stream:memory", ShardFolder("memory", {}, "parquet"), index, reader)
