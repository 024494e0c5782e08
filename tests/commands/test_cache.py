"""longtail cache: what it lists and deletes, and the line after a command that has added much."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock

from longtail.commands import cache
from longtail.data.dataset import portable_pixmap
from longtail.data.loading.cache import kept_on_disk
from longtail.data.loading.cache_folder import Contents, cache_entries, describe, make_room
from longtail.data.sources.registry import load_source

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(name: str, size: int, contents: Contents, *, days_old: float = 0) -> Path:
    kept_on_disk(name, size, torch.Tensor.zero_, contents)
    (path,) = [entry.path for entry in cache_entries() if entry.path.stem == name]
    then = path.stat().st_mtime - days_old * 86400
    os.utime(path, (then, then))
    return path


@pytest.fixture
def filled(folder: Path) -> Path:
    """Pixels of one source used long ago, features of another in two views, and a file of an older version."""
    keep("a", 3000, Contents("pixels", "photos", "224", 7), days_old=9)
    for view in (0, 1):
        keep(f"b{view}", 2000, Contents("features", "folder:/data/fish", "timm:resnet18", 5, view), days_old=2 + view)
    (folder / "c.pixels").write_bytes(bytes(500))
    return folder


@pytest.mark.usefixtures("filled")
def test_it_lists_by_source_what_was_used_last_first(cli: Cli, folder: Path) -> None:
    facts = json.loads(cli("cache", "--json").out)
    assert (facts["folder"], facts["bytes"], facts["limit_bytes"]) == (str(folder), 7500, 20_000_000_000)
    uses = [(use["source"], use["what"], use["images"], use["bytes"], use["files"]) for use in facts["sources"]]
    assert uses == [
        ("", "unknown", 0, 500, 1),
        ("/data/fish", "features of timm:resnet18", 5, 4000, 2),
        ("photos", "pixels at 224 px", 7, 3000, 1),
    ]
    result = cli("cache").out
    assert all(word in result for word in (f"{folder}: ", "7,500 bytes", "20 GB"))
    assert [line.split()[0] for line in result.splitlines()[1:]] == ["source", "?", "/data/fish", "photos"]


@pytest.mark.usefixtures("filled")
def test_a_damaged_description_is_unknown(cli: Cli, folder: Path) -> None:
    for text in (
        "{",
        "[]",
        '{"kind": "pixels", "source": 3, "detail": "", "images": 1, "view": 0}',
        "nul\0",
        "[" * 100_000,
    ):
        (folder / "a.json").write_text(text)
        assert [use["what"] for use in json.loads(cli("cache", "--json").out)["sources"]].count("pixels at 224 px") == 0


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([], []),
        (["photos"], ["b0", "b1", "c"]),
        (["--older-than", "7d"], ["b0", "b1", "c"]),
        (["--older-than", "1w"], ["b0", "b1", "c"]),
        (["/data/fish", "--older-than", "60h"], ["a", "b0", "c"]),
    ],
)
@pytest.mark.usefixtures("filled")
def test_it_deletes_what_it_is_told_to(cli: Cli, folder: Path, words: list[str], left: list[str]) -> None:
    done = cli("cache", "--clear", *words)
    assert done.status == 0
    assert "deleted" in done.out
    assert sorted(path.stem for path in folder.glob("*.pixels")) == left
    assert sorted(path.stem for path in folder.glob("*.json")) == [name for name in left if name != "c"]


@pytest.mark.usefixtures("filled")
def test_what_another_process_is_writing_stays_and_is_said(cli: Cli, folder: Path) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(folder / "a.lock"):
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    done = cli("cache", "--clear")
    release.set()
    holder.join()
    assert "1 file kept" in done.out
    assert [path.stem for path in folder.glob("*.pixels")] == ["a"]


@pytest.mark.usefixtures("filled")
def test_without_a_limit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE_GB", "inf")
    assert json.loads(cli("cache", "--json").out)["limit_bytes"] is None
    assert "without a limit" in cli("cache").out


def test_without_a_home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("LONGTAIL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    done = cli("cache")
    assert (done.status, "LONGTAIL_CACHE" in done.complaint) == (1, True)


def test_the_counts_of_streams_are_listed_and_deleted(cli: Cli, folder: Path) -> None:
    folder.mkdir()
    (folder / "a.index").write_bytes(bytes(500))
    describe(folder / "a.index", Contents("index", "/data/birds", "", 9))
    assert [use["what"] for use in json.loads(cli("cache", "--json").out)["sources"]] == ["counts of a stream"]
    make_room(folder, 0, keep="")
    assert (folder / "a.index").exists(), "small, and hours of work"
    cli("cache", "--clear", "stream:/data/birds")
    assert not (folder / "a.index").exists()


@pytest.mark.parametrize(
    ("words", "key"),
    [(["phottos"], "photos"), (["--older-than", "soon"], "--older-than"), (["--older-than", "7"], "7d")],
)
@pytest.mark.usefixtures("filled")
def test_a_wrong_word_deletes_nothing(cli: Cli, folder: Path, words: list[str], key: str) -> None:
    done = cli("cache", "--clear", *words)
    assert done.status == 2
    assert key in done.complaint
    assert len(list(folder.glob("*.pixels"))) == 4


def test_an_empty_cache(cli: Cli, folder: Path) -> None:
    assert "0 bytes" in cli("cache").out
    assert cli("cache", "--clear").status == 0
    assert not folder.exists()


def parquet(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    images = [{"bytes": portable_pixmap(image), "path": None} for image in pixels]
    pq.write_table(pa.table({"image": images, "label": ["cat", "lynx"] * 6}), path)
    return path


def test_a_source_has_one_name_however_it_is_typed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path / "animals.parquet")
    monkeypatch.chdir(tmp_path)
    load_source("animals.parquet")
    keep("a", 3000, Contents("pixels", f"parquet:{file}", "8", 12))
    assert {use["source"] for use in json.loads(cli("cache", "--json").out)["sources"]} == {str(file)}
    for spelling in ("animals.parquet", "parquet:animals.parquet", str(file)):
        assert json.loads(cli("cache", spelling, "--json").out)["bytes"] > 3000


@pytest.mark.parametrize(("limit", "words", "times"), [(1000, [], 1), (1e9, [], 0), (1000, ["--json"], 1)])
def test_a_command_says_what_it_has_added(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, words: list[str], times: int
) -> None:
    monkeypatch.setattr(cache, "REPORTED_GROWTH", limit)
    file = parquet(tmp_path / "animals.parquet")
    first, second = (cli("inspect", f"parquet:{file}", *words) for _ in range(2))
    assert [line.count("longtail cache --clear") for line in first.err.splitlines()] == [1] * times
    assert str(tmp_path / "cache") in first.err or not times
    assert second.err == "", "nothing new"
    assert "--clear" not in first.out


def test_a_command_that_fails_says_it_too(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "REPORTED_GROWTH", 1000)
    file = parquet(tmp_path / "animals.parquet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = cli("prepare", f"parquet:{file}", "--out", tmp_path / "full")
    assert done.status != 0
    assert "longtail cache --clear" in done.err
