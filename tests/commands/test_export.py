"""Taking a model away by command: export, push, and predicting from a table into a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


def test_export_says_how_near_it_is_and_writes_a_card(cli: Call, finished: Any, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model.pt2"
    done = cli("export", finished.folder, "--format", "torch", "--out", out)
    assert done.status == 0, done.err
    first, second = done.out.splitlines()
    assert first.startswith(f"{out}: ")
    assert second.startswith(f"{out}.md: ")
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.pt2", "model.pt2.md"]
    card = Path(f"{out}.md").read_text(encoding="utf-8")
    assert "| balanced accuracy | " in card
    assert "digits" in card


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("export", "{run}"), "--out missing"),
        (("export", "{run}", "--format", "onxn", "--out", "a"), "--format "),
        (("export", "nowhere", "--out", "a"), "'nowhere'"),
        (("export", "{run}", "--format", "torch", "--out", "a", "--images", "nowhere"), "no file"),
        (("push", "{run}"), "OWNER/NAME missing"),
        (("push", "nowhere", "me/x"), "'nowhere'"),
        (("push", "{run}", "me/x"), "hub"),
        (("predict", "hf:me/x", "{run}", "--out", "a.csv"), "No image"),
        (("predict", "hf:me/x", __file__, "--out", "a.csv"), "'me/x'"),
        (("predict", "{run}", __file__, "--out", "a.csv", "--prior", "unifrom"), "'uniform'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    words: tuple[str, ...], complaint: str, cli: Call, finished: Any, tmp_path: Path
) -> None:
    message = cli(*(word.format(run=finished.folder) for word in words)).complaint
    assert complaint in message
    assert not list(tmp_path.glob("a*"))


def test_a_table_of_paths_becomes_a_table_of_answers(
    cli: Call, finished: Any, make_folder: Call, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    make_folder({"cat": 2}, "photos")
    table = tmp_path / "photos" / "list.csv"
    table.write_text("picture\ncat/1.png\ncat/0.png\ngone.png\n")
    out = tmp_path / "answers.parquet"
    done = cli("predict", finished.folder, table, "--image-column", "picture", "--out", out, "--prior", "train")
    assert done.status == 0, done.err
    assert pq.read_table(out).column("path").to_pylist() == ["cat/1.png", "cat/0.png"]
    assert f" {out}.skipped.csv" in done.err
