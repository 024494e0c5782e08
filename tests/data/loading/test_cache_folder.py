"""The cache folder: tables of rows in it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock

from longtail.commands.output import is_disk_full
from longtail.data.dataset import portable_pixmap
from longtail.data.loading.cache import kept_on_disk
from longtail.data.loading.cache_folder import UNKNOWN, Contents, cache_entries, keep_folder, make_room, remove_entry
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def parquet(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    images = [{"bytes": portable_pixmap(image), "path": None} for image in pixels]
    pq.write_table(pa.table({"image": images, "label": ["cat", "lynx"] * 6}), path)
    return path


def test_the_rows_of_a_parquet_file_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``datasets`` writes them to disk to map them: not into a cache of its own, where nobody counts them."""
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "theirs")
    source = f"parquet:{parquet(tmp_path / 'animals.parquet')}"
    train = load_source(source).splits["train"]
    (entry,) = cache_entries()
    assert (entry.contents.source, entry.contents.kind, entry.contents.images) == (
        str(tmp_path / "animals.parquet"),
        "table",
        12,
    )
    assert entry.size > 12 * 8 * 8 * 3
    assert not (tmp_path / "theirs").exists()
    before = entry.path.stat().st_mtime
    os.utime(entry.path, (1000, 1000))
    load_source(source)
    assert cache_entries()[0].path.stat().st_mtime >= before, "used, and found again"
    assert remove_entry(entry.path)
    assert train.image(11).size == (8, 8), "a map outlives its file"
    assert cache_entries() == []


def test_a_table_does_not_make_room_by_another_one_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [parquet(tmp_path / f"{name}.parquet") for name in ("train", "test")]
    monkeypatch.setenv("LONGTAIL_CACHE_GB", str(1.5 * files[0].stat().st_size / 1e9))
    for _ in range(2):
        assert len(load_source(f"parquet:{tmp_path}").splits) == 2
        assert len(cache_entries()) == 2


def test_tables_in_use_leave_the_room_to_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [parquet(tmp_path / f"{name}.parquet") for name in ("train", "test")]
    monkeypatch.setenv("LONGTAIL_CACHE_GB", str(1.5 * files[0].stat().st_size / 1e9))
    load_source(f"parquet:{tmp_path}")
    for part in ("a", "b"):
        contents = Contents("features", "photos", "resnet20", 1)
        kept_on_disk(part, 1000, torch.Tensor.zero_, contents, warn=pytest.fail)
    keep_folder("small.table", 0, lambda path: path and path.mkdir(), lambda _: UNKNOWN)
    kinds = [entry.contents.kind for entry in cache_entries()]
    assert (kinds.count("table"), kinds.count("features")) == (2, 2)


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (KeyboardInterrupt(), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (MemoryError(), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (ValueError("damaged"), False),
    ],
)
def test_an_entry_goes_on_an_error_of_what_it_holds_alone(error: BaseException, stays: bool) -> None:
    def read(path: Path | None) -> int:
        assert path is not None
        path.mkdir(exist_ok=True)
        (path / "rows").touch()
        return 7

    def fail(path: Path | None) -> int:
        read(path)
        raise error

    for is_stored in (False, True):
        if is_stored:
            keep_folder("a.table", 0, read, lambda _: UNKNOWN)
        with pytest.raises(type(error)):
            keep_folder("a.table", 0, fail, lambda _: UNKNOWN)
        assert len(cache_entries()) == (is_stored and stays), "what this call has begun goes on any error"


def test_a_limit_that_is_no_size_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"parquet:{parquet(tmp_path / 'animals.parquet')}"
    load_source(source)
    monkeypatch.setenv("LONGTAIL_CACHE_GB", "20 GB")
    with pytest.raises(LongtailError, match="LONGTAIL_CACHE_GB"):
        load_source(source)
    assert len(cache_entries()) == 1


def test_a_full_disk_is_not_laid_on_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("the data set cannot be made") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(datasets.Dataset, "from_parquet", full)
    with pytest.raises(LongtailError, match="LONGTAIL_CACHE ") as caught:
        load_source(f"parquet:{parquet(tmp_path / 'animals.parquet')}")
    assert not is_disk_full(caught.value), "of the run"
    assert cache_entries() == []


def test_an_entry_of_another_user_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_on_disk("theirs", 2000, torch.Tensor.zero_, Contents("features", "photos", "resnet20", 1))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", refuse)
        make_room(folder, 0, keep="ours")
        assert not remove_entry(folder / "theirs.pixels")
    assert remove_entry(folder / "theirs.pixels")


def test_an_entry_that_cannot_be_deleted_keeps_its_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_source(f"parquet:{parquet(tmp_path / 'animals.parquet')}")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    assert not remove_entry(cache_entries()[0].path)
    assert cache_entries()[0].contents.kind == "table"


def test_a_cache_that_cannot_be_written_does_not_stop_a_parquet_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    assert len(load_source(f"parquet:{parquet(tmp_path / 'animals.parquet')}").splits["train"]) == 12
