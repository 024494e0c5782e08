"""Every image of a source decoded once, in threads: probes for the audit, or unreadable images dropped for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from longtail.data.audit.near_copies import look_hash, pixel_digest
from longtail.data.dataset import Encoded, Finding, ImageData, Split, empty_split_finding
from longtail.data.decode import has_own_range, opened, upright_rgb
from longtail.data.square import Square
from longtail.device import cores
from longtail.errors import LongtailError, UnreadableImageError, listed

# "one colour" is spelled as its kind in `inspect --json`, which does not change between versions.
Mark = Literal["misnamed", "deep", "own range", "print", "transparent", "animated", "one colour", "narrow"]

UNREADABLE = "unreadable"
"""Kind of the findings about images that cannot be decoded."""
NARROW = 4.0  # the longer side over the shorter; a center square then shows a quarter of the image at most
_BATCH = 256
_DEEP = ("I", "F")  # first letters of the modes of more than 8 bits
_PLAIN = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "PA"})


@dataclass(frozen=True, slots=True)
class Probe:
    """Facts about one image.

    Attributes:
        split: Name of its split.
        index: Its row in the split.
        label: Its class index.
        name: Its path below the source's folder, or split and row.
        size: Width and height as stored; None if they cannot be read.
        mode: Pillow mode as stored.
        marks: Unusual properties.
        pixels: Hash of its decoded pixels, 16 bytes.
        look: Perceptual hash, 32 bytes; empty for an image without detail.
        error: Why it cannot be used, one sentence; empty for a good image.
    """

    split: str
    index: int
    label: int
    name: str
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
        max_images: Approximate number of images, at least one of every split; None takes all.
        tick: Called once per image.

    Example:
        >>> split = Split.from_arrays(np.zeros((3, 8, 4), np.uint8), [0, 0, 1])
        >>> probe = next(probe_all(ImageData("mine", ("cat", "lynx"), {"train": split})))
        >>> probe.size, probe.mode, probe.marks
        ((4, 8), 'L', ('one colour',))
    """
    total = sum(map(len, data.splits.values()))
    share = 1.0 if max_images is None else min(1.0, max_images / total)
    with ThreadPoolExecutor(min(8, cores())) as pool:
        for name, split in data.splits.items():
            chosen = np.unique(np.linspace(0, len(split) - 1, int(len(split) * share) or 1).astype(np.int64))
            for start in range(0, len(chosen) if len(split) else 0, _BATCH):  # so that embedded images fit in memory
                rows = chosen[start : start + _BATCH]
                images = zip(rows.tolist(), split.select(rows).scan(), strict=True)
                for probe in pool.map(partial(_probe, name, split), images):
                    tick()
                    yield probe


def display_name(split: Split, stored: Encoded, split_name: str, index: int) -> str:
    """Name an image: its path, relative to the folder of the source if it is in it, or split and row."""
    path, row = stored["path"], f"{split_name} row {split.origin_row(index)}"
    if stored["bytes"] is not None or not path:  # the name of an embedded image may not be unique
        return f"{path} ({row})" if path else row
    is_inside = split.root and Path(path).is_relative_to(split.root)
    return str(Path(path).relative_to(split.root)) if is_inside else path


def _probe(split_name: str, split: Split, row: tuple[int, tuple[int, Encoded]]) -> Probe:
    index, (label, stored) = row
    name = display_name(split, stored, split_name, index)
    source = stored["bytes"] if stored["bytes"] is not None else stored["path"]
    if source is None:
        return Probe(split_name, index, label, name, error=f"{name!r} holds no image: remove the row.")
    size, mode = None, ""
    try:
        with opened(source, name) as image:
            size, mode = image.size, image.mode
            file = Path(source) if isinstance(source, str) else None
            marks = tuple(_marks_of_file(image, file))
            pixels = upright_rgb(image)
    except LongtailError as error:
        return Probe(split_name, index, label, name, size, mode, error=str(error))
    if all(low == high for low, high in pixels.getextrema()):  # type: ignore[misc]  # three bands: three pairs
        marks = (*marks, "one colour")
    return Probe(split_name, index, label, name, size, mode, marks, pixel_digest(pixels), look_hash(pixels))


