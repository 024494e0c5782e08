"""Drop images that cannot be decoded, so that training can go ahead without them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from longtail.data.audit.probe import display_name
from longtail.data.dataset import Finding, ImageData
from longtail.data.decode import Interpolation
from longtail.data.loading.workers import Decoder
from longtail.device import cores
from longtail.errors import LongtailError, UnreadableImageError, listed

UNREADABLE = "unreadable"


def drop_unreadable(
    data: ImageData,
    *,
    resize: int | None,
    size: int,
    interpolation: Interpolation = "bicubic",
    tick: Callable[[], object] = lambda: None,
) -> ImageData:
    """Decode every image once, as training does, and leave out those that cannot be decoded.

    Labels do not change, even if a class loses all of its images.

    Args:
        data: The source.
        resize: As for :class:`~longtail.data.loading.workers.Decoder`.
        size: As for :class:`~longtail.data.loading.workers.Decoder`.
        interpolation: As for :class:`~longtail.data.loading.workers.Decoder`.
        tick: Called once per image.

    Returns:
        The source itself if all images can be read; else the readable ones, with findings that name the others and the
        classes without a training image left.

    Raises:
        LongtailError: No training image can be read.

    Example:
        >>> from longtail.data.sources.registry import load_source
        >>> digits = load_source("digits")
        >>> drop_unreadable(digits, resize=None, size=8) is digits
        True
    """
    names: list[str] = []
    splits = {}
    with ThreadPoolExecutor(cores()) as pool:
        for name, split in data.splits.items():
            check = partial(_is_readable, Decoder(split, resize, size, interpolation), tick)
            good = np.fromiter(pool.map(check, range(len(split))), dtype=np.bool_, count=len(split))
            bad = np.flatnonzero(~good)
            names += [display_name(split, split.encoded(row), name, row) for row in bad.tolist()]
            splits[name] = split.select(np.flatnonzero(good)) if len(bad) else split
    if not names:
        return data
    total = sum(map(len, data.splits.values()))
    message = f"{len(names):,} of {total:,} images cannot be read and are left out ({listed(names)})"
    findings = [Finding("error", message, "see what is wrong with them: longtail inspect", UNREADABLE, tuple(names))]
    readable = data.with_splits(**splits)
    if not len(splits["train"]):
        raise LongtailError(f"none of the training images of {data.source!r} can be read: longtail inspect says why.")
    before, after = data.counts().array, readable.counts().array
    lost = [data.classes[label] for label in np.flatnonzero((before > 0) & (after == 0))]
    if lost:
        message = f"{listed(lost)} {'has' if len(lost) == 1 else 'have'} no training image left, and cannot be learned"
        findings.append(Finding("warning", message, "repair or add some", "class-emptied"))
    return replace(readable, findings=(*data.findings, *findings))


def _is_readable(decoder: Decoder, tick: Callable[[], object], row: int) -> bool:
    try:
        decoder.pixels(row)
    except UnreadableImageError:  # the finding names it
        return False
    finally:
        tick()
    return True
