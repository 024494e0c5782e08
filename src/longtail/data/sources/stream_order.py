"""The order in which images of a stream are held out: by a hash of shard and row, kept in the cache of this machine."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from longtail.counts import IntArray
from longtail.data.loading.cache_folder import TABLE, Contents, keep_folder
from longtail.data.shard_index import ShardedSplit
from longtail.data.shard_reader import ShardFolder, ShardReader


def held_out_order(
    source: str, folder: ShardFolder, shards: ShardedSplit, reader: ShardReader, most: int, seed: int
) -> IntArray:
    """Return the images of each class that are held out first; all labels are read once for a seed.

    Args:
        source: SOURCE as the user typed it.
        folder: The shards.
        shards: Index of all of them.
        reader: Reads them.
        most: Images of a split that is held out, at most.
        seed: Seed of the hash.

    Returns:
        Class, shard and row, int64 (N, 3), by class and hash: of each class enough for two such splits.
    """
    files = {shard.file: folder.sizes[shard.file] for shard in shards.shards}
    words = [folder.url, files, reader.label, list(reader.classes), most, seed]
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    read = partial(_read_or_fill, shards, reader, most, seed)
    return keep_folder(f"{digest}{TABLE}", 0, read, lambda order: Contents("table", source, "", len(order)))


def _read_or_fill(shards: ShardedSplit, reader: ShardReader, most: int, seed: int, folder: Path | None) -> IntArray:
    if folder is None:
        return _order(shards, reader, most, seed)
    file = folder / "order.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "order.unfinished.npy"
        np.save(unfinished, _order(shards, reader, most, seed))
        unfinished.rename(file)
    return np.asarray(np.load(file), dtype=np.int64)


def _order(shards: ShardedSplit, reader: ShardReader, most: int, seed: int) -> IntArray:
    counts = np.array(shards.counts)
    # A split takes c * most / total images of a class of c, rounded, which are at most 2 * most of all classes; the
    # second one takes its share of what the first one has left.
    share = min(1.0, 4 * most / max(int(counts.sum()), 1))
    enough = np.minimum(counts, np.ceil(counts * share).astype(np.int64) + 2).tolist()
    number_of = {name: number for number, name in enumerate(reader.classes)}
    lowest: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # by class, the largest hash first
    for shard, file in enumerate(shards.shards):
        for row, name in enumerate(reader.labels(shard)):
            label = number_of[name]
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
