"""Remote images: listed and read from an object store by its URL, through fsspec."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from longtail.errors import LongtailError, UnreadableImageError, UsageError, first_line

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TRIES = 4  # of a read; object stores fail now and then
_WAIT = 0.5  # seconds before the second try, doubled before each further one


def is_url(path: str) -> bool:
    """Whether a path is the URL of something remote, such as ``s3://bucket/photos``.

    Example:
        >>> is_url("s3://bucket/photos"), is_url("photos/a.jpg"), is_url("hf:owner/name")
        (True, False, False)
    """
    return _URL.match(path) is not None


def local_path(path: str) -> str:
    """Return the path of a ``file://`` URL, and anything else as it is.

    Example:
        >>> local_path("file:///data/photos"), local_path("photos")
        ('/data/photos', 'photos')
    """
    return path[len("file://") :] if path.startswith("file://") else path


def local_output(out: str | os.PathLike[str]) -> str:
    """Return an output as a local path.

    Raises:
        UsageError: It is the URL of something remote.

    Example:
        >>> local_output("file:///data/answers.csv")
        '/data/answers.csv'
        >>> local_output("s3://bucket/answers.csv")
        Traceback (most recent call last):
        longtail.errors.UsageError: s3://bucket/answers.csv is remote: write to a local path, then copy it there.
    """
    path = local_path(os.fspath(out))
    if is_url(path):
        raise UsageError(f"{path} is remote: write to a local path, then copy it there.")
    return path


def kind_of(url: str) -> Literal["file", "folder"] | None:
    """Return whether there is a file or a folder of a URL.

    Raises:
        LongtailError: No such store, it cannot be reached, or its package is not installed.
    """
    system, path = _system(url)
    try:
        if system.isfile(path):
            return "file"
        return "folder" if system.isdir(path) else None
    except Exception as error:
        raise _unreachable(url, error) from error


def walk(
    base: str, keep: Callable[[tuple[str, ...]], bool], enter: Callable[[tuple[str, ...]], bool]
) -> Iterator[tuple[str, str]]:
    """Yield the URLs below a folder of a store, in the order of names, and with a folder that cannot be listed why.

    The names of one folder are held at a time.

    Args:
        base: URL of the folder, with or without a slash at its end.
        keep: Whether to yield a file, by the names of its path below the base.
        enter: Whether to enter a folder, by the same.
    """
    system, root = _system(base)
    start = base if base.endswith("/") else f"{base}/"

    def below(folder: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        url = start + "/".join(names)
        try:
            entries = _tried(lambda: system.ls(folder, detail=True))
        except Exception as error:
            yield url, f"the folder {url!r} cannot be listed ({first_line(error)}): its images are left out."
            return
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            name = PurePosixPath(entry["name"]).name
            deeper = (*names, name)
            if entry["type"] == "directory":
                if enter(deeper):
                    yield from below(entry["name"], deeper)
            elif entry["name"].rstrip("/") != folder.rstrip("/") and keep(deeper):  # some stores list the folder too
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
        data = _tried(lambda: system.cat_file(path))
    except FileNotFoundError as error:
        raise UnreadableImageError(
            f"{url!r} does not exist: restore the file, or take it out of the source."
        ) from error
    except Exception as error:
        raise UnreadableImageError(f"{url!r} cannot be fetched ({first_line(error)}): try again later.") from error
    return bytes(data)


def _tried(action: Callable[[], Any]) -> Any:
    for number in range(_TRIES):
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:
            if number == _TRIES - 1:
                raise
            time.sleep(_WAIT * 2**number)
    raise AssertionError


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