def _marks_of_file(image: Image.Image, file: Path | None) -> Iterator[Mark]:
    expected = None if file is None else Image.registered_extensions().get(file.suffix.lower())
    if expected not in {None, image.format} and not {expected, image.format} <= {"JPEG", "MPO"}:
        yield "misnamed"
    if image.mode.startswith(_DEEP):
        yield "deep"
    elif image.mode not in _PLAIN:
        yield "print"
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a JPEG of a phone, with a preview
        yield "animated"
    if max(image.size) > NARROW * min(image.size):
        yield "narrow"
    image.load()
    if has_own_range(image):
        yield "own range"
    if _is_transparent(image):
        yield "transparent"


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is not opaque, whatever channels there are."""
    if image.mode in {"RGBA", "LA", "PA"}:
        return bool(image.getchannel("A").getextrema()[0] != 255)
    if image.mode.startswith(_DEEP):
        clear = image.info.get("transparency")
        return clear is not None and bool((np.asarray(image) == clear).any())
    return "transparency" in image.info and bool(image.convert("RGBA").getchannel("A").getextrema()[0] != 255)


def drop_unreadable(data: ImageData, square: Square, *, tick: Callable[[], object] = lambda: None) -> ImageData:
    """Decode every image once, as training does, and leave out those that cannot be decoded.

    Labels do not change, even if a class loses all of its images.

    Args:
        data: The source.
        square: The square that training images are brought to.
        tick: Called once per image.

    Returns:
        The source itself if all images can be read; else the readable ones, with findings that name the others and the
        classes without a training image left.

    Raises:
        LongtailError: No training image can be read, or the machine fails to read one that may be good.

    Example:
        >>> from longtail.data.sources.registry import load_source
        >>> digits = load_source("digits")
        >>> drop_unreadable(digits, Square(8)) is digits
        True
    """
    from longtail.data.loading.workers import read_ahead  # with PyTorch, which looking at a source does without

    def is_readable(split: Split, row: int) -> bool:
        try:
            split.pixels(row, square)
        except UnreadableImageError as error:
            if not error.is_damage:
                raise LongtailError(str(error)) from error  # which is not to be left out
            return False  # the finding names it
        finally:
            tick()
        return True

    names: list[str] = []
    splits = {}
    for name, split in data.splits.items():
        readable_rows = read_ahead(partial(is_readable, split), range(len(split)), threads=cores(), ahead=_BATCH)
        good = np.fromiter(readable_rows, dtype=np.bool_, count=len(split))
        bad = np.flatnonzero(~good)
        names += [display_name(split, split.encoded(row), name, row) for row in bad.tolist()]
        splits[name] = split.select(np.flatnonzero(good)) if len(bad) else split
    if not names:
        return data
    total = sum(map(len, data.splits.values()))
    message = f"{len(names):,} of {total:,} images cannot be read and are left out ({listed(names)})"
    findings = [Finding("error", message, "see what is wrong with them: longtail inspect", UNREADABLE, tuple(names))]
    if not len(splits["train"]):
        raise LongtailError(f"none of the training images of {data.source!r} can be read: longtail inspect says why.")
    empty = [name for name, split in splits.items() if not len(split)]
    findings += map(empty_split_finding, empty)
    readable = replace(data, splits={name: split for name, split in splits.items() if name not in empty})
    before, after = data.counts().array, readable.counts().array
    lost = [data.classes[label] for label in np.flatnonzero((before > 0) & (after == 0))]
    if lost:
        message = f"{listed(lost)} {'has' if len(lost) == 1 else 'have'} no training image left, and cannot be learned"
        findings.append(Finding("warning", message, "repair or add some", "class-emptied"))
    return replace(readable, findings=(*data.findings, *findings))
