"""Folder of parts: rows of a job are added to it, become finished parts now and then, and are found again."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtail.errors import LongtailError
from longtail.files import cannot_write, remove_leftovers
from longtail.predict.parts import Job, Part, identities, list_parts, read_part, write_part
from longtail.remote import Place

if sys.platform != "win32":
    import fcntl

_LEAST_SECONDS = 1.0
_SHARE_LOST = 0.02  # of the work that a kill may lose
_MOST_BYTES = 8 * 2**20  # of rows that wait for their part to be finished
_LOCK = ".lock"  # name of the file that the process which writes holds locked
_NAME = re.compile(r"part-[0-9a-f]+-[0-9a-f]+\.parquet")  # of the parts of this folder and those of a cluster
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # a file system without them


class PartFolder:
    """Finished parts of a job in a folder, to which rows are added; one process at a time writes them.

    A lock sees to that. Object stores, and a few file systems, have none: there two processes at once do work twice,
    but overwrite nothing, as the names of parts are those of one process.

    Rows wait in memory until a part is worth its file: after a second at first, later after 2 % of the time since the
    start, or when 8 MiB wait. So a kill loses little, and weeks of work are a few hundred files. Leaving the context,
    also by Ctrl-C or an error, finishes the last part.

    Args:
        folder: The folder, made if it is missing.
        job: The job.
        restart: Discard the parts that are there instead of continuing them.
        earlier: A finished part somewhere else that belongs to them.

    Raises:
        LongtailError: The parts belong to another job, another command writes there, or the system refuses to write.

    Example:
        >>> import tempfile
        >>> path, job = Path(tempfile.mkdtemp()), Job(("/photos",), "5a", {}, ("path",))
        >>> row = {"path": ["a.png"], "problem": [None], "position": [0], "key": [7], "path_bytes": [None]}
        >>> with PartFolder(path, job) as folder:
        ...     folder.add(pa.table(row, job.schema))
        >>> with PartFolder(path, job) as folder:
        ...     folder.count, folder.has(7)
        (1, True)
    """

    def __init__(self, folder: Place, job: Job, *, restart: bool = False, earlier: Part | None = None) -> None:
        self.folder, self.job = folder, job
        self._mark = secrets.token_hex(4)
        try:
            self._lock = _lock(folder / _LOCK) if isinstance(folder, Path) else None
        except OSError as error:
            raise cannot_write(folder, error) from error
        try:
            if isinstance(folder, Path):
                remove_leftovers(folder / "part-1.parquet")
            if restart:
                self._discard(path for path in folder.glob("part-*.parquet") if _is_part(path))
            self.parts = [] if restart else list_parts(folder)
            self._refuse_others()
            self.parts += [] if earlier is None else [earlier]
            self.earlier = frozenset(part.path for part in self.parts)
            self._done = identities(self.parts, done=True)
            failed = identities(self.parts) if any(part.later for part in self.parts) else self._done
            self._failed = np.setdiff1d(failed, self._done)
        except BaseException:
            self._unlock()
            raise
        self.count = len(np.unique(self._done))
        self._waiting: list[pa.Table] = []
        self._bytes = 0  # of what waits
        self._begun = self._finished = time.monotonic()

    def _refuse_others(self) -> None:
        for part in self.parts:
            if words := self.job.differences(part.job):
                raise LongtailError(
                    f"{self.folder} holds the unfinished table of another command (other {' and '.join(words)}): "
                    "repeat that command, name another --out, or add --restart to throw it away."
                )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the last part and let others write."""
        try:
            if kind is None:
                self.flush()
            else:
                with suppress(LongtailError):  # the first error is told
                    self.flush()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None and isinstance(self.folder, Path):
            with suppress(OSError):
                (self.folder / _LOCK).unlink()
            os.close(self._lock)
            self._lock = None

    def has(self, identity: int) -> bool:
        """Whether an earlier command is done with an image, by its key, or by its position in a table.

        Images that a store did not give, and folders that could not be listed, are not done.
        """
        return _holds(self._done, identity)

    def failed(self, identity: int) -> bool:
        """Whether an earlier command tried an image and did not get it, by the same."""
        return _holds(self._failed, identity)

    def add(self, table: pa.Table) -> None:
        """Add rows; now and then they become a finished part.

        Raises:
            LongtailError: The system refuses to write.
        """
        self._waiting.append(table)
        self._bytes += table.nbytes
        now = time.monotonic()
        patience = max(_LEAST_SECONDS, _SHARE_LOST * (now - self._begun))
        if now - self._finished >= patience or self._bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Finish a part of the rows that wait.

        Raises:
            LongtailError: The system refuses to write.
        """
        if not self._waiting:
            return
        names = (part.path.stem.rpartition("-")[2] for part in self.parts if part.path.parent == self.folder)
        last = max((int(name) for name in names if name.isdecimal()), default=0)
        path = self.folder / f"part-{self._mark}-{last + 1:06}.parquet"
        write_part(path, self.job, [pa.concat_tables(self._waiting)])
        self._waiting, self._bytes = [], 0
        part = read_part(path)
        self.parts += [] if part is None else [part]
        self._finished = time.monotonic()

    def remove(self) -> None:
        """Remove the parts, and the folder if nothing else is in it; others may write from then on.

        Raises:
            LongtailError: The system refuses.
        """
        self._discard(part.path for part in self.parts if part.path.parent == self.folder)
        self.parts = []
        self._unlock()
        if isinstance(self.folder, Path):
            with suppress(OSError):
                self.folder.rmdir()

    def _discard(self, paths: Iterable[Place]) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error


def _holds(identities: npt.NDArray[np.uint64], identity: int) -> bool:
    """Whether a number is one of sorted numbers."""
    value = np.uint64(identity)
    index = int(np.searchsorted(identities, value))
    return index < len(identities) and bool(identities[index] == value)


def _is_part(path: Place) -> bool:
    """Whether a file is a part, or was one by its name before it was damaged."""
    try:
        return read_part(path) is not None
    except LongtailError:
        return _NAME.fullmatch(path.name) is not None


def _lock(path: Path) -> int | None:
    """Make a file and its folder, and lock it; None on a system that cannot.

    It is open for writing: NFS locks no other.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":
            return None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its folder was removed by a command that has just finished
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LongtailError(
                f"another command is writing {path.parent}: wait for it, or name another --out."
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)
