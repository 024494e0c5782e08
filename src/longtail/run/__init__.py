"""The RUN folder: the name of every file in it, its format, and how it is written, read and validated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtail.run.result import RunResult


def read(folder: str | Path) -> RunResult:
    """Read a finished run as typed, validated values.

    Args:
        folder: A RUN folder with ``metrics.json`` and ``config.yaml``; the other files are optional.

    Raises:
        LongtailError: The folder is not a finished run, or a file in it is damaged or of a newer format.
    """
    from longtail.run.result import read_run

    return read_run(folder)
