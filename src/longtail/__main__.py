"""``python -m longtail``: the longtail command, or after ``--grid-lock RUN`` the process of one run of a grid."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from longtail.cli import main


def train_under_lock(run: str, words: Sequence[str]) -> int:
    """Run ``longtail WORDS`` while holding the lock of a run; return its exit status. It ends when the grid has ended.

    A worker of a grid that was killed may still be saving when the grid is started again: the new one waits for it.

    Args:
        run: The RUN folder.
        words: The words of a command.
    """
    from longtail.console import Reporter
    from longtail.run.lock import training_lock

    threading.Thread(target=_end_with_the_grid, daemon=True).start()
    with training_lock(Path(run), Reporter().say, patience=-1):
        return main(words)


def _end_with_the_grid() -> None:
    """Stop politely, as SIGTERM does, once the other end of standard input is closed: by its owner, or by its death."""
    # Not sys.stdin: its buffer would be locked by this thread when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(train_under_lock(sys.argv[2], sys.argv[3:]) if sys.argv[1:2] == ["--grid-lock"] else main())
