"""What a user names to write to: refused before anything is computed, or written to and told; streams stay streams."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longtail.cli import main

Call = Callable[..., Any]
WRITERS = {
    "predict": ("predict", "nowhere", "nothing", "--out"),
    "report": ("report", "nowhere", "--out"),
    "inspect": ("inspect", "nowhere", "--out"),
    "export": ("export", "nowhere", "--out"),
    "compare": ("compare", "nowhere", "nowhere", "--csv"),
}


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_file_of_another_kind_is_refused_first(words: tuple[str, ...], cli: Call, tmp_path: Path) -> None:
    done = cli(*words, tmp_path / "n.xlsx")
    assert done.status == 2
    assert "name it" in done.complaint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_folder_is_refused_first(words: tuple[str, ...], cli: Call, tmp_path: Path) -> None:
    assert "a folder" in cli(*words, tmp_path).complaint
    assert "a folder" in cli(*words, f"{tmp_path}/new/").complaint


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_place_that_may_not_be_written_to_is_refused_first(
    words: tuple[str, ...], cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for all but root
    done = cli(*words, tmp_path / "new" / "a")
    assert done.status == 1
    assert "be written" in done.complaint


@pytest.mark.parametrize(
    "words",
    [
        ("train", "digits", "--recipe", "cifar-lt/ce", "--out", "-"),
        ("prepare", "digits", "--out", "-"),
        ("demo", "--out", "/dev/stdout"),
        ("compare", "digits", "--recipe", "cifar-lt/ce", "--out", "-"),
        ("report", "nowhere", "--out", "a.html", "--figures", "-"),
    ],
)
def test_a_stream_is_no_folder(words: tuple[str, ...], cli: Call, tmp_path: Path) -> None:
    assert "stream" in cli(*words).complaint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (("predict", "photos", "run", "--out", "a.csv"), "swap"),
        (("report", "page.html", "--out", "run"), "--out page.html"),
        (("report", "page.csv", "--out", "a.html"), "a file"),
        (("evaluate", "digits", "run"), "swap"),
        (("export", "page.csv", "--out", "a.onnx"), "a file"),
        (("push", "me/x", "run"), "swap"),
        (("push", "run", "x"), "OWNER"),
        (("push", "run", "me/x/y"), "OWNER"),
        (("predict", "run", "list.csv", "--out", "list.csv"), "overwrite"),
        (("export", "run", "--format", "torch", "--out", "a.onnx"), "--format"),
    ],
)
def test_words_in_the_wrong_places_are_named(
    words: tuple[str, ...], word: str, cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked first")

    monkeypatch.setattr("longtail.predict.hub.upload", no_network)
    for name in ("run", "photos"):
        (tmp_path / name).mkdir()
    for name in ("run/model.json", "page.html", "page.csv", "list.csv"):
        (tmp_path / name).write_text("path\na.png\n")
    before = sorted(tmp_path.rglob("*"))
    assert word in cli(*words).complaint
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "list.csv").read_text() == "path\na.png\n"


def test_the_standard_output_takes_the_page_alone(make_folder: Call, capfdbinary: Any) -> None:
    photos = make_folder({"cat": 2, "lynx": 3})
    assert main(["inspect", str(photos), "--out", "-"]) == 0
    out, err = capfdbinary.readouterr()
    assert out.startswith(b"<!doctype html>")
    assert out.rstrip().endswith(b"</html>")
    assert b"lynx" in err
    assert main(["inspect", str(photos), "--json", "--out", "-"]) == 2


def test_the_standard_output_takes_the_table_alone(finished: Any, capfdbinary: Any) -> None:
    assert main(["compare", str(finished.folder), "--csv", "-"]) == 0
    out, err = capfdbinary.readouterr()
    assert next(csv.reader(io.StringIO(out.decode())))[0] == "run"
    assert b"table: /dev/stdout" in err


def test_a_file_that_is_replaced_is_told(cli: Call, finished: Any, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    assert "replaces" not in cli("compare", finished.folder, "--csv", table).out
    assert "replaces" in cli("compare", finished.folder, "--csv", table).out


def test_a_terminal_gets_no_bytes(cli: Call, finished: Any, tmp_path: Path) -> None:
    other, terminal = os.openpty()
    (tmp_path / "terminal").symlink_to(f"/proc/self/fd/{terminal}")
    if not (tmp_path / "terminal").exists():
        pytest.skip("no /proc here")
    words = ("--out", tmp_path / "terminal")
    assert "terminal" in cli("export", finished.folder, *words).complaint
    assert "terminal" in cli("predict", finished.folder, __file__, *words, "--format", "parquet").complaint
    assert "terminal" in cli("analyse", finished.folder, "--features", tmp_path / "terminal").complaint
    os.close(other)
    os.close(terminal)
