"""The cache of decoded images and features: one memory-mapped file for each set."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import PIL
import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import Tensor

from longtail.data.dataset import file_status
from longtail.data.loading import cache_folder
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.sources.registry import source_name
from longtail.errors import first_line

# Smaller sets are decoded within a second, about as long as a lookup takes.
SMALLEST_BYTES = 8_000_000
FORMAT = 1  # of decoded images; to raise when they are decoded or laid out differently
_NAMES = {"pixels": "decoded images", "features": "features"}  # in a warning
BLOCK_BYTES = 16_000_000  # bytes written at a time


def cached_images(
    decoder: Decoder,
    tick: Callable[[], object] = lambda: None,
    warn: Callable[[str], object] = lambda _: None,
    *,
    source: str = "",
) -> Tensor:
    """Map the decoded images of a split from disk; decode them to disk first if they are not there yet.

    The name of the file is :func:`image_key`, which depends on the stored images in order and on their size after
    decoding, not on labels. While one process decodes, others wait for the same images. The least recently used files
    are deleted when all together exceed ``$LONGTAIL_CACHE_GB`` (20).

    Args:
        decoder: From row to uint8 image.
        tick: Called once per decoded image.
        warn: Called with one sentence if the disk cannot be used; the images are then decoded into memory.
        source: SOURCE of the images, listed by `longtail cache`.

    Returns:
        uint8 (N, 3, S, S); writing to it changes no file.

    Raises:
        LongtailError: An image cannot be read, or ``$LONGTAIL_CACHE_GB`` is not a number of at least 0.

    Example:
        >>> from longtail.data.square import Square
        >>> from longtail.data.sources.registry import load_source
        >>> cached_images(Decoder(load_source("digits").splits["test"], Square(8))).shape
        torch.Size([359, 3, 8, 8])
    """
    count, size = len(decoder.split), decoder.square.size
    shape, needed = (count, 3, size, size), count * 3 * size**2
    if needed < SMALLEST_BYTES:
        return decode_all(decoder, tick)

    contents = cache_folder.Contents("pixels", source, str(size), count)
    return kept_on_disk(
        image_key(decoder), needed, lambda out: decode_all(decoder, tick, out=out.view(shape)), contents, warn=warn
    ).view(shape)


def kept_on_disk(
    key: str,
    size: int,
    fill: Callable[[Tensor], object],
    contents: cache_folder.Contents,
    *,
    warn: Callable[[str], object] = lambda _: None,
) -> Tensor:
    """Map computed bytes from disk; compute them to disk first if they are not there yet.

    Args:
        key: Name of the entry, a hash of its content.
        size: Number of bytes.
        fill: Writes them into a uint8 tensor; called by one process at a time.
        contents: Description of the file, listed by `longtail cache`.
        warn: Called with one sentence if the disk cannot be used; the bytes are then computed into memory.

    Returns:
        uint8 (size,); writing to it changes no file.

    Raises:
        Exception: Any error of ``fill``.

    Example:
        >>> contents = cache_folder.Contents("features", "photos", "resnet20", 1)
        >>> kept_on_disk("example", 2, lambda out: out.fill_(7), contents).tolist()
        [7, 7]
    """
    limit, name = cache_folder.cache_limit(), _NAMES[contents.kind]
    folder: Path | str = "the user's cache folder"  # there may be no home
    errors: list[Exception] = []

    def recorded(out: Tensor) -> None:
        try:
            fill(out)
        except Exception as error:
            errors.append(error)
            raise

    def exceed(together: str = "") -> None:
        warn(
            f"{size / 1e9:.1f} GB of {name} exceed the {limit / 1e9:g} GB of the cache{together} and are not kept on "
            "disk: raise LONGTAIL_CACHE_GB, or train with --data.cache false."
        )

    if size > limit:
        exceed()
    else:
        try:
            folder = cache_folder.cache_root()
            named = replace(contents, source=source_name(contents.source))
            mapped = _from_disk(folder / f"{key}{cache_folder.PIXELS}", recorded, size, limit, named)
            if mapped is not None:
                return mapped
            exceed(", together with what else is in use,")
        except (OSError, RuntimeError) as error:  # torch raises a RuntimeError if a file cannot be mapped
            if errors:  # the disk is not to blame
                raise
            reason = getattr(error, "strerror", None) or first_line(error)
            warn(
                f"{name} are not kept on disk, because {folder} cannot be used ({reason}): set "
                "LONGTAIL_CACHE to a folder that can be written, or train with --data.cache false."
            )
    out = torch.empty(size, dtype=torch.uint8)
    fill(out)
    return out


def _from_disk(
    path: Path, fill: Callable[[Tensor], object], needed: int, limit: float, contents: cache_folder.Contents
) -> Tensor | None:
    """Map a file, and fill it first if it is missing; None if what this process has mapped leaves no room for it."""
    mapped = _map(path, needed)
    if mapped is not None:
        return mapped
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(cache_folder.LOCK)):
        mapped = _map(path, needed)  # another process may have filled it while this one waited
        if mapped is None:
            if not cache_folder.has_room(limit - needed):
                return None
            cache_folder.make_room(path.parent, limit - needed, keep=path.stem)
            _fill(path, fill, needed)
            cache_folder.describe(path, contents)
            mapped = _map(path, needed)
    if mapped is None:
        raise OSError(f"{path.name} was deleted as soon as it was written")
    return mapped


def files_on_disk(key: str) -> list[Tensor]:
    """Map every file whose key begins with ``key``, as uint8 (size,); none if the folder cannot be used."""
    try:
        paths = sorted(cache_folder.cache_root().glob(f"{key}*{cache_folder.PIXELS}"))
        mapped = [_map(path, path.stat().st_size) for path in paths]
    except (OSError, RuntimeError):  # kept_on_disk warns about it
        return []
    return [tensor for tensor in mapped if tensor is not None]


def _map(path: Path, needed: int) -> Tensor | None:
    """Map a file privately and set its time of use; None if it is missing or incomplete."""
    try:
        if path.stat().st_size != needed:
            return None
        pixels = torch.from_file(str(path), shared=False, size=needed, dtype=torch.uint8)
    except (FileNotFoundError, RuntimeError):  # another process may have deleted it between the two lines
        if path.exists():
            raise
        return None
    cache_folder.use(path, pixels.untyped_storage())
    with suppress(OSError):  # a read-only folder will do
        os.utime(path)
    return pixels


def _fill(path: Path, fill: Callable[[Tensor], object], needed: int) -> None:
    """Compute into a file of another name, sync it, and rename it. The caller holds the lock."""
    unfinished = path.with_suffix(cache_folder.UNFINISHED)
    try:
        fill(_allocated(unfinished, needed))
        _finish(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _allocated(unfinished: Path, needed: int) -> Tensor:
    """Map a new file to write to."""
    with unfinished.open("wb") as file:  # overwrites what a killed process left
        # Space is allocated first: writing to a map on a full disk would end the process without a message.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, needed)
        else:
            for start in range(0, needed, BLOCK_BYTES):
                file.write(bytes(min(BLOCK_BYTES, needed - start)))
    return torch.from_file(str(unfinished), shared=True, size=needed, dtype=torch.uint8)


def _finish(unfinished: Path, path: Path) -> None:
    """Sync the file that was written under another name, and rename it."""
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


@dataclass(frozen=True, eq=False)
class OpenFile:
    """A file of the cache that this process fills bit by bit, while others do without it.

    Attributes:
        pixels: Its content, uint8, to write to.
        unfinished: Its path.
        path: Its path once it is finished.
        lock: Held until then.
        contents: Its description.
    """

    pixels: Tensor
    unfinished: Path
    path: Path
    lock: BaseFileLock
    contents: cache_folder.Contents

    def finish(self) -> None:
        """Keep the file, which is complete, for other runs; without it, training goes on all the same."""
        with suppress(OSError):
            _finish(self.unfinished, self.path)
            cache_folder.use(self.path, self.pixels.untyped_storage())
            cache_folder.describe(self.path, self.contents)
        self.discard()

    def discard(self) -> None:
        """Delete the file unless it was finished."""
        if self.lock.is_locked:
            with suppress(OSError):
                self.unfinished.unlink(missing_ok=True)
            self.lock.release()


def open_to_fill(decoder: Decoder, *, source: str = "") -> OpenFile | None:
    """Open a file of the cache for the images of a split, to fill it bit by bit.

    It has a name and a lock of its own: who wants all images at once does not wait for a whole training.

    Args:
        decoder: From row to uint8 image.
        source: SOURCE of the images, listed by `longtail cache`.

    Returns:
        The file; None if it is there already, or if the disk cannot be used, of which :func:`cached_images` warns.

    Raises:
        filelock.Timeout: Another loader is filling it.
    """
    shape = (len(decoder.split), 3, decoder.square.size, decoder.square.size)
    needed, limit = math.prod(shape), cache_folder.cache_limit()
    try:
        path = cache_folder.cache_root() / f"{image_key(decoder)}{cache_folder.PIXELS}"
        unfinished = path.with_name(f"{path.stem}-filling{cache_folder.UNFINISHED}")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(unfinished.with_suffix(cache_folder.LOCK), timeout=0, thread_local=False)
        if path.exists() or not cache_folder.has_room(limit - needed):
            return None
        lock.acquire()
        cache_folder.make_room(path.parent, limit - needed, keep=unfinished.stem)
        pixels = _allocated(unfinished, needed).view(shape)
    except Timeout:
        raise
    except (OSError, RuntimeError):
        return None
    contents = cache_folder.Contents("pixels", source_name(source), str(shape[-1]), len(decoder.split))
    return OpenFile(pixels, unfinished, path, lock, contents)


def image_key(decoder: Decoder) -> str:
    """Hash the stored images of a split, in order, and their size after decoding.

    An embedded image counts by its bytes, a file by path, size and times of its last change: reading all files takes
    about as long as a cache of their pixels saves. Features, which cost far more, are identified by
    :func:`~longtail.data.image_hashes.image_hashes`.

    Raises:
        UnreadableImageError: A file was deleted since the source was read, or cannot be read.
    """
    digest = hashlib.sha256(f"{scaling(decoder)};".encode())
    for _, stored in decoder.split.scan():
        content, path = stored["bytes"], stored["path"]
        if content is not None:
            digest.update(b"bytes %d;" % len(content) + content)
        elif path is not None:
            status, name = file_status(path), os.fsencode(path)
            # ctime cannot be set, and so reveals a file that was rewritten and given its old mtime.
            times = (status.st_mtime_ns, status.st_ctime_ns)
            digest.update(b"file %d %d %d %d;" % (len(name), status.st_size, *times) + name)
        else:
            digest.update(b"nothing;")
    return digest.hexdigest()


def scaling(decoder: Decoder) -> str:
    """Describe how pixels are computed from a stored image, including the version of Pillow, which matters."""
    square = decoder.square
    fit = "" if square.fit == "crop" else f" {square.fit}"  # as before there was a choice: what is stored stays valid
    return f"{FORMAT} {PIL.__version__} {square.resize} {square.size} {square.interpolation}{fit}"
