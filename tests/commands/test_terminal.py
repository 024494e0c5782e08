"""Commands on a terminal and into a pipe: bars, results, and paths in brackets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

SOURCES = Path(__file__).parents[2] / "src"


def test_train_shows_bars_on_a_terminal_and_its_result_on_stdout(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.console.Console", partial(Console, force_terminal=True))
    done = train("digits", "--imbalance-ratio", 50)
    assert done.status == 0
    for words in ("decoding train", "stage 1", "━", "stage 1 done: "):
        assert words in done.err
    assert "test accuracy" not in done.err
    assert done.out.count("test accuracy") == 1
    assert "━" not in done.out


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    """`longtail recipes | head -1`."""
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    command = f"{sys.executable} -m longtail recipes | head -1"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("cifar-lt/agcl")
    assert done.stderr == ""


def test_a_path_in_brackets_is_printed_as_it_is(
    cli: Callable[..., Any], finished: Any, tmp_path: Path, real_report: None
) -> None:
    page = tmp_path / "[bold] page" / "[red].html"
    assert cli("report", finished.folder, "--out", page).out == f"report: {page}\n"
