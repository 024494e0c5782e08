"""The cache folder: tables of rows in it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.data.dataset import portable_pixmap
from longtail.data.loading.cache_folder import cache_entries, remove_entry
from longtail.data.sources.registry import load_source


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


def test_a_cache_that_cannot_be_written_does_not_stop_a_parquet_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    assert len(load_source(f"parquet:{parquet(tmp_path / 'animals.parquet')}").splits["train"]) == 12
