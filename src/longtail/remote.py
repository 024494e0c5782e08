"""Remote files: listed, read and written in an object store by their URLs, through fsspec."""

from __future__ import annotations

import fnmatch
import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, total_ordering
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from longtail.errors import LATER, LongtailError, UnreadableImageError, UsageError, first_line

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
TRIES: Final = 4
"""How often something is asked of an object store; they fail now and then."""
_WHOLE = 64 * 2**20  # bytes of a file that is fetched at once
_BLOCK = 2**20  # bytes that are read ahead of a larger one
_WAIT = 0.5  # seconds before the second try, doubled before each further one


def is_url(path: str) -> bool:
    """Whether a path is the URL of something remote, such as ``s3://bucket/photos``.

    Example:
        >>> is_url("s3://bucket/photos"), is_url("photos/a.jpg"), is_url("hf:owner/name")
        (True, False, False)
    """
    return _URL.match(path) is not None


def local_path(path: str) -> str:
    """Return the path of a ``file://`` URL, by RFC 8089, and anything else as it is.

    Raises:
        UsageError: The URL names another machine.

    Example:
        >>> local_path("file:///data/day%20one"), local_path("file://localhost/data"), local_path("day%20one")
        ('/data/day one', '/data', 'day%20one')
        >>> local_path("file://photos/a.jpg")
        Traceback (most recent call last):
        longtail.errors.UsageError: file://photos/a.jpg is a file of the machine 'photos': for a path on this machine
        write three slashes, file:///PATH.
    """
    if not path.lower().startswith("file://"):
        return path
    host, slash, below = path[len("file://") :].partition("/")
    if host.lower() not in {"", "localhost"}:
        raise UsageError(
            f"{path} is a file of the machine {host!r}: for a path on this machine write three slashes, file:///PATH."
        )
    return os.fsdecode(unquote_to_bytes(os.fsencode(slash + below)))


