"""``longtail prepare --shards``: the images of a source in Parquet files by frequency band, to be streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from longtail.counts import IntArray
from longtail.data.dataset import SPLIT_NAMES, ImageData, Split
from longtail.data.decode import unreadable
from longtail.data.loading.prepare import Resized, whole_folder
from longtail.data.loading.workers import read_ahead
from longtail.data.shard_index import (
    INDEX_FILE,
    INDEX_FORMAT,
    LABEL_COLUMN,
    Shard,
    ShardedSplit,
    ShardIndex,
    frequency_bands,
    write_index,
)
from longtail.data.square import Square, read_square
from longtail.data.subsets import random_keys
from longtail.device import cores
from longtail.errors import LongtailError, UnreadableImageError, UsageError, listed
from longtail.files import write_atomically

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FEWEST_SHARDS = 8
MOST_IMAGES = 4096  # of a shard
GROUP_BYTES = 4_000_000  # of images in a row group, what a reader holds of each open shard
_PIECE = 64  # images that are read at a time
_LOOK = Square(16)  # pixels; enough to find out that an image cannot be read


@dataclass(frozen=True)
class Encoded:
    """An image as it is stored.

    Attributes:
        data: The encoded bytes.
        path: Its name in the source.
        label: Class index.
    """

    data: bytes
    path: str
    label: int


def write_shards(
    data: ImageData,
    out: Path,
    *,
    fewest: int = FEWEST_SHARDS,
    skip_bad: bool = False,
    threads: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Resized:
    """Write all splits of a source as Parquet files of encoded images, with an index of their classes and counts.

    Training images are divided into frequency bands (:func:`~longtail.data.shard_index.frequency_bands`), each with at
    least ``fewest`` files. Every class is dealt evenly over the files of its band, and each file holds its images in a
    seeded random order. Images are stored as they are, after one look at each of them. Their pixels are never in
    memory all at once. The folder gets its name when it is complete; if the process is killed, the next call
    starts over.

    Args:
        data: The source.
        out: The folder to write; it must not exist, or be empty.
        fewest: Files of a band, at least the number of processes that will train on them.
        skip_bad: Leave out a damaged image, instead of stopping at it.
        threads: Number of reading threads; by default the number of cores.
        tick: Called once per image.

    Returns:
        The number of images by split, and what was left out.

    Raises:
        LongtailError: There is an unreadable image, a folder that is not empty, a class without a readable training
            image, or another process that writes the same folder.

    Example:
        >>> import tempfile
        >>> from longtail.data.sources.registry import load_source
        >>> folder = Path(tempfile.mkdtemp()) / "shards"
        >>> write_shards(load_source("digits"), folder, fewest=2).images
        {'train': 1438, 'test': 359}
        >>> sorted(file.name for file in folder.iterdir())[:2]
        ['_longtail.json', 'test-b0-00000.parquet']
    """
    if fewest < 1:
        raise UsageError(f"--band-shards is a number of files, at least 1, got {fewest}.")
    with whole_folder(out) as folder:
        folder.mkdir()
        images, skipped, splits = dict[str, int](), list[str](), dict[str, ShardedSplit]()
        for name in (name for name in SPLIT_NAMES if len(data.splits.get(name, ()))):
            split, alone = data.splits[name], np.zeros(len(data.classes), dtype=np.int64)
            is_train = name == "train"
            bands = frequency_bands(data.counts(name), fewest) if is_train else alone
            plan = Plan.deal(split.labels, bands, fewest if is_train else 1)
            write = partial(_write_split, plan=plan, folder=folder, name=name, classes=data.classes)
            encoded = partial(_encoded, split, split.places())
            splits[name], problems = write(encoded, skip_bad=skip_bad, threads=threads or cores(), tick=tick)
            images[name] = splits[name].images
            skipped += problems
            if not images[name]:
                raise LongtailError(
                    f"no image of the {name} split of {data.source!r} can be read; the first: {problems[0]}"
                )
            lost = np.flatnonzero((data.counts(name).array > 0) & (np.array(splits[name].counts) == 0))
            if is_train and len(lost):
                raise LongtailError(
                    f"no training image of {listed([data.classes[label] for label in lost])} can be read: "
                    f"replace some, or take the class out of the source; the first unreadable image: {problems[0]}"
                )
        write_atomically(folder / INDEX_FILE, write_index(ShardIndex(INDEX_FORMAT, data.classes, splits, LABEL_COLUMN)))
    return Resized(images, tuple(skipped))


@dataclass(frozen=True)
class Plan:
    """Which images of a split go into which file, in which order.

    Attributes:
        bands: Frequency band of each class, (C,).
        shards: For each file its band and the rows of its images.
        hands: Number of hands that were dealt.
    """

    bands: IntArray
    shards: tuple[tuple[int, IntArray], ...]
    hands: int

    @classmethod
    def deal(cls, labels: IntArray, bands: IntArray, hands: int) -> Plan:
        """Deal the images like cards, one class after the other, each in random order.

        The hands run over all bands, so that they differ by one image at most. A hand has one file or more of each
        band.

        Args:
            labels: Class indices, shape (N,).
            bands: Frequency band of each class, shape (C,).
            hands: Number of hands.

        Example:
            >>> plan = Plan.deal(np.array([0] * 8 + [1] * 2), np.array([0, 1]), hands=2)
            >>> [(band, len(rows)) for band, rows in plan.shards]
            [(0, 4), (0, 4), (1, 1), (1, 1)]
        """
        keys, band_of = random_keys(len(labels), seed=0), bands[labels]
        order = np.lexsort((keys, labels, band_of))
        hand = np.empty(len(labels), dtype=np.int64)
        hand[order] = np.arange(len(labels)) % hands
        shards: list[tuple[int, IntArray]] = []
        for band in range(int(bands.max()) + 1):
            dealt = [order[(band_of[order] == band) & (hand[order] == number)] for number in range(hands)]
            parts = max(1, -(-max(map(len, dealt)) // MOST_IMAGES))
            for part in range(parts):  # so that file number j of a band belongs to hand j modulo `hands`
                files = (rows[part::parts] for rows in dealt)
                shards += [(band, rows[np.argsort(keys[rows], kind="stable")]) for rows in files if len(rows)]
        return cls(bands, tuple(shards), hands)


def _encoded(split: Split, places: Sequence[str], row: int) -> Encoded | UnreadableImageError:
    """Read one image and look whether it can be decoded; return the error if not."""
    stored, label = split.encoded(row), int(split.labels[row])
    try:
        if stored["bytes"] is None and stored["path"] is None:
            raise UnreadableImageError(f"{split.path(row)!r} holds no image: remove the row from the source.")
        data = stored["bytes"] if stored["bytes"] is not None else Path(stored["path"] or "").read_bytes()
        read_square(data, _LOOK, split.path(row))
    except (OSError, MemoryError) as error:
        return unreadable(error, split.path(row), "cannot be read", "restore the access to it.")
    except UnreadableImageError as error:
        return error
    return Encoded(data, places[row], label)


def _write_split(
    encoded: Callable[[int], Encoded | UnreadableImageError],
    *,
    plan: Plan,
    folder: Path,
    name: str,
    classes: Sequence[str],
    skip_bad: bool,
    threads: int,
    tick: Callable[[], object],
) -> tuple[ShardedSplit, list[str]]:
    """Write the files of one split; return its index, and a sentence for each image that was left out."""
    counts, skipped = np.zeros(len(classes), dtype=np.int64), list[str]()
    shards: list[Shard] = []
    numbers = [0] * (1 + max(band for band, _ in plan.shards))

    def good(rows: IntArray) -> Iterator[Encoded]:
        for image in read_ahead(encoded, rows.tolist(), threads=threads, ahead=_PIECE):
            tick()
            if isinstance(image, Encoded):
                counts[image.label] += 1
                yield image
            elif skip_bad and image.is_damage:
                skipped.append(str(image))
            else:
                raise image

    for band, rows in plan.shards:
        path = folder / f"{name}-b{band}-{numbers[band]:05d}.parquet"
        numbers[band] += 1
        images = _write_shard(path, good(rows), classes)
        shards.append(Shard(path.name, images, path.stat().st_size, band))
    return ShardedSplit(tuple(counts.tolist()), tuple(plan.bands.tolist()), tuple(shards), plan.hands), skipped


def _write_shard(path: Path, images: Iterator[Encoded], classes: Sequence[str]) -> int:
    """Write one file in row groups of a few megabytes; return its number of images."""
    import datasets
    import pyarrow.parquet as pq

    features = datasets.Features({"image": datasets.Image(), LABEL_COLUMN: datasets.ClassLabel(names=list(classes))})
    count = 0
    with pq.ParquetWriter(path, features.arrow_schema, compression="none") as writer:
        for group in _groups(images):
            _write_group(writer, group)
            count += len(group)
    return count


def _groups(images: Iterator[Encoded]) -> Iterator[list[Encoded]]:
    """Divide images into groups of :data:`GROUP_BYTES`."""
    group, size = list[Encoded](), 0
    for image in images:
        group.append(image)
        size += len(image.data)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write_group(writer: pq.ParquetWriter, group: Sequence[Encoded]) -> None:
    stored = [{"bytes": image.data, "path": image.path} for image in group]
    labels = [image.label for image in group]
    kinds = writer.schema
    columns = [pa.array(stored, kinds.field("image").type), pa.array(labels, kinds.field(LABEL_COLUMN).type)]
    writer.write_table(pa.table(columns, schema=kinds), row_group_size=len(group))
