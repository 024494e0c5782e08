"""`longtail report`: one page of one or more runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., Any]


def test_report_writes_one_page_and_prints_where(
    cli: Call, finished: Any, second: Path, tmp_path: Path, real_report: None
) -> None:
    page = tmp_path / "pages" / "both.html"
    done = cli("report", finished.folder, second, "--out", page)
    assert (done.status, done.out, done.err) == (0, f"report: {page}\n", "")
    text = page.read_text()
    assert "cifar-lt/ce" in text
    assert "cifar-lt/gcl" in text


def test_compare_and_report_need_runs(cli: Call, finished: Any, tmp_path: Path, real_report: None) -> None:
    assert "nope" in cli("compare", finished.folder, "nope").complaint
    assert "nope" in cli("report", "nope", "--out", tmp_path / "x.html").complaint
    assert not (tmp_path / "x.html").exists()
