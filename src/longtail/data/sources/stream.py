"""The source ``stream:``: training images that are read in order from shards, without a list of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import pyarrow as pa

from longtail.counts import ClassCounts, IntArray
from longtail.data.class_names import order_classes
from longtail.data.columns import in_memory
from longtail.data.dataset import Finding, ImageData, Split
from longtail.data.loading.cache_folder import (
    INDEX,
    UNFINISHED,
    Contents,
    cache_root,
    describe,
    keep_rows,
    locked_entry,
)
from longtail.data.shard_index import (
    INDEX_FILE,
    INDEX_FORMAT,
    LABEL_COLUMN,
    Shard,
    ShardedSplit,
    ShardIndex,
    read_index,
    write_index,
)
from longtail.data.shard_reader import ShardFolder, ShardReader, StreamedImage, list_shards, open_shard
from longtail.data.sources.image_tables import untrained
from longtail.data.sources.stream_order import first_rows, held_out_order, keep_labels
from longtail.data.sources.table_columns import Columns
from longtail.data.sources.table_splits import divide_files, unread_files
from longtail.data.stream_draws import Chances
from longtail.errors import LongtailError, UsageError
from longtail.files import write_atomically, writing
from longtail.remote import place_of

if TYPE_CHECKING:
    import datasets

STREAM: Final = "stream"
MOST_HELD_OUT: Final = 20_000  # images of a split that is held out: they are copied to this machine
_EXAMPLES = 512  # images in memory for a report
_SAMPLE_SHARDS = 16  # that a sample is read from
_READ_TOO_MUCH = 3.0  # images for one that is drawn


class StreamedSplit(Split):
    """Training images of a stream: they have counts, but no list, and are read in the order of their shards.

    What needs a list of them raises LongtailError.

    Args:
        source: SOURCE as the user typed it.
        folder: The shards.
        shards: Index of those of this split.
        reader: Reads them.
        whole: The index before any images were held out, if some were.
    """

    def __init__(
        self,
        source: str,
        folder: ShardFolder,
        shards: ShardedSplit,
        reader: ShardReader,
        whole: ShardedSplit | None = None,
    ) -> None:
        self.source, self.folder, self.shards, self.reader = source, folder, shards, reader
        self.whole = whole or shards

    def __len__(self) -> int:
        return self.shards.images

    def __repr__(self) -> str:
        return f"StreamedSplit({self.source!r}, {len(self):,} images)"

    def _refuse(self) -> NoReturn:
        raise LongtailError(
            f"the training images of {self.source!r} are streamed, so that they have no list to be inspected, grouped, "
            "divided, cut or stored as features: train through the network (--mode finetune or scratch, no --folds, "
            "--group-column or --imbalance-ratio), or read them by parquet:, folder: or hf:."
        )

    @property
    def rows(self) -> datasets.Dataset:
        """Refused: there is no table of the images."""
        self._refuse()

    @property
    def labels(self) -> IntArray:
        """Refused: there is no list of the labels."""
        self._refuse()

    def class_counts(self, classes: Sequence[str]) -> ClassCounts:
        """Count the images of each class."""
        return ClassCounts(self.shards.counts, tuple(classes))

    def shown_classes(self) -> list[int]:
        """Return the indices of the classes that have images, in order."""
        return [label for label, count in enumerate(self.shards.counts) if count]

    @property
    def examples(self) -> Split:
        """The images that a report may show: those at the beginnings of some shards."""
        return self.sample(_EXAMPLES)

    def sample(self, count: int) -> Split:
        """Read some images from the beginnings of some shards.

        Args:
            count: Number of images, fewer where the shards are short.
        """
        numbers = np.linspace(0, len(self.shards.shards) - 1, min(_SAMPLE_SHARDS, len(self.shards.shards)))
        each = -(-count // len(numbers))
        return _in_memory(
            image for number in numbers.astype(int).tolist() for image in islice(self.reader.images(number), each)
        )

    def fingerprint(self) -> str:
        """Hash the index, and the rows that are held out of it: ``"sha256:..."``."""
        left_out = {str(shard): sorted(rows) for shard, rows in self.reader.left_out.items() if rows}
        shards = [[shard.file, shard.images, shard.bytes, shard.band] for shard in self.shards.shards]
        text = json.dumps([self.shards.counts, shards, left_out])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def hold_out(self, fractions: Mapping[str, float], *, seed: int) -> tuple[StreamedSplit, dict[str, Split]]:
        """Hold out fractions of every class for other splits, chosen by a hash of the shard's name and the row.

        Of each class as many are held out as :func:`longtail.data.splits.carve` does, for each split of what the ones
        before have left, and about :data:`MOST_HELD_OUT` at most for each. The images of all splits are copied into the
        cache of this machine in one pass over the shards, and which they are is kept there too.

        Args:
            fractions: The share to hold out for each split, in (0, 1).
            seed: Seed of the hash.

        Returns:
            The rest of the stream, and the images held out.

        Raises:
            LongtailError: No image can be held out.
        """
        stored_as = _stored_as(self.source)
        order = held_out_order(stored_as, self.folder, self.whole, self.reader, most=MOST_HELD_OUT, seed=seed)
        rest, split_of = self, dict[tuple[int, int], str]()
        for name, fraction in fractions.items():
            rest, rows_of = rest._without(order, fraction, f"--data.{name}_fraction")
            split_of |= {(shard, row): name for shard, rows in enumerate(rows_of) for row in rows}
        images = (
            (split_of[shard, image.row], image)
            for shard in sorted({shard for shard, _ in split_of})
            for image in self.reader.images(shard)
            if (shard, image.row) in split_of
        )
        rows = [(*place, split_of[place]) for place in sorted(split_of)]
        words = [*_words(self.folder, self.reader, self.shards), rows]
        return rest, _kept(words, stored_as, list(fractions), images)

    def _without(self, order: IntArray, fraction: float, option: str) -> tuple[StreamedSplit, Sequence[frozenset[int]]]:
        """Return the stream without a fraction of every class, and the rows of each shard that it is without."""
        counts = np.array(self.shards.counts)
        share = min(fraction, MOST_HELD_OUT / max(counts.sum(), 1))
        wanted = np.minimum(np.floor(counts * share + 0.5), np.maximum(counts - 1, 0)).astype(int)
        if not wanted.any():
            raise LongtailError(
                f"no image of {self.source!r} can be held out at {option} {fraction:g} without emptying a class: use "
                f"{option} 0, which holds none out, or a larger one."
            )
        before = [self.reader.left_out.get(number, frozenset()) for number in range(len(self.shards.shards))]
        rows_of = first_rows(order, wanted, before)
        left_out = {shard: before[shard] | rows for shard, rows in enumerate(rows_of) if rows}
        remaining = replace(
            self.shards,
            counts=tuple((counts - wanted).tolist()),
            shards=tuple(
                replace(shard, images=shard.images - len(rows))
                for shard, rows in zip(self.shards.shards, rows_of, strict=True)
            ),
        )
        reader = replace(self.reader, left_out={**self.reader.left_out, **left_out})
        return StreamedSplit(self.source, self.folder, remaining, reader, self.whole), rows_of


def stream_path(spec: str) -> Path | None:
    """Return the absolute path of a stream; None for a URL or a pattern.

    Example:
        >>> stream_path("/data/birds").as_posix(), stream_path("s3://bucket/birds"), stream_path("/data/*.tar")
        ('/data/birds', None, None)
    """
    return None if not spec or "://" in spec or "*" in spec else Path(spec).expanduser().absolute()


def _stored_as(source: str) -> str:
    """Return the name of a stream in the cache, as :func:`longtail.data.sources.registry.source_name` does."""
    return str(stream_path(source.removeprefix(f"{STREAM}:")) or source)


def load_stream(spec: str, columns: Columns) -> ImageData:
    """Read the index of shards, or count their images once and write it; no training image is read.

    Files are training images unless their name says otherwise: ``test-*``, ``validation-*`` and their usual spellings.
    Images of those splits are copied into the cache of this machine.

    Args:
        spec: A folder, a file or a pattern with ``*``, as a path or as a URL that fsspec knows.
        columns: The columns the user named.

    Raises:
        LongtailError: The shards cannot be found or read, or none is for training.
    """
    if columns.split is not None:
        raise UsageError(
            f"{STREAM}: tells splits by the names of files, such as test-*: leave split_column out.",
            options={"split_column": "--split-column"},
        )
    source = f"{STREAM}:{spec}"
    local = spec if "://" in spec else str(Path(spec).expanduser().absolute())
    folder = list_shards(local)
    first = open_shard(folder.kind, folder.urls([next(iter(folder.sizes))])[0])
    names = list(first.features or {})
    image, label = (columns.find(role, names, source) for role in ("image", "label"))

    def reader(files: Sequence[str], classes: Sequence[str]) -> ShardReader:
        return ShardReader(folder.urls(files), folder.kind, image, label, classes)

    index = _stored_index(folder, label)
    if index is None:
        with locked_entry(_index_name(folder, label)):  # others wait, and read what one has counted
            index = _stored_index(folder, label) or _count(_stored_as(source), folder, label, reader)
    splits: dict[str, Split] = {}
    for name, part in index.splits.items():
        files = [shard.file for shard in part.shards]
        if name == "train":
            whole = replace(reader(files, index.classes), sizes=[shard.images for shard in part.shards])
            splits[name] = StreamedSplit(source, folder, part, whole)
            continue
        read = reader(files, index.classes)
        images = ((name, each) for number in range(len(files)) for each in read.images(number))
        splits |= _kept(_words(folder, read, part), _stored_as(source), [name], images)
    if "train" not in splits:
        raise LongtailError(f"{source!r} has no shard of training images: rename one train-*, or widen the pattern.")
    unread = unread_files(sorted(set(folder.sizes) - index.files))
    findings = [*untrained(index.classes, splits), *unread, *_slow_draws(index.splits["train"])]
    return ImageData(source, index.classes, splits, tuple(findings))


def _slow_draws(split: ShardedSplit) -> list[Finding]:
    """Return a note where balanced draws read many images for one that they use."""
    from longtail.data.samplers import class_probabilities  # with PyTorch, which looking at a source does without

    counts, bands = np.array(split.counts), np.array(split.bands)
    wanted = class_probabilities(split.counts, "class-balanced").numpy()
    reads = Chances.of(wanted, counts, bands).reads(counts, bands)
    if reads < _READ_TOO_MUCH:
        return []
    message = f"the shards mix rare and frequent classes: class-balanced draws read {reads:.0f} images for one they use"
    remedy = "prepare SOURCE --shards DIR writes shards by frequency"
    return [Finding("note", f"{message} ({remedy})", remedy, "shards-without-bands")]


def _stored_index(folder: ShardFolder, label: str) -> ShardIndex | None:
    """Return the index next to the shards, or the one in the cache, if it is of these shards and this label column."""
    place = place_of(f"{folder.url}/{INDEX_FILE}")
    found = [(place.read_bytes(), str(place), "")] if place.is_file() else []
    with suppress(OSError, RuntimeError):  # no home directory
        kept = cache_root() / _index_name(folder, label)
        found.append((kept.read_bytes(), str(kept), label))  # which its name has a hash of
        os.utime(kept)
    for data, name, named in found:
        index = read_index(data, name)
        # Earlier versions did not write the column. Where `prepare` wrote the shards, which deals them to hands, it is
        # the one that `prepare` writes. Others may have been counted by any column, and are counted anew.
        if (index.label or named or (LABEL_COLUMN if index.is_prepared else "")) != label:
            continue
        listed = set(folder.sizes)
        if index.files <= listed and not divide_files(listed - index.files) and not _has_changed(folder, index):
            return index
    return None


def _has_changed(folder: ShardFolder, index: ShardIndex) -> bool:
    """Whether a shard was written again since it was counted.

    What `prepare` writes has no versions, as it is copied to where it belongs with its index.
    """
    shards = [shard for split in index.splits.values() for shard in split.shards if shard.file in folder.sizes]
    return any(shard.bytes != folder.sizes[shard.file] for shard in shards) or (
        not index.is_prepared and any(shard.version != folder.versions.get(shard.file, "") for shard in shards)
    )


def _index_name(folder: ShardFolder, label: str) -> str:
    """Return the name of the index in the cache."""
    text = json.dumps([folder.url, folder.states(folder.sizes), label])
    return f"{hashlib.sha256(text.encode()).hexdigest()}{INDEX}"


def _count(source: str, folder: ShardFolder, label: str, reader: Any) -> ShardIndex:
    """Count the images of every class and shard once, and write the index next to the shards, else to the cache.

    The labels of training images are kept in the cache of this machine, as images may be held out by them.
    """
    parts = divide_files(folder.sizes)
    tallies: dict[str, list[Counter[str]]] = {}
    stated: dict[str, None] = {}
    for name, files in parts.items():
        read = reader(files, ())
        stated |= dict.fromkeys(read.stated_classes)
        if name == "train":
            tallies[name] = keep_labels(source, folder, files, read, anew=True).counts()
        else:
            tallies[name] = [Counter(read.labels(number)) for number in range(len(files))]
    others = {name for tally in tallies.values() for counts in tally for name in counts} - stated.keys()
    classes = (*stated, *order_classes(others))
    splits = {}
    for name, files in parts.items():
        total = sum(tallies[name], Counter[str]())
        shards = tuple(
            Shard(file, counts.total(), folder.sizes[file], version=folder.versions.get(file, ""))
            for file, counts in zip(files, tallies[name], strict=True)
        )
        splits[name] = ShardedSplit(tuple(total[each] for each in classes), (0,) * len(classes), shards)
    index = ShardIndex(INDEX_FORMAT, classes, splits, label)
    _write(source, folder, index)
    return index


def _write(source: str, folder: ShardFolder, index: ShardIndex) -> None:
    """Write an index next to its shards, unless one of another label is there or the place cannot be written.

    It then goes to the cache. One of shards that have changed is replaced, and one that an earlier version counted, by
    a label that it does not tell.
    """
    place = place_of(f"{folder.url}/{INDEX_FILE}")
    with suppress(OSError, LongtailError):  # which may be for reading only
        stored = read_index(place.read_bytes(), str(place)) if place.is_file() else None
        is_old = stored is not None and (not stored.label or _has_changed(folder, stored)) and not stored.is_prepared
        if stored is None or is_old:
            with writing(place) as file:
                file.write(write_index(index))
            return
    with suppress(OSError, RuntimeError, LongtailError):  # without an index the next command counts again
        path = cache_root() / _index_name(folder, index.label)
        write_atomically(path, write_index(index))
        describe(path, Contents("index", source, "", sum(split.images for split in index.splits.values())))


def _words(folder: ShardFolder, reader: ShardReader, shards: ShardedSplit) -> list[object]:
    """Return the values that decide which images some shards hold."""
    files = folder.states(shard.file for shard in shards.shards)
    return [folder.url, files, reader.image, reader.label, list(reader.classes), list(shards.counts)]


def _kept(
    words: Sequence[object], source: str, names: Sequence[str], images: Iterator[tuple[str, StreamedImage]]
) -> dict[str, Split]:
    """Copy images, each with the name of its split, into the cache, or into memory where there is no cache."""
    read = partial(_read_or_fill, names, images)
    return keep_rows([words, names], source, read, lambda splits: sum(map(len, splits.values())))


def _read_or_fill(
    names: Sequence[str], images: Iterator[tuple[str, StreamedImage]], folder: Path | None
) -> dict[str, Split]:
    """Map an Arrow file for each split, which are written first where they do not exist."""
    import datasets

    if folder is None:
        parts: dict[str, list[StreamedImage]] = {name: [] for name in names}
        for name, image in images:
            parts[name].append(image)
        return {name: _in_memory(part) for name, part in parts.items()}
    files = {name: folder / f"{name}.arrow" for name in names}
    if not all(file.is_file() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        schema = _features().arrow_schema
        with ExitStack() as stack:
            sinks = {name: stack.enter_context(file.with_suffix(UNFINISHED).open("wb")) for name, file in files.items()}
            writers = {name: stack.enter_context(pa.ipc.new_stream(sink, schema)) for name, sink in sinks.items()}
            while batch := list(islice(images, 64)):
                for name, writer in writers.items():
                    writer.write_table(_table([image for split, image in batch if split == name], schema))
        for file in files.values():
            file.with_suffix(UNFINISHED).replace(file)
    rows = {name: datasets.Dataset.from_file(str(file)) for name, file in files.items()}
    return {name: Split(each.cast_column("image", datasets.Image(decode=False))) for name, each in rows.items()}


def _in_memory(images: Iterable[StreamedImage]) -> Split:
    import datasets

    table = _table(list(images), _features().arrow_schema)
    return Split(in_memory(table).cast_column("image", datasets.Image(decode=False)))


def _features() -> datasets.Features:
    import datasets

    return datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})


def _table(images: Sequence[StreamedImage], schema: pa.Schema) -> pa.Table:
    stored = [{"bytes": image.data, "path": image.name} for image in images]
    labels = [image.label for image in images]
    return pa.table([pa.array(stored, schema.field("image").type), pa.array(labels, pa.int64())], schema=schema)
