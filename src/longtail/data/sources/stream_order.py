"""The labels of a stream, and the order in which its images are held out, both kept in the cache of this machine."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longtail.counts import IntArray
from longtail.data.loading.cache_folder import UNFINISHED, keep_rows
from longtail.data.shard_index import ShardedSplit
from longtail.data.shard_reader import ShardFolder, ShardReader
from longtail.files import write_atomically


@dataclass(frozen=True)
class StreamLabels:
    """The labels of shards.

    Attributes:
        names: Class names, in the order in which they were met.
        shards: For each shard the number of the name of each row, int32.

    Example:
        >>> labels = StreamLabels(["lynx", "cat"], [np.array([1, 1, 0]), np.array([1])])
        >>> [dict(counts) for counts in labels.counts()]
        [{'lynx': 1, 'cat': 2}, {'cat': 1}]
    """

    names: Sequence[str]
    shards: Sequence[NDArray[np.int32]]

    def counts(self) -> list[Counter[str]]:
        """Count the images of each class in every shard."""

        def of_shard(numbers: NDArray[np.int32]) -> Counter[str]:
            found, counts = np.unique(numbers, return_counts=True)
            return Counter({self.names[number]: count for number, count in zip(found, counts.tolist(), strict=True)})

        return [of_shard(numbers) for numbers in self.shards]


def keep_labels(
    source: str, folder: ShardFolder, files: Sequence[str], reader: ShardReader, *, anew: bool = False
) -> StreamLabels:
    """Read the labels of shards once, and keep them, 4 bytes each; what is kept is mapped, not read.

    Args:
        source: SOURCE of the shards, its absolute path if it has one.
        folder: The shards.
        files: Those to read.
        reader: Reads them.
        anew: Whether they are read even if they are kept: files may have been written again with the same size, in a
            store that tells no versions.
    """
    words = ["labels", folder.url, folder.states(files), reader.label]
    read = partial(_read_or_write_labels, reader, anew)
    return keep_rows(words, source, read, lambda labels: sum(map(len, labels.shards)))


def _read_or_write_labels(reader: ShardReader, anew: bool, folder: Path | None) -> StreamLabels:
    number_of: dict[str, int] = {}
    read = (
        np.array([number_of.setdefault(name, len(number_of)) for name in reader.labels(shard)], dtype=np.int32)
        for shard in range(len(reader.urls))
    )
    if folder is None:
        shards = list(read)
        return StreamLabels(list(number_of), shards)
    numbers, description = folder / "labels.int32", folder / "labels.json"
    if anew or not description.is_file():
        description.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        images = list[int]()
        unfinished = numbers.with_suffix(UNFINISHED)  # what another process has mapped stays as it is
        with unfinished.open("wb") as file:
            for labels in read:
                labels.tofile(file)
                images.append(len(labels))
        unfinished.replace(numbers)
        write_atomically(description, json.dumps({"names": list(number_of), "images": images}).encode())
    stored = json.loads(description.read_bytes())
    whole = np.memmap(numbers, np.int32, "r") if sum(stored["images"]) else np.zeros(0, dtype=np.int32)
    return StreamLabels(stored["names"], np.split(whole, np.cumsum(stored["images"])[:-1]))


def held_out_order(
    source: str, folder: ShardFolder, shards: ShardedSplit, reader: ShardReader, most: int, seed: int
) -> IntArray:
    """Return the images of each class that are held out first, by a hash of shard and row.

    Args:
        source: SOURCE of the shards, its absolute path if it has one.
        folder: The shards.
        shards: Index of all of them.
        reader: Reads them.
        most: Images of a split that is held out, at most.
        seed: Seed of the hash.

    Returns:
        Class, shard and row, int64 (N, 3), by class and hash: of each class enough for two such splits.
    """
    files = folder.states(shard.file for shard in shards.shards)
    words = [folder.url, files, reader.label, list(reader.classes), list(shards.counts), most, seed]
    labels = partial(keep_labels, source, folder, list(files), replace(reader, left_out={}))
    read = partial(_read_or_fill, shards, reader.classes, labels, most, seed)
    return keep_rows(words, source, read, len)


def _read_or_fill(
    shards: ShardedSplit,
    classes: Sequence[str],
    labels: Callable[[], StreamLabels],
    most: int,
    seed: int,
    folder: Path | None,
) -> IntArray:
    if folder is None:
        return _order(shards, classes, labels(), most, seed)
    file = folder / "order.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "order.unfinished.npy"
        np.save(unfinished, _order(shards, classes, labels(), most, seed))
        unfinished.replace(file)
    return np.asarray(np.load(file), dtype=np.int64)


def _order(shards: ShardedSplit, classes: Sequence[str], labels: StreamLabels, most: int, seed: int) -> IntArray:
    counts = np.array(shards.counts)
    # A split takes c * most / total images of a class of c, rounded, which are at most 2 * most of all classes; the
    # second one takes its share of what the first one has left.
    share = min(1.0, 4 * most / max(int(counts.sum()), 1))
    enough = np.minimum(counts, np.ceil(counts * share).astype(np.int64) + 2).tolist()
    number_of = {name: number for number, name in enumerate(classes)}
    class_of = np.array([number_of[name] for name in labels.names], dtype=np.int64)
    lowest: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # by class, the largest hash first
    for shard, (file, numbers) in enumerate(zip(shards.shards, labels.shards, strict=True)):
        for row, label in enumerate(class_of[numbers].tolist()):
            digest = hashlib.blake2b(f"{seed} {file.file} {row}".encode(), digest_size=8).digest()
            entry = (-int.from_bytes(digest, "big"), shard, row)
            heap = lowest[label]
            if len(heap) < enough[label]:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    rows = [(label, shard, row) for label in sorted(lowest) for _, shard, row in sorted(lowest[label], reverse=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def first_rows(order: IntArray, wanted: IntArray, left_out: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Return the rows of each shard that are among the first of their class.

    Args:
        order: As :func:`held_out_order` returns it.
        wanted: Images to take of each class, shape (C,).
        left_out: Rows to pass over, by shard.

    Example:
        >>> order = np.array([[0, 1, 7], [0, 0, 2], [0, 1, 3], [1, 0, 0]])
        >>> first_rows(order, np.array([2, 0]), [frozenset({2}), frozenset()])
        [frozenset(), frozenset({3, 7})]
    """
    free = np.array([row not in left_out[shard] for _, shard, row in order.tolist()], dtype=bool)
    order = order[free]
    label = order[:, 0]  # sorted
    rank = np.arange(len(order)) - np.searchsorted(label, label)
    rows: list[set[int]] = [set() for _ in left_out]
    for _, shard, row in order[rank < wanted[label]].tolist():
        rows[shard].add(row)
    return [frozenset(numbers) for numbers in rows]
