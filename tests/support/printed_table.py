"""A comparison as the terminal shows it."""

from __future__ import annotations

import io

from rich.console import Console

from longtail.compare.table import Comparison, print_table


def printed(comparison: Comparison, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