@total_ordering
@dataclass(frozen=True)
class RemotePath:
    """A file or folder of an object store, with the part of :class:`pathlib.Path` that is used here.

    Stores know no folders, no locks and no new names for old files: a file is there when its one upload is complete.

    Attributes:
        url: Its URL, without a slash at the end.

    Example:
        >>> part = RemotePath("memory://bucket/parts") / "part-1.parquet"
        >>> str(part), part.suffix, str(part.with_name("all.csv"))
        ('memory://bucket/parts/part-1.parquet', '.parquet', 'memory://bucket/parts/all.csv')
        >>> with part.writing() as file:
        ...     _ = file.write(b"rows")
        >>> part.is_file(), part.read_bytes(), [path.name for path in part.parent.glob("part-*")]
        (True, b'rows', ['part-1.parquet'])
        >>> part.unlink(); part.exists()
        False
    """

    url: str

    def __str__(self) -> str:
        """Return the URL."""
        return self.url

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def __truediv__(self, name: str) -> RemotePath:
        """Return a file or folder in this folder."""
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in."""
        return RemotePath(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> RemotePath:
        """Return a file next to it."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """Return itself."""
        return self

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        return kind_of(self.url) == "file"

    def is_dir(self) -> bool:
        """Whether there are files below it."""
        return kind_of(self.url) == "folder"

    def exists(self) -> bool:
        """Whether there is anything of this name."""
        return kind_of(self.url) is not None

    def glob(self, pattern: str) -> list[RemotePath]:
        """Return what this folder holds of a pattern."""
        system, path = _system(self.url)
        try:
            names = [PurePosixPath(name).name for name in tried(lambda: system.ls(path, detail=False))]
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _unreachable(self.url, error) from error
        return [self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]

    def open(self) -> BinaryIO:
        """Open it for reading; a small file is fetched whole. A read that fails, or ends early, is tried again.

        Raises:
            LongtailError: There is no such file, or it cannot be fetched.
        """
        system, path = _system(self.url)
        try:
            size = tried(lambda: system.info(path))["size"]
            if size is not None and size > _WHOLE:
                return io.BufferedReader(_Pieces(self.url, size), _BLOCK)
            return io.BytesIO(tried(lambda: _checked(system.cat_file(path), size)))
        except Exception as error:
            raise _unreachable(self.url, error) from error

    def read_bytes(self) -> bytes:
        """Return its content.

        Raises:
            LongtailError: As :meth:`open`.
        """
        with self.open() as file:
            return file.read()

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Open it for writing; at the end it is uploaded at once, and what was there before stays until then.

        Raises:
            LongtailError: The store refuses.
        """
        system, path = _system(self.url)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "file"
            with local.open("wb") as file:
                yield file
            try:
                tried(lambda: system.put_file(str(local), path))
            except Exception as error:
                reason = first_line(error)
                raise LongtailError(
                    f"{self} cannot be written ({reason}): check the URL and the access to it."
                ) from error

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove it.

        Raises:
            LongtailError: The store refuses.
        """
        system, path = _system(self.url)
        try:
            tried(lambda: system.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise
        except Exception as error:
            raise LongtailError(f"{self} cannot be removed ({first_line(error)}): check the access to it.") from error


class _Pieces(io.RawIOBase):
    """A large remote file, fetched piece by piece as it is read."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._position = url, size, 0
        self._system, self._path = _system(url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        start = self._position
        end = max(start, min(self._size, start + len(buffer)))
        if end > start:
            piece = partial(self._system.cat_file, self._path, start=start, end=end)
            try:
                buffer[: end - start] = tried(lambda: _checked(piece(), end - start))
            except Exception as error:
                raise _unreachable(self._url, error) from error
        self._position = end
        return end - start


def _checked(data: bytes, size: int | None) -> bytes:
    """Return what was fetched, if it is all."""
    if size is not None and len(data) != size:
        raise OSError(f"{len(data):,} of {size:,} bytes came")
    return bytes(data)


Place: TypeAlias = Path | RemotePath
"""Where something is written: on this machine, or in an object store."""


Latest: TypeAlias = dict[str, list[tuple[str, bool]]]
"""What the folder of a store that was listed last holds, by its path: names, and whether they are folders."""


def place_of(out: str | os.PathLike[str] | RemotePath) -> Place:
    """Return an output named by the user as a path on this machine, or in an object store.

    Example:
        >>> place_of("file:///data/answers.csv"), place_of("s3://bucket/answers/")
        (PosixPath('/data/answers.csv'), RemotePath(url='s3://bucket/answers'))
    """
    if isinstance(out, RemotePath):
        return out
    text = local_path(os.fspath(out))
    return RemotePath(text.rstrip("/")) if is_url(text) else Path(text)


def kind_of(url: str) -> Literal["file", "folder"] | None:
    """Return whether there is a file or a folder of a URL.

    Raises:
        LongtailError: No such store, it cannot be reached, or its package is not installed.
    """
    system, path = _system(url)
    try:
        return "folder" if tried(lambda: system.info(path))["type"] == "directory" else "file"
    except FileNotFoundError:
        return None
    except Exception as error:
        raise _unreachable(url, error) from error


def walk(
    base: str,
    keep: Callable[[tuple[str, ...]], bool],
    enter: Callable[[tuple[str, ...]], bool],
    latest: Latest,
) -> Iterator[tuple[str, str]]:
    """Yield the URLs below a folder of a store, in the order of names, and with that of one that cannot be listed why.

    The names of one folder are held at a time.

    Args:
        base: URL of the folder, with or without a slash at its end.
        keep: Whether to yield a file, by the names of its path below the base.
        enter: Whether to enter a folder, by the same.
        latest: The folder that was listed last, at first empty: given to the next walk, it saves listing a bucket
            without folders again.
    """
    system, root = _system(base)
    start = base if base.endswith("/") else f"{base}/"

    def below(folder: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        url = start + "/".join(names)
        entries = latest.get(folder)
        if entries is None:
            try:
                listing = tried(lambda: system.ls(folder, detail=True))
            except Exception as error:
                yield url, first_line(error)
                return
            entries = sorted((str(entry["name"]), entry["type"] == "directory") for entry in listing)
            latest.clear()
            latest[folder] = entries
        for path, is_folder in entries:
            deeper = (*names, PurePosixPath(path).name)
            if is_folder:
                if enter(deeper):
                    yield from below(path, deeper)
            elif path.rstrip("/") != folder.rstrip("/") and keep(deeper):  # some stores list the folder too
                yield start + "/".join(deeper), ""

    yield from below(root, ())


def read_url(url: str) -> bytes:
    """Return the bytes of a remote file; a read that fails is tried again.

    Raises:
        UnreadableImageError: There is no such file, or the store fails again and again.

    Example:
        >>> import fsspec
        >>> fsspec.filesystem("memory").pipe("/a.png", b"bytes")
        >>> read_url("memory://a.png")
        b'bytes'
    """
    try:
        system, path = _system(url)
        data = tried(lambda: system.cat_file(path))
    except FileNotFoundError as error:
        raise UnreadableImageError(
            f"{url!r} does not exist: restore the file, or take it out of the source."
        ) from error
    except Exception as error:
        raise UnreadableImageError(f"{url!r} cannot be fetched ({first_line(error)}): {LATER}") from error
    return bytes(data)


def tried(
    action: Callable[[], Any], at_once: tuple[type[Exception], ...] = (FileNotFoundError, PermissionError)
) -> Any:
    """Ask something of a store, again if it fails, and return the answer.

    Args:
        action: Asks.
        at_once: Errors that are raised the first time: what is missing or forbidden stays so.

    Example:
        >>> answers = iter([OSError("503 Slow Down"), 7])
        >>> def ask():
        ...     if isinstance(answer := next(answers), Exception):
        ...         raise answer
        ...     return answer
        >>> tried(ask)
        7
    """
    for number in range(TRIES):
        try:
            return action()
        except at_once:
            raise
        except Exception:
            if number == TRIES - 1:
                raise
            wait_before_retry(number)
    raise AssertionError


def wait_before_retry(number: int) -> None:
    """Wait after a try that failed, the longer the more came before it.

    Args:
        number: Number of tries before that one.
    """
    time.sleep(_WAIT * 2**number)


def _system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url, use_listings_cache=False)  # memory stays small
    except (ImportError, ValueError, OSError) as error:
        raise _unreachable(url, error) from error
    return system, str(path)


def _unreachable(url: str, error: Exception) -> LongtailError:
    return LongtailError(f"{url} cannot be reached ({first_line(error)}): check the URL and the access to it.")
