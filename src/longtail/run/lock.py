"""The lock that whoever trains a run holds, so that no two commands write into one folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from longtail.errors import LongtailError


def lock_file(run: Path) -> Path:
    """Return the file that the process training a run locks, next to the folder of the run.

    Example:
        >>> lock_file(Path("/grid/gcl/../gcl/1")).as_posix()
        '/grid/gcl/.1.lock'
    """
    folder = Path(os.path.realpath(run))
    return folder.with_name(f".{folder.name}.lock")


def run_lock(file: Path) -> BaseFileLock:
    """Return the lock of a file of :func:`lock_file`, which a process that holds it may take again."""
    return FileLock(file, is_singleton=True)


@contextmanager
def training_lock(run: Path, say: Callable[[str], None], *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run while it is trained; where there can be none, say so and go on.

    Args:
        run: The RUN folder.
        say: Receives what the user should know.
        patience: Seconds to wait for another process that holds it; -1 waits until it lets go.

    Raises:
        LongtailError: Another process holds it.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> with training_lock(run, print), training_lock(run, print):
        ...     run_lock(lock_file(run)).is_locked
        True
        >>> run_lock(lock_file(run)).is_locked
        False
    """
    lock = run_lock(lock_file(run))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not patience:
                raise
            say(f"waiting for another command that trains {run}")
            lock.acquire(timeout=patience)
    except Timeout as error:
        raise LongtailError(
            f"another command trains {run}: wait until it has ended, stop it, or choose another --out."
        ) from error
    except OSError as error:
        why = error.strerror or error
        say(f"note: {lock.lock_file} cannot be locked ({why}): make sure that no other command trains {run}")
    try:
        yield
    finally:
        if lock.is_locked:
            if not run.exists():  # refused: nothing is left behind
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
