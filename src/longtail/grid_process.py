"""The process of one run of a grid: the command line, under a lock, ended when the grid is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from filelock import FileLock

from longtail.cli import main


def work(argv: Sequence[str]) -> int:
    """Run ``longtail WORDS`` while holding a lock; return its exit status.

    A worker of a grid that was killed may still be saving when the grid is started again: the new one waits for it.

    Args:
        argv: The file to lock, then the words of a command.
    """
    lock, *words = argv
    threading.Thread(target=_end_with_the_grid, daemon=True).start()
    with FileLock(lock):
        return main(words)


def _end_with_the_grid() -> None:
    """Stop politely, as SIGTERM does, once the other end of standard input is closed: by its owner, or by its death."""
    # Not sys.stdin: its buffer would be locked by this thread when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(work(sys.argv[1:]))
