"""What is computed once and kept on disk: one memory-mapped file for each set of decoded images or of features."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import PIL
import torch
from filelock import FileLock
from torch import Tensor

from longtail.data.dataset import gone
from longtail.data.loading.cache_folder import (
    LOCK,
    PIXELS,
    UNFINISHED,
    Contents,
    cache_folder,
    cache_limit,
    describe,
    make_room,
)
from longtail.data.loading.workers import Decoder, decode_all

# Smaller sets take a second to decode: looking them up costs about as much, and a file of each would only lie about.
SMALLEST_BYTES = 8_000_000


_NAMES = {"pixels": "decoded images", "features": "features"}  # in a warning


_BLOCK = 16_000_000


def cached_images(
    decoder: Decoder,
    tick: Callable[[], object] = lambda: None,
    warn: Callable[[str], object] = lambda _: None,
    *,
    source: str = "",
) -> Tensor:
    """Map the decoded images of a split from disk; where they are not there yet, decode them to disk first.

    The file is found by :func:`image_key`: the stored images in order, and the size they are
    brought to; labels do not matter. While one process decodes, others that want the same images wait for it. The
    least recently used files go where all together exceed ``$LONGTAIL_CACHE_GB`` (20).

    Args:
        decoder: From row to uint8 image.
        tick: Called once per decoded image.
        warn: Called with one sentence where the disk cannot be used; the images are then decoded into memory.
        source: SOURCE of the images, listed by `longtail cache`.

    Returns:
        uint8 (N, 3, S, S); writing to it changes no file.

    Raises:
        LongtailError: An image cannot be read, or ``$LONGTAIL_CACHE_GB`` is no number.

    Example:
        >>> from longtail.data.sources.registry import load_source
        >>> cached_images(Decoder(load_source("digits").splits["test"], None, 8)).shape
        torch.Size([359, 3, 8, 8])
    """
    count, size = len(decoder.split), decoder.size
    shape, needed = (count, 3, size, size), count * 3 * size**2
    if needed < SMALLEST_BYTES:
        return decode_all(decoder, tick)

    def decode(out: Tensor) -> None:
        decode_all(decoder, tick, out=out.view(shape))

    contents = Contents("pixels", source, str(size), count)
    return kept_on_disk(image_key(decoder), needed, decode, contents, warn=warn).view(shape)


def kept_on_disk(
    key: str,
    size: int,
    fill: Callable[[Tensor], None],
    contents: Contents,
    *,
    warn: Callable[[str], object] = lambda _: None,
) -> Tensor:
    """Map what was computed before from disk; where it is not there yet, have it computed to disk first.

    Args:
        key: What it is, as a hash.
        size: Bytes.
        fill: Computes it into a uint8 tensor of that size; called by one process at a time.
        contents: Description of the file, listed by `longtail cache`.
        warn: Called with one sentence where the disk cannot be used; it is then computed into memory.

    Returns:
        uint8 (size,); writing to it changes no file.

    Raises:
        Exception: What ``fill`` raised.

    Example:
        >>> contents = Contents("features", "photos", "resnet20", 1)
        >>> kept_on_disk("example", 2, lambda out: out.fill_(7), contents).tolist()
        [7, 7]
    """
    limit, what = cache_limit(), _NAMES[contents.kind]
    failed: list[Exception] = []

    def filling(out: Tensor) -> None:
        try:
            fill(out)
        except Exception as error:
            failed.append(error)
            raise

    if size > limit:
        warn(
            f"{size / 1e9:.1f} GB of {what} exceed the {limit / 1e9:g} GB of the cache and are not kept on "
            "disk: raise LONGTAIL_CACHE_GB, or train with --data.cache false."
        )
    else:
        try:
            return _from_disk(key, filling, size, limit, contents)
        except (OSError, RuntimeError) as error:  # the second is what torch raises where a file cannot be mapped
            if failed:  # it was no fault of the disk
                raise
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            warn(
                f"{what} are not kept on disk, because {_shown_folder()} cannot be used ({reason}): set "
                "LONGTAIL_CACHE to a folder that can be written, or train with --data.cache false."
            )
    out = torch.empty(size, dtype=torch.uint8)
    fill(out)
    return out


def _from_disk(key: str, fill: Callable[[Tensor], None], needed: int, limit: float, contents: Contents) -> Tensor:
    folder = cache_folder()
    path = folder / f"{key}{PIXELS}"
    found = _map(path, needed)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(LOCK)):
        found = _map(path, needed)  # another process may have decoded while this one waited
        if found is None:
            make_room(folder, limit - needed, keep=path.stem)
            _fill(path, fill, needed)
            describe(path, contents)
            found = _map(path, needed)
    if found is None:
        raise OSError(f"{path.name} has gone as soon as it was written")
    return found


def files_on_disk(key: str) -> list[Tensor]:
    """Map every file whose key begins so, as uint8 (size,); none where the folder cannot be used."""
    try:
        paths = sorted(cache_folder().glob(f"{key}*{PIXELS}"))
        found = [_map(path, path.stat().st_size) for path in paths]
    except (OSError, RuntimeError):  # as in kept_on_disk, which says so when it is to keep what is computed instead
        return []
    return [tensor for tensor in found if tensor is not None]


def _map(path: Path, needed: int) -> Tensor | None:
    """The file as a private map, or None where it is missing or not whole; its time becomes that of its last use."""
    try:
        if path.stat().st_size != needed:
            return None
        pixels = torch.from_file(str(path), shared=False, size=needed, dtype=torch.uint8)
    except (FileNotFoundError, RuntimeError):  # another process may have made room between the two lines
        if path.exists():
            raise
        return None
    with suppress(OSError):  # a folder that only an administrator fills is as good
        os.utime(path)
    return pixels


def _fill(path: Path, fill: Callable[[Tensor], None], needed: int) -> None:
    """Compute into a file of another name, bring it to the disk, and only then give it its name. The lock is held."""
    unfinished = path.with_suffix(UNFINISHED)
    try:
        with unfinished.open("wb") as file:  # what a killed process left is overwritten
            _reserve(file, needed)
        fill(torch.from_file(str(unfinished), shared=True, size=needed, dtype=torch.uint8))
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the space now: a map of a file on a full disk ends the process that writes to it, without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _BLOCK):
        file.write(bytes(min(_BLOCK, size - start)))


def _shown_folder() -> str:
    try:
        return str(cache_folder())
    except RuntimeError:  # there is no home
        return "the user's cache folder"


FORMAT = 1  # of decoded images; raise it when they are decoded or laid out differently


def image_key(decoder: Decoder) -> str:
    """Hash the stored images of a split, in order, and the size they are brought to.

    An embedded image counts by its bytes, a photo by path, size and times of its last change: to read all photos takes
    about as long as a cache of their pixels saves. Features cost far more, and go by :func:`image_hashes`.

    Raises:
        UnreadableImageError: A file has gone since the source was read.
    """
    digest = hashlib.sha256(f"{scaling(decoder)};".encode())
    for _, stored in decoder.split.scan():
        content, path = stored["bytes"], stored["path"]
        if content is not None:
            digest.update(b"bytes %d;" % len(content) + content)
        elif path is not None:
            try:
                status = os.stat(path)  # noqa: PTH116 - a million of them: no Path is made of each
            except FileNotFoundError:
                raise gone(path) from None
            name = os.fsencode(path)
            # The second time cannot be set: it tells a file that was rewritten and given its old date.
            times = (status.st_mtime_ns, status.st_ctime_ns)
            digest.update(b"file %d %d %d %d;" % (len(name), status.st_size, *times) + name)
        else:
            digest.update(b"nothing;")
    return digest.hexdigest()


def scaling(decoder: Decoder) -> str:
    """What decoded pixels follow from beside the stored image; another Pillow may decode to slightly other ones."""
    return f"{FORMAT} {PIL.__version__} {decoder.resize} {decoder.size} {decoder.interpolation}"
