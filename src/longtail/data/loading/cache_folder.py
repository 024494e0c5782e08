"""The cache folder: its location, its entries by source, and their removal."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from filelock import FileLock, Timeout

from longtail.errors import LongtailError
from longtail.files import DISK_FULL, system_errors
from longtail.validation import read_json

DEFAULT_GIGABYTES = 20.0
PIXELS, INDEX = ".pixels", ".index"  # files: of numbers, of the counts of a stream
TABLE, NETWORK = FOLDERS = ".table", ".network"  # folders: of Arrow files, of a converted network
UNFINISHED, LOCK, _DESCRIPTION = ".unfinished", ".lock", ".json"

Table = TypeVar("Table", bound=Sized)
Entry = TypeVar("Entry")
Kind = Literal["pixels", "features", "network", "table", "index", "unknown"]
_MISSING = {None, errno.ENOENT, errno.EINVAL}  # of a folder that does not hold what it should
_in_use: Counter[Path] = Counter()  # how often this process has mapped an entry


@dataclass(frozen=True)
class Contents:
    """The contents of a cache file, as stored in the JSON file next to it.

    Attributes:
        kind: Decoded images, features of a network, a converted network, the rows of a table, or the counts of a
            stream.
        source: SOURCE of the images, its absolute path if it has one; empty if unknown.
        detail: Side in pixels, or the name of the network with its side.
        images: Number of images.
        view: Number of the augmented view that features are of.
    """

    kind: Kind
    source: str
    detail: str
    images: int
    view: int = 0

    @property
    def words(self) -> str:
        """A short description to print.

        Example:
            >>> Contents("pixels", "photos", "224", 10).words
            'pixels at 224 px'
        """
        words = {
            "pixels": f"pixels at {self.detail} px",
            "features": f"features of {self.detail}",
            "network": f"network {self.detail} for OpenVINO",
            "table": "rows of a Parquet table",
            "index": "counts of a stream",
        }
        return words.get(self.kind, "unknown")


UNKNOWN = Contents("unknown", "", "", 0)


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache, or the folder of a table.

    Attributes:
        path: Its path.
        size: Bytes.
        used: Time of its last use, in seconds since 1970.
        contents: Its contents; :data:`UNKNOWN` if it has no description.
    """

    path: Path
    size: int
    used: float
    contents: Contents


