"""The console: a progress bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from longtail.console import Reporter

SOURCES = Path(__file__).parents[1] / "src"


def written(*, terminal: bool, quiet: bool = False, plain_seconds: float = 0.0) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    reporter = Reporter(console, quiet=quiet, plain_seconds=plain_seconds)
    reporter.say("a [note] in ./brackets")
    with reporter.bar("stage 1", 4) as bar:
        for done in range(1, 5):
            bar.update(done, f"loss {done}")
    file: Any = console.file
    text: str = file.getvalue()
    return text


def test_elsewhere_there_are_plain_lines_now_and_then() -> None:
    lines = ["a [note] in ./brackets", *(f"stage 1 {done}/4 loss {done}" for done in range(1, 5))]
    assert written(terminal=False).splitlines() == lines
    assert written(terminal=False, plain_seconds=60).splitlines() == lines[:1]


def test_a_terminal_gets_a_bar_that_moves_and_goes() -> None:
    text = written(terminal=True)
    assert "\x1b[" in text
    assert "4/4" in text
    assert "loss 4" in text
    assert "━" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool) -> None:
    assert written(terminal=terminal, quiet=True) == ""


def test_a_real_terminal_is_recognized() -> None:
    """A pseudo-terminal as the standard error of another process."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are a matter of Unix")
    ours, theirs = pty.openpty()
    code = "from longtail.console import Reporter\nwith Reporter().bar('stage 1', 4) as bar: bar.update(3)"
    environment = os.environ | {"PYTHONPATH": str(SOURCES), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    assert process.wait(timeout=60) == 0
    output = os.read(ours, 65536).decode(errors="replace")
    os.close(ours)
    assert "stage 1" in output
    assert "━" in output
