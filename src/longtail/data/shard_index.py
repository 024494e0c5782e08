"""The index of a stream: classes, counts and frequency bands of its shards, in a JSON file next to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Final

import numpy as np
from annotated_types import Ge, MinLen

from longtail.counts import ClassCounts, IntArray
from longtail.errors import LongtailError
from longtail.validation import parse_json, require_format, validate

INDEX_FILE: Final = "_longtail.json"
INDEX_FORMAT: Final = 1
LABEL_COLUMN: Final = "label"  # of shards that `prepare` writes
REMEDY: Final = "delete it, and the images are counted again"

WholeNumber = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Shard:
    """A file of images.

    Attributes:
        file: Its name, relative to the folder of the index.
        images: Number of images in it.
        bytes: Its size.
        band: Number of its frequency band, from 0, the most frequent classes.
        version: Its version when its images were counted, as the store tells it; empty where it tells none, and in
            what `prepare` writes, which may be copied.
    """

    file: Annotated[str, MinLen(1)]
    images: WholeNumber
    bytes: WholeNumber = 0
    band: WholeNumber = 0
    version: str = ""


@dataclass(frozen=True)
class ShardedSplit:
    """The shards of one split.

    Attributes:
        counts: Images of each class, C of them.
        bands: Frequency band of each class, C of them: images of a class are in shards of its band alone.
        shards: The files.
        hands: Every class is dealt evenly to this many hands: file number j of a band belongs to hand j modulo
            ``hands``; 0 where that is not known.
    """

    counts: tuple[WholeNumber, ...]
    bands: tuple[WholeNumber, ...]
    shards: tuple[Shard, ...]
    hands: WholeNumber = 0

    @cached_property
    def num_bands(self) -> int:
        """Number of frequency bands."""
        return 1 + max((shard.band for shard in self.shards), default=0)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.counts)

    @cached_property
    def band_sizes(self) -> IntArray:
        """Images of each band, int64 (B,)."""
        sizes = np.zeros(self.num_bands, dtype=np.int64)
        np.add.at(sizes, [shard.band for shard in self.shards], [shard.images for shard in self.shards])
        return sizes

    def dealt(self, band: int, lanes: int = 1) -> list[int]:
        """Return the numbers of the shards of a band, in the order in which they are dealt to lanes, one after another.

        Those without images are left out where a lane would get no others, unless the shards belong to hands, which
        their places count for.

        Example:
            >>> shards = tuple(Shard(f"{number}.tar", images) for number, images in enumerate((3, 0, 2, 1)))
            >>> split = ShardedSplit((6,), (0,), shards)
            >>> split.dealt(0, lanes=2), split.dealt(0, lanes=3)
            ([0, 1, 2, 3], [0, 2, 3])
        """
        of_band = [number for number, shard in enumerate(self.shards) if shard.band == band]
        has_images = [any(self.shards[number].images for number in of_band[lane::lanes]) for lane in range(lanes)]
        if self.hands or all(has_images):
            return of_band
        return [number for number in of_band if self.shards[number].images]


@dataclass(frozen=True)
class ShardIndex:
    """The index of a stream.

    Attributes:
        format: Number of the format.
        classes: Class names, C of them.
        splits: The shards by split.
        label: Column of the labels that were counted; empty where an earlier version wrote the index.

    Example:
        >>> split = ShardedSplit((3, 1), (0, 0), (Shard("train-b0-00000.parquet", images=4),))
        >>> index = ShardIndex(INDEX_FORMAT, ("cat", "lynx"), {"train": split}, "species")
        >>> read_index(write_index(index), "here") == index
        True
    """

    format: int
    classes: tuple[str, ...]
    splits: Mapping[str, ShardedSplit]
    label: str = ""

    @property
    def files(self) -> set[str]:
        """The shards of all splits."""
        return {shard.file for split in self.splits.values() for shard in split.shards}

    @property
    def is_prepared(self) -> bool:
        """Whether `prepare` wrote the shards, which deals them to hands."""
        return any(split.hands for split in self.splits.values())


def write_index(index: ShardIndex) -> bytes:
    """Return an index as JSON."""
    import json

    return json.dumps(asdict(index), ensure_ascii=False).encode()


def read_index(data: bytes, where: str) -> ShardIndex:
    """Return the index of a JSON text.

    Args:
        data: The text.
        where: Its place, for errors.

    Raises:
        FormatError: It has a newer format.
        LongtailError: It is damaged, or its parts do not fit together.
    """
    from pydantic import TypeAdapter

    values: Any = parse_json(data, where, REMEDY)
    require_format(where, values.get("format") if isinstance(values, dict) else None, INDEX_FORMAT)
    index = validate(TypeAdapter(ShardIndex), data, where, REMEDY)
    for name, split in index.splits.items():
        classes = {len(index.classes), len(split.counts), len(split.bands)}
        if len(classes) > 1 or sum(shard.images for shard in split.shards) != split.images:
            raise LongtailError(f"{where}: the counts of {name!r} do not fit its shards: {REMEDY}.")
    return index


def frequency_bands(class_counts: ClassCounts, fewest: int) -> IntArray:
    """Divide classes into bands by their frequency: those of one octave of counts, and more where these are few.

    In a band whose largest class has less than twice the images of its smallest, draws by any function of the counts
    between instance and class-balanced sampling use at least half of the images that are read.

    Args:
        class_counts: Images of each class.
        fewest: Smallest number of images of a band; neighboring bands are joined until they have as many.

    Returns:
        The band of each class, int64 (C,), from 0, the most frequent classes.

    Example:
        >>> frequency_bands(ClassCounts([900, 600, 500, 40, 33, 2]), fewest=8).tolist()
        [0, 0, 1, 2, 2, 2]
    """
    counts = class_counts.array
    octave = np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64)
    bands, band, images = np.zeros(len(counts), dtype=np.int64), -1, fewest
    for each in np.unique(octave)[::-1].tolist():
        if images >= fewest and counts[octave <= each].sum() >= fewest:  # and what is left fills a band
            band, images = band + 1, 0
        bands[octave == each] = max(band, 0)
        images += int(counts[octave == each].sum())
    return bands
