"""What the commands share: exit states, lines and JSON as they are, a table of figures."""

from __future__ import annotations

import errno
import json
import sys
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def as_dict(flags: Namespace, without: str = "") -> dict[str, Any]:
    """The flags as keyword arguments."""
    return {key: value for key, value in flags.as_dict().items() if key != without}


def spelt(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def summary_table(summary: dict[str, Any]) -> Table:
    """Lay the main figures of a summary out as a table; an empty group reads n/a."""
    table = Table("figure", "value", box=None, header_style="bold", pad_edge=False)
    for key, value in summary.items():
        if key == "per_class":
            continue
        if key in {"num_images", "nll"}:
            shown = str(value) if isinstance(value, int) else f"{value:.4f}"
        else:
            shown = "n/a" if value is None else f"{value * 100:.2f} %"
        table.add_row(key.replace("_", " "), shown)
    return table


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or the one it was raised from, says that no space is left.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError("denied"))
        (True, False)
    """
    if error is None:
        return False
    full = isinstance(error, OSError) and (error.errno == errno.ENOSPC or "No space left" in str(error))
    return full or is_disk_full(error.__cause__)


def print_line(text: str, style: str | None = None) -> None:
    """Print a line as it is: no colours guessed, no [markup], never wrapped."""
    Console().print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def print_json(values: Any) -> None:
    """Print values as JSON."""
    Console().print_json(json.dumps(values, ensure_ascii=False, allow_nan=False))


def fail(message: str, status: int = EXIT_FAILED) -> int:
    """Say what is wrong in one line, and return the exit status."""
    sys.stderr.write(f"longtail: {' '.join(message.splitlines())}\n")
    return status
