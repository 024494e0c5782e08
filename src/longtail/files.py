"""write_atomically: a file that is whole under its name, or not there; what is a stream is written to as it is."""

from __future__ import annotations

import errno
import itertools
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from longtail.errors import LongtailError

if sys.platform != "win32":
    import fcntl

STANDARD_OUTPUT: Final = Path("/dev/stdout")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40  # as Linux follows them
_HOST = re.sub(r"[^\w.]+", "_", platform.node())[:64] or "host"
_UNKNOWN = "0"
_NAME_LENGTH = 40  # characters of the name that are in the temporary one, which may take 255 bytes
_NUMBERS = itertools.count()
_LEFTOVER = re.compile(r"\..+\.longtail-(?P<host>[\w.]+)-(?P<boot>\w+)-(?P<pid>\d{1,9})-\d+\.tmp", re.DOTALL)
_SURELY_OLD = 3600.0  # seconds without a change
_swept: set[Path] = set()  # files whose folder this process has looked through for leftovers


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, and only then give it its name.

    A link stays a link: what it leads to is written. Streams are written to as they are, see :func:`is_stream`.
    Temporary files that killed processes of this machine have left in the folder are removed.

    Args:
        path: The file; missing folders above it are made.
        data: Its content.

    Raises:
        LongtailError: No space, no permission, or another refusal of the system. A file of that name stays as it was.
        BrokenPipeError: Who reads the stream has gone.

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
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file or a stream to write to; the file takes its name at the end, as in :func:`write_atomically`.

    Raises:
        LongtailError: As there, for whatever the system refuses within.

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
                temporary.replace(target)  # while the lock is held: nobody takes it for a leftover
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def named(out: str | os.PathLike[str]) -> Path:
    """Return the path of what a user named to write to; ``-`` is the standard output.

    Example:
        >>> print(named("-"), named("a.csv"))
        /dev/stdout a.csv
    """
    text = os.fspath(out)
    if text == "-":
        return STANDARD_OUTPUT
    return Path(text).absolute() if Path(text) == Path("-") else Path(text)


def is_stream(path: Path) -> bool:
    """Whether a path is a device, a pipe or an open descriptor: written to as it is, never replaced by a file.

    Example:
        >>> is_stream(Path("/dev/stdout")), is_stream(Path("/dev/null")), is_stream(Path("new.csv"))
        (True, True, False)
    """
    if descriptor_of(path) is not None:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113


def descriptor_of(path: Path) -> int | None:
    """Return the number of the open descriptor that a path such as ``/dev/stdout`` leads to, None where it does not.

    Links are followed by their text alone, as ``/proc/self/fd/1`` may itself lead to a regular file: one that the
    shell has opened, and that is continued where it stands.

    Example:
        >>> descriptor_of(Path("/dev/fd/7")), descriptor_of(Path("/dev/null"))
        (7, None)
    """
    text = os.path.abspath(path)  # noqa: PTH100 - no link is to be followed yet
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


def cannot_write(path: Path, error: OSError) -> LongtailError:
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


@contextmanager
def _open_stream(path: Path) -> Iterator[BinaryIO]:
    number = descriptor_of(path)
    if number == 1:
        sys.stdout.flush()  # what was said before comes before
    # A copy of the descriptor goes on where it stands; the path, opened anew, would begin at the start of a file.
    with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as stream:
        yield stream


def _target(path: Path) -> Path:
    """The file that is to be replaced: what a link leads to, there already or not."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():  # a ring of links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not os.access(target, os.W_OK):  # its folder alone would let it be replaced
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _open_temporary(target: Path) -> tuple[BinaryIO, Path]:
    """Open a new file in the same folder, locked for as long as it is open."""
    while True:
        mark = f"longtail-{_HOST}-{_boot()}-{os.getpid()}-{next(_NUMBERS)}"
        temporary = target.with_name(f".{target.name[:_NAME_LENGTH]}.{mark}.tmp")
        try:
            file = temporary.open("xb")
        except FileExistsError:  # of a process that had the same number
            continue
        if sys.platform == "win32":
            return file, temporary
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # taken for a leftover in the moment before it was locked
            if os.path.samestat(temporary.stat(), os.fstat(file.fileno())):
                return file, temporary
        file.close()


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes left in the folder of a file, once for each file that this process writes.

    Removed is only what is surely nobody's: a temporary file that a process under the same running kernel has made
    (containers on one machine have one kernel and many host names), and that none holds locked; or one of this host
    from before it was started anew, not changed for an hour. Files of other machines that share the folder stay. Older
    versions named no host and held no lock: of theirs only those of ``target`` go, once their process is gone and they
    have not changed for an hour.
    """
    if sys.platform == "win32" or target in _swept:
        return
    _swept.add(target)
    older = re.compile(rf"\.{re.escape(target.name)}\.(?P<pid>\d{{1,9}})\.tmp")
    with suppress(OSError):  # a folder may be written to that may not be listed
        for name in [entry.name for entry in os.scandir(target.parent) if entry.name.endswith(".tmp")]:
            path, new, old = target.with_name(name), _LEFTOVER.fullmatch(name), older.fullmatch(name)
            with suppress(OSError):  # another process has removed it, or may remove it and we may not
                if new and not path.is_symlink():
                    same_kernel = new["boot"] == _boot() != _UNKNOWN
                    if same_kernel or (new["host"] == _HOST and _is_old(path)):
                        _remove_unlocked(path, int(new["pid"]), same_host=new["host"] == _HOST)
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
        except OSError:  # no locks here, so that its process has to be gone; another container counts its own
            if not same_host or _is_alive(pid):
                return
        path.unlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _SURELY_OLD


@cache
def _boot() -> str:
    """A word for the kernel as it runs now, the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return _UNKNOWN


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
