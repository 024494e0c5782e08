"""Files: written completely or not at all, streams directly."""

from __future__ import annotations

import errno
import itertools
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from longtail.errors import LongtailError
from longtail.remote import Place, RemotePath, place_of

if TYPE_CHECKING:
    import pyarrow as pa

if sys.platform != "win32":
    import fcntl

STANDARD_OUTPUT: Final = Path("/dev/stdout")
REPLACED: Final = " (replaces the earlier file)"
"""Follows the name of a file that took the place of another one."""
DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of the errors of a disk, or a user's part of it, that is full."""
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40  # as Linux follows them
_HOST = re.sub(r"[^\w.]+", "_", platform.node())[:64] or "host"
_UNKNOWN = "0"
_NAME_LENGTH = 40  # characters of the name that are in the temporary one, which may take 255 bytes
_NUMBERS = itertools.count()
_LEFTOVER = re.compile(r"\..+\.longtail-(?P<host>[\w.]+)-(?P<boot>\w+)-(?P<pid>\d{1,9})-\d+\.tmp", re.DOTALL)
_SURELY_OLD = 3600.0  # seconds without a change
_swept: set[Path] = set()  # files whose folder this process has searched for leftovers


def write_atomically(path: Place, data: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, and only then give it its name.

    A link stays a link: its target is written. Streams are written to directly, see :func:`is_stream`. Temporary files
    that killed processes of this machine left in the folder are removed.

    Args:
        path: The file; missing folders above it are made.
        data: Its content.

    Raises:
        LongtailError: No space, no permission, or another refusal of the system. A file of that name stays as it was.
        BrokenPipeError: The reader of the stream has closed it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", b"whole")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Place) -> Iterator[BinaryIO]:
    """Open a file or a stream for writing; the file gets its name at the end, as in :func:`write_atomically`.

    A remote file is uploaded at the end.

    Raises:
        LongtailError: The system refuses to write, as there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with writing(path) as file:
        ...     _ = file.write(b"whole")
        ...     path.exists()
        False
        >>> path.read_bytes()
        b'whole'
    """
    if isinstance(path, RemotePath):
        with path.writing() as file:
            yield file
        return
    try:
        if is_stream(path):
            with _open_stream(path) as stream:
                yield stream
            return
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        file, temporary = _open_temporary(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if target.exists():
                    shutil.copymode(target, temporary)
                if sys.platform == "win32":
                    file.close()
                temporary.replace(target)  # while locked, so that no process removes it as a leftover
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as JSON.

    Raises:
        LongtailError: The system refuses to write.
    """
    write_atomically(path, (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as YAML, in their own order.

    Raises:
        LongtailError: The system refuses to write.
    """
    import yaml

    write_atomically(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet.

    Raises:
        LongtailError: The system refuses to write.
    """
    import pyarrow.parquet as pq

    with writing(path) as file:
        pq.write_table(table, file, compression="zstd")


def remove(path: Place, remedy: str) -> None:
    """Remove a file, or a folder with all that it holds, if it is there.

    Args:
        path: The file or folder.
        remedy: Remedy for an error, without a period.

    Raises:
        LongtailError: The system refuses.
    """
    if isinstance(path, RemotePath):
        path.unlink(missing_ok=True)
        return
    try:
        with suppress(FileNotFoundError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise LongtailError(f"{path} cannot be removed ({error.strerror or error}): {remedy}.") from error


def output_place(out: str | os.PathLike[str] | RemotePath) -> Place:
    """Return an output named by the user, which may be the URL of a remote one.

    Example:
        >>> print(output_place("-"), output_place("file:///a.csv"), output_place("s3://bucket/a.csv"))
        /dev/stdout /a.csv s3://bucket/a.csv
    """
    place = place_of(out)
    return output_path(place) if isinstance(place, Path) else place


def output_path(out: str | os.PathLike[str]) -> Path:
    """Return the path of an output named by the user; ``-`` is the standard output.

    Example:
        >>> print(output_path("-"), output_path("a.csv"))
        /dev/stdout a.csv
    """
    text = os.fspath(out)
    if text == "-":
        return STANDARD_OUTPUT
    return Path(text).absolute() if Path(text) == Path("-") else Path(text)


def is_stream(path: Place) -> bool:
    """Whether a path is a device, a pipe or an open descriptor: written to directly, never replaced by a file.

    Example:
        >>> is_stream(Path("/dev/stdout")), is_stream(Path("/dev/null")), is_stream(Path("new.csv"))
        (True, True, False)
    """
    if isinstance(path, RemotePath):
        return False
    if descriptor_of(path) is not None:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113


def descriptor_of(path: Path) -> int | None:
    """Return the number of the open descriptor that a path such as ``/dev/stdout`` leads to, or None.

    Links are resolved by their text only, as ``/proc/self/fd/1`` may itself lead to a regular file, which the shell has
    opened and which is continued at its current position.

    Example:
        >>> descriptor_of(Path("/dev/fd/7")), descriptor_of(Path("/dev/null"))
        (7, None)
    """
    text = os.path.abspath(path)  # noqa: PTH100 - without following links
    for _ in range(_MOST_LINKS):
        if text in _STANDARD:
            return _STANDARD[text]
        number = re.fullmatch(rf"/(?:dev|proc/(?:self|thread-self|{os.getpid()}))/fd/(\d{{1,9}})", text)
        if number:
            return int(number.group(1))
        try:
            text = os.path.normpath(os.path.join(os.path.dirname(text), os.readlink(text)))  # noqa: PTH115, PTH118, PTH120
        except OSError:
            return None
    return None


def cannot_write(path: Place, error: OSError) -> LongtailError:
    """Return the error that tells a user why a file was not written and what to do.

    Example:
        >>> print(cannot_write(Path("a.csv"), OSError(28, "No space left on device")))
        a.csv cannot be written (No space left on device): free some space or name another folder.
    """
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            remedy = "allow writing to the file and its folder, or name another place"
        case errno.EISDIR:
            remedy = "name a file in that folder"
        case errno.ENOTDIR | errno.EEXIST:
            remedy = "what should be a folder on the way there is a file; name another place"
        case errno.ENAMETOOLONG:
            remedy = "choose a shorter name"
        case errno.ELOOP | errno.ENOENT | errno.ENXIO | errno.EBADF:
            remedy = "name another place"
        case _:
            remedy = "free some space or name another folder"
    return LongtailError(f"{path} cannot be written ({error.strerror or error}): {remedy}.")


def system_errors(error: BaseException | None) -> list[OSError]:
    """Return the errors of the system among an error and those that it was raised from.

    Example:
        >>> error = RuntimeError("the table cannot be made")
        >>> error.__cause__ = OSError(28, "No space left on device")
        >>> system_errors(error)
        [OSError(28, 'No space left on device')]
    """
    errors = []
    while error is not None:
        if isinstance(error, OSError):
            errors.append(error)
        error = error.__cause__
    return errors


def refused_cache(error: BaseException) -> str:
    """Return why the cache of the Hugging Face hub cannot be written, with the remedy; empty for any other error.

    What says so is raised without a cause, as commands take a full disk among the causes for the one of their output.

    Example:
        >>> refused_cache(OSError(13, "Permission denied", "hub"))
        "the hub's cache cannot be written (Permission denied): set HF_HOME to a folder that can be"
        >>> refused_cache(OSError("no route to host"))
        ''
    """
    for each in system_errors(error):
        if each.errno in DISK_FULL:
            remedy = "free some space, or set HF_HOME to a folder on another disk"
        elif each.errno in _FORBIDDEN and each.filename:  # a firewall's error names no file
            remedy = "set HF_HOME to a folder that can be"
        else:
            continue
        return f"the hub's cache cannot be written ({each.strerror or each}): {remedy}"
    return ""


@contextmanager
def _open_stream(path: Path) -> Iterator[BinaryIO]:
    number = descriptor_of(path)
    if number == 1:
        sys.stdout.flush()  # earlier output comes first
    # A duplicate of the descriptor continues at its position; opening the path again would start at the beginning.
    with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as stream:
        yield stream


def _target(path: Path) -> Path:
    """The file to replace: the target of a link, whether it exists or not."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():  # a ring of links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not os.access(target, os.W_OK):  # a writable folder would allow to replace it
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _open_temporary(target: Path) -> tuple[BinaryIO, Path]:
    """Open a new file in the same folder, locked for as long as it is open."""
    while True:
        mark = f"longtail-{_HOST}-{_boot()}-{os.getpid()}-{next(_NUMBERS)}"
        temporary = target.with_name(f".{target.name[:_NAME_LENGTH]}.{mark}.tmp")
        try:
            file = temporary.open("xb")
        except FileExistsError:  # from an earlier process with the same number
            continue
        if sys.platform == "win32":
            return file, temporary
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # removed as a leftover just before it was locked
            if os.path.samestat(temporary.stat(), os.fstat(file.fileno())):
                return file, temporary
        file.close()


def remove_leftovers(target: Path) -> None:
    """Remove temporary files of killed processes in the folder of a file, once per file that this process writes.

    Only files that are certainly abandoned are removed: those that a process under the same running kernel made
    (containers on one machine share a kernel and have different host names) and that no process holds locked; or those
    of this host from before its last boot, unchanged for an hour. Files of other machines that share the folder stay.
    Older versions recorded no host and held no lock: only their files for ``target`` are removed, once their process
    has ended and they have not changed for an hour.
    """
    if sys.platform == "win32" or target in _swept:
        return
    _swept.add(target)
    older = re.compile(rf"\.{re.escape(target.name)}\.(?P<pid>\d{{1,9}})\.tmp")
    with suppress(OSError):  # a writable folder may not be listable
        for name in [entry.name for entry in os.scandir(target.parent) if entry.name.endswith(".tmp")]:
            path, new, old = target.with_name(name), _LEFTOVER.fullmatch(name), older.fullmatch(name)
            with suppress(OSError):  # removed by another process, or not ours to remove
                if new and not path.is_symlink():
                    same_kernel, same_host = new["boot"] == _boot() != _UNKNOWN, new["host"] == _HOST
                    if same_kernel or (same_host and _is_old(path)):
                        _remove_unlocked(path, int(new["pid"]), same_host=same_host)
                elif old and not _is_alive(int(old["pid"])) and _is_old(path):
                    path.unlink()


def _remove_unlocked(path: Path, pid: int, *, same_host: bool) -> None:
    if sys.platform == "win32":
        return
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # no locks here: its process must have ended, which only the same host can tell
            if not same_host or _is_alive(pid):
                return
        path.unlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _SURELY_OLD


@cache
def _boot() -> str:
    """An identifier of the running kernel, the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return _UNKNOWN


def _is_alive(pid: int) -> bool:
    from psutil import pid_exists

    return pid_exists(pid)