@dataclass(frozen=True)
class SourceUse:
    """Entries of the cache of one kind for one source.

    Attributes:
        source: SOURCE of the images.
        kind: As in :class:`Contents`.
        what: The same as text to print.
        images: Number of images; several views count once.
        files: Number of entries.
        bytes: Their size.
        last_used: Time of the last use, in seconds since 1970.
    """

    source: str
    kind: Kind
    what: str
    images: int
    files: int
    bytes: int
    last_used: float

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, with the time in UTC."""
        return asdict(self) | {"last_used": _utc(self.last_used)}


def cache_root() -> Path:
    """Return the cache folder: ``$LONGTAIL_CACHE``, or ``longtail`` in the user's cache folder.

    Example:
        >>> cache_root().is_absolute()
        True
    """
    chosen = os.environ.get("LONGTAIL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "longtail"


def cache_limit() -> float:
    """Return the size limit of the cache in bytes, from ``$LONGTAIL_CACHE_GB``; infinity for none.

    Raises:
        LongtailError: The variable is not a number of at least 0.

    Example:
        >>> cache_limit() > 0
        True
    """
    text = os.environ.get("LONGTAIL_CACHE_GB") or str(DEFAULT_GIGABYTES)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:  # nor is NaN
        raise LongtailError(f"LONGTAIL_CACHE_GB takes a number of gigabytes, such as 50 or inf; it is {text!r}.")
    return limit * 1e9


def describe(path: Path, contents: Contents) -> None:
    """Write the description of an entry. An entry works without one, so a failure is ignored."""
    values = asdict(contents) | {"created": _utc(datetime.now(UTC).timestamp())}
    with suppress(OSError):
        text = json.dumps(values, ensure_ascii=False)
        path.with_suffix(_DESCRIPTION).write_text(text, encoding="utf-8", errors="replace")


def cache_sizes() -> dict[Path, int]:
    """Return the size in bytes of each cache entry, unfinished ones included, without reading descriptions."""
    try:
        folder = cache_root()
    except RuntimeError:  # no home directory
        return {}
    sizes = {}
    for path in (path for ending in (PIXELS, INDEX, UNFINISHED, *FOLDERS) for path in folder.glob(f"*{ending}")):
        with suppress(OSError):  # deleted by another process meanwhile
            files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            sizes[path] = sum(file.stat().st_size for file in files)
    return sizes


def cache_entries() -> list[CacheEntry]:
    """List all cache entries, unfinished ones included, most recently used first."""
    entries = []
    for path, size in cache_sizes().items():
        with suppress(OSError):  # deleted by another process meanwhile
            entries.append(CacheEntry(path, size, path.stat().st_mtime, _contents(path)))
    return sorted(entries, key=lambda entry: -entry.used)


def _contents(path: Path) -> Contents:
    from pydantic import TypeAdapter

    try:
        return read_json(path.with_suffix(_DESCRIPTION), TypeAdapter(Contents), "clear the cache")
    except LongtailError:  # no description, or a damaged one
        return UNKNOWN


def keep_table(source: str, files: Sequence[Path], read: Callable[[Path | None], Table]) -> Table:
    """Keep the rows of table files in the cache as memory-mapped Arrow files.

    The source cannot be read without them, so they are kept even if they exceed the limit of the cache, and leave its
    room to what is computed of them: they count towards its size only for processes that do not use them.

    Args:
        source: SOURCE of the table, its absolute path if it has one.
        files: Its files, identified by path, size and modification time.
        read: Reads the table into a folder of the cache, or elsewhere if given None because the cache is unusable.
    """
    states = [(file.absolute(), file.stat()) for file in files]
    digest = hashlib.sha256(repr([(str(file), state.st_size, state.st_mtime_ns) for file, state in states]).encode())
    size = sum(state.st_size for _, state in states)
    return keep_folder(
        f"{digest.hexdigest()}{TABLE}", size, read, lambda table: Contents("table", source, "", len(table))
    )


def keep_rows(
    words: Sequence[object], source: str, read: Callable[[Path | None], Entry], count: Callable[[Entry], int]
) -> Entry:
    """Keep what is computed of the rows of a source, small next to its images, in the cache.

    Args:
        words: The values that decide what it is, as JSON has them: the name of its folder is a hash of them.
        source: SOURCE of the rows, its absolute path if it has one.
        read: As for :func:`keep_folder`.
        count: Tells how many rows were read.

    Example:
        >>> keep_rows(["labels", "photos"], "photos", lambda folder: [7, 7], len)
        [7, 7]
    """
    name = f"{hashlib.sha256(json.dumps(words).encode()).hexdigest()}{TABLE}"
    return keep_folder(name, 0, read, lambda entry: Contents("table", source, "", count(entry)))


def keep_folder(
    name: str, size: int, read: Callable[[Path | None], Entry], contents: Callable[[Entry], Contents]
) -> Entry:
    """Keep a folder of the cache, and return what is read from it.

    Args:
        name: Name of the folder: a hash of what it follows from, and one of :data:`FOLDERS`.
        size: Bytes it takes about, for which older entries are deleted.
        read: Reads the folder, and fills it first where it does not exist; or does without one if given None, because
            the cache cannot be used. One process calls it at a time.
        contents: Description of what was read.

    Raises:
        LongtailError: The disk is full, or ``$LONGTAIL_CACHE_GB`` is not a number.
        BaseException: Any other error of ``read``. The folder is deleted if this call has begun it, or if the error may
            be one of what it holds.

    Example:
        >>> keep_folder("example.network", 0, lambda folder: 7, lambda _: UNKNOWN)
        7
    """
    with locked_entry(name) as path:
        if path is None:
            return read(None)
        limit, is_stored = cache_limit(), path.exists()
        if size <= limit and not is_stored:
            make_room(path.parent, limit - size, keep=path.stem)
        try:
            entry = read(path)
        except BaseException as error:
            numbers = {each.errno for each in system_errors(error)} - _MISSING
            if not is_stored or (isinstance(error, Exception) and not isinstance(error, MemoryError) and not numbers):
                shutil.rmtree(path, ignore_errors=True)  # the next call starts over
            if numbers & DISK_FULL:
                raise LongtailError(
                    f"the disk of the cache {path.parent} is full: free some space, or set LONGTAIL_CACHE to a folder "
                    "on another disk."
                ) from None  # with its cause, it would be taken for the disk of the run
            raise
        if path.exists():
            _in_use[path] += 1  # for good: its rows may be mapped by tables that were made of it
            describe(path, contents(entry))
            with suppress(OSError):  # another user's
                os.utime(path)
        return entry


def use(path: Path, mapped: object) -> None:
    """Keep an entry from :func:`make_room` of this process for as long as what was mapped from it is alive.

    Args:
        path: The entry.
        mapped: What holds the map, and lives as long.
    """
    _in_use[path] += 1
    weakref.finalize(mapped, _in_use.subtract, [path])


@contextmanager
def locked_entry(name: str) -> Iterator[Path | None]:
    """Give an entry of the cache to one process at a time.

    Args:
        name: Name of the entry.

    Yields:
        Its path, whether it exists or not; None where the cache cannot be used.

    Example:
        >>> with locked_entry("example.network") as path:
        ...     path.name
        'example.network'
    """
    lock = None
    with suppress(OSError, RuntimeError):  # no home directory
        folder = cache_root()
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock((folder / name).with_suffix(LOCK))
        lock.acquire()
    if lock is None or not lock.is_locked:
        yield None
        return
    try:
        yield folder / name
    finally:
        lock.release()


def by_source(entries: Sequence[CacheEntry]) -> list[SourceUse]:
    """Group entries by source and kind, most recently used first.

    Example:
        >>> contents = [Contents("features", "photos", "resnet20", 10, view) for view in (0, 1)]
        >>> entries = [CacheEntry(Path("a"), 5, 1.0, each) for each in contents]
        >>> [(use.source, use.what, use.images, use.bytes) for use in by_source(entries)]
        [('photos', 'features of resnet20', 10, 10)]
    """
    groups: dict[tuple[str, Kind, str], list[CacheEntry]] = defaultdict(list)
    for entry in entries:
        groups[entry.contents.source, entry.contents.kind, entry.contents.words].append(entry)
    uses = []
    for (source, kind, what), group in groups.items():
        images: dict[int, int] = defaultdict(int)
        for entry in group:
            images[entry.contents.view] += entry.contents.images
        size, used = sum(entry.size for entry in group), max(entry.used for entry in group)
        uses.append(SourceUse(source, kind, what, max(images.values()), len(group), size, used))
    return sorted(uses, key=lambda use: -use.last_used)


def has_room(budget: float) -> bool:
    """Whether the files that this process has mapped fit the budget, in bytes; folders in use do not count.

    Example:
        >>> has_room(math.inf), has_room(-1)
        (True, False)
    """
    mapped = (size for path, size in cache_sizes().items() if _in_use[path] and path.suffix not in FOLDERS)
    return sum(mapped) <= budget


def make_room(folder: Path, budget: float, *, keep: str) -> None:
    """Delete remains of killed processes, then the least recently used entries, until the folder fits the budget.

    What this process has mapped stays, or it would be made anew at every start, and so do the counts of streams, which
    are small. Its folders do not count, as a source cannot be read without its table.

    Args:
        folder: The cache.
        budget: Bytes.
        keep: Stem of an entry that stays.
    """
    for leftover in folder.glob(f"*{UNFINISHED}"):
        if leftover.stem != keep:
            remove_entry(leftover)
    entries = [entry for entry in cache_entries() if not (_in_use[entry.path] and entry.path.suffix in FOLDERS)]
    total = sum(entry.size for entry in entries)
    for entry in reversed(entries):
        if total <= budget:
            return
        stays = entry.path.stem == keep or entry.path.suffix in {UNFINISHED, INDEX} or _in_use[entry.path]
        if not stays and remove_entry(entry.path):
            total -= entry.size


def remove_entry(path: Path) -> bool:
    """Delete an entry unless a process is writing it or about to map it, or it is another user's.

    A map that exists already outlives its file.

    Returns:
        Whether it was deleted.
    """
    try:
        with FileLock(path.with_suffix(LOCK), timeout=0):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            if path.exists():
                return False
            path.with_suffix(_DESCRIPTION).unlink(missing_ok=True)
    except (Timeout, OSError):
        return False
    return True


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
