"""What a user names to write to: refused before anything is computed, or written to and told; streams stay streams."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from longtail.cli import main
from longtail.commands.output import class_table, print_json, summary_table

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


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_file_whose_folder_takes_no_other_is_refused_first(
    words: tuple[str, ...], cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    (tmp_path / "a").symlink_to("folder/a")
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path / "folder")
    assert "be written" in cli(*words, tmp_path / "a").complaint


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


def _row(name: str, recall: float, images: int) -> dict[str, Any]:
    return {
        "name": name,
        "train_count": 9,
        "test_count": images,
        "recall": recall,
        "precision": None,
        "recall_interval": [0.1, 0.2],
        "precision_interval": None,
    }


def _printed(summary: dict[str, Any]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=100)
    console.print(summary_table(summary))
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_tables_mark_hardly_tested_classes_and_say_how_many_there_are() -> None:
    rows = [_row("many", 0.9, 50), _row("[few]", 0.1, 4)]
    table = class_table({"per_class": rows})
    assert [str(cell) for cell in table.columns[0].cells] == ["[few] *", "many"]
    assert re.match(r"\* .*\b5\b", str(table.caption))
    assert class_table({"per_class": rows[:1]}).caption is None
    assert re.search(r"\b1\b.*\b2\b", str(class_table({"per_class": rows}, limit=1).caption))
    every = class_table({"per_class": [*rows, _row("none", None, 0) | {"train_count": 70}]}, limit=None)
    assert [str(cell) for cell in every.columns[0].cells] == ["none", "many", "[few] *"]  # the commonest first
    assert list(every.columns[3].cells)[:2] == ["n/a", "90.0"]
    summary = {
        "accuracy": 0.5,
        "per_class": rows,
        "intervals": {"level": 0.95, "unit": "image", "accuracy": [0.4, 0.6]},
    }
    assert _printed(summary) == [
        ["figure", "value", "95%", "interval"],
        ["accuracy", "50.00%", "40.0–60.0"],
        ["note:", "1", "of", "2", "tested", "classes", "has", "fewer", "than", "5", "test", "images."],
    ]
    assert _printed({"accuracy": 0.5}) == [["figure", "value"], ["accuracy", "50.00%"]]


@pytest.mark.parametrize(
    ("name", "encoding", "is_plain"),
    [("Käfer", "utf-8", True), ("Käfer", "latin-1", True), ("Käfer", "ascii", False), ("K\udce4fer", "utf-8", False)],
)
def test_json_has_escapes_for_letters_that_its_stream_does_not_know(
    name: str, encoding: str, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", stream)
    print_json({"class": name})
    stream.seek(0)
    text = stream.read()
    assert text.isascii() != is_plain
    assert json.loads(text) == {"class": name}
