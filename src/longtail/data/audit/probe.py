"""One look at every image of a source: decoded once, in threads, for its size, its oddities and its hashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from longtail.data.audit.near_copies import look_hash, pixel_digest
from longtail.data.dataset import Encoded, ImageData, Split
from longtail.data.decode import has_own_range, opened, upright_rgb
from longtail.errors import LongtailError

Mark = Literal["misnamed", "deep", "own range", "print", "transparent", "animated", "one colour", "narrow"]

NARROW = 4.0  # the longer side over the shorter; a centre square then shows a quarter of the image at most
_BATCH = 256
_DEEP = ("I", "F")  # first letters of the modes of more than 8 bits
_PLAIN = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "PA"})


@dataclass(frozen=True, slots=True)
class Probe:
    """What one image turned out to be.

    Attributes:
        split: The split it is in.
        index: Its row there.
        label: Its class index.
        size: Width and height as stored; None where even that cannot be read.
        mode: Of Pillow, as stored.
        marks: What is odd about it.
        pixels: Hash of its decoded pixels, 16 bytes.
        look: Hash of what it looks like, 32 bytes; none where it has no detail.
        error: Why it cannot be used, one sentence; empty for a good image.
    """

    split: str
    index: int
    label: int
    size: tuple[int, int] | None = None
    mode: str = ""
    marks: tuple[Mark, ...] = ()
    pixels: bytes = b""
    look: bytes = b""
    error: str = ""


def probe_all(
    data: ImageData, max_images: int | None = None, tick: Callable[[], object] = lambda: None
) -> Iterator[Probe]:
    """Yield a probe for every image, or for ``max_images`` of them evenly spread, in the order of the source.

    Args:
        data: The source.
        max_images: None for all; else at least one of every split is looked at.
        tick: Called once per image.

    Example:
        >>> split = Split.from_arrays(np.zeros((3, 8, 4), np.uint8), [0, 0, 1])
        >>> probe = next(probe_all(ImageData("mine", ("cat", "lynx"), {"train": split})))
        >>> probe.size, probe.mode, probe.marks
        ((4, 8), 'L', ('one colour',))
    """
    total = sum(map(len, data.splits.values()))
    share = 1.0 if max_images is None else min(1.0, max_images / total)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for name, split in data.splits.items():
            chosen = np.unique(np.linspace(0, len(split) - 1, int(len(split) * share) or 1).astype(np.int64))
            for start in range(0, len(chosen) if len(split) else 0, _BATCH):  # so that embedded images fit in memory
                rows = chosen[start : start + _BATCH]
                found = zip(rows.tolist(), split.select(rows).scan(), strict=True)
                for probe in pool.map(partial(_probe, name, split), found):
                    tick()
                    yield probe


def name_of(data: ImageData, probe: Probe) -> str:
    """What to call an image: its path, below the source's folder where it lies there, or split and row."""
    split = data.splits[probe.split]
    return shown_name(split, split.encoded(probe.index), probe.split, probe.index)


def shown_name(split: Split, stored: Encoded, split_name: str, index: int) -> str:
    """The same for an image already at hand."""
    path, row = stored["path"], f"{split_name} row {split.origin_rows[index]}"
    if stored["bytes"] is not None or not path:  # a name that came along need not be the only one of its kind
        return f"{path} ({row})" if path else row
    below = split.root and Path(path).is_relative_to(split.root)
    return str(Path(path).relative_to(split.root)) if below else path


def _probe(split_name: str, split: Split, row: tuple[int, tuple[int, Encoded]]) -> Probe:
    index, (label, stored) = row
    name = shown_name(split, stored, split_name, index)
    source = stored["bytes"] if stored["bytes"] is not None else stored["path"]
    if source is None:
        return Probe(split_name, index, label, error=f"{name!r} holds no image: remove the row.")
    size, mode = None, ""
    try:
        with opened(source, name) as image:
            size, mode = image.size, image.mode
            file = Path(source) if isinstance(source, str) else None
            marks = tuple(_marks_of_file(image, file))
            pixels = upright_rgb(image)
    except LongtailError as error:
        return Probe(split_name, index, label, size, mode, error=str(error))
    if all(low == high for low, high in pixels.getextrema()):  # type: ignore[misc]  # three bands: three pairs
        marks = (*marks, "one colour")
    return Probe(split_name, index, label, size, mode, marks, pixel_digest(pixels), look_hash(pixels))


def _marks_of_file(image: Image.Image, file: Path | None) -> Iterator[Mark]:
    if file is not None and not _fits(file.suffix.lower(), image.format or ""):
        yield "misnamed"
    if image.mode.startswith(_DEEP):
        yield "deep"
    elif image.mode not in _PLAIN:
        yield "print"
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a phone's JPEG with a preview behind it
        yield "animated"
    if max(image.size) > NARROW * min(image.size):
        yield "narrow"
    image.load()
    if has_own_range(image):
        yield "own range"
    if _is_transparent(image):
        yield "transparent"


def _fits(suffix: str, kind: str) -> bool:
    """Whether a file of that name is expected to hold that format.

    Example:
        >>> _fits(".jpg", "JPEG"), _fits(".jpg", "MPO"), _fits(".jpg", "PNG"), _fits(".apng", "PNG")
        (True, True, False, True)
    """
    expected = Image.registered_extensions().get(suffix)
    return expected is None or expected == kind or {expected, kind} <= {"JPEG", "MPO"}


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel lets something through: an alpha channel that is full everywhere says nothing."""
    if image.mode in {"RGBA", "LA", "PA"}:
        return bool(image.getchannel("A").getextrema()[0] != 255)
    if image.mode.startswith(_DEEP):
        clear = image.info.get("transparency")
        return clear is not None and bool((np.asarray(image) == clear).any())
    return "transparency" in image.info and bool(image.convert("RGBA").getchannel("A").getextrema()[0] != 255)
