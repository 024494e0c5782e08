"""`longtail prepare`, and training on what it wrote; what a run says about how fast its images came."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / ("cat", "lynx")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shapes = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        shapes.resize((60, 44), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    return tmp_path / "photos"


def test_what_was_prepared_trains_as_the_originals_do(cli: Call, train: Call, photos: Path, tmp_path: Path) -> None:
    done = cli("prepare", photos, "--out", "small", "--size", 16)
    assert done.status == 0
    assert re.match(r"small: 24 images of 16 x 16 pixels \(24 train\), \d+ images/s\n", done.out)
    assert "longtail train hf:small" in done.out
    losses = []
    for source, out in ((photos, "first"), ("hf:small", "second")):
        options = ("--data.image_size", 16, "--stage1.batch_size", 8, "--data.validation_fraction", 0)
        assert train(source, *options, out=out).status == 0
        losses.append(next(csv.DictReader((tmp_path / out / "history.csv").open()))["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_what_was_prepared_in_another_fit_trains_as_the_originals_do(
    cli: Call, train: Call, photos: Path, tmp_path: Path, fit: str
) -> None:
    assert cli("prepare", photos, "--out", "small", "--size", 16, "--fit", fit).status == 0
    losses = {}
    for source, out, used in ((photos, "first", fit), ("hf:small", "second", fit), (photos, "third", "crop")):
        options = ("--data.image_size", 16, "--stage1.batch_size", 8, "--data.validation_fraction", 0)
        assert train(source, *options, "--data.fit", used, out=out).status == 0
        losses[out] = next(csv.DictReader((tmp_path / out / "history.csv").open()))["train_loss"]
    assert losses["first"] == losses["second"] != losses["third"]


def test_shards_are_written_and_trained_on(cli: Call, train: Call, photos: Path, tmp_path: Path) -> None:
    (photos / "lynx" / "3.jpg").write_bytes(b"no image")
    done = cli("prepare", photos, "--shards", "shards", "--band-shards", 2, "--skip-bad")
    assert done.status == 0
    assert re.match(r"shards: 23 images to stream \(23 train, 1 unreadable skipped\), \d+ images/s\n", done.out)
    assert "longtail train stream:shards" in done.out
    assert len(list((tmp_path / "shards").glob("train-*.parquet"))) == 2
    assert train("stream:shards", "--data.image_size", 16, "--stage1.batch_size", 8).status == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (sum(figures["train_counts"]), figures["test"]["num_images"]) == (19, 4)
    assert figures["draws"]["stage1"]["images"] == figures["train_counts"]


def test_a_bad_image_stops_unless_it_may_be_skipped(cli: Call, photos: Path) -> None:
    (photos / "lynx" / "3.jpg").write_bytes(b"no image")
    assert "lynx/3.jpg'" in cli("prepare", photos, "--out", "small", "--size", 16).complaint
    assert not Path("small").exists()
    done = cli("prepare", photos, "--out", "small", "--size", 16, "--skip-bad")
    assert done.status == 0
    assert [line.startswith("skipped: ") for line in done.err.splitlines() if "lynx/3.jpg" in line] == [True]
    assert all(word in done.out for word in ("16 x 16", "23 train", "1 unreadable"))


def test_columns_of_a_table_can_be_named(cli: Call, photos: Path) -> None:
    lines = [f"{file},{file.parent.name}" for file in sorted(photos.glob("*/*.jpg"))]
    Path("table.csv").write_text("\n".join(["where,what", *lines]))
    words = ("prepare", "csv:table.csv", "--out", "small", "--size", 8)
    assert "--image-column" in cli(*words).complaint
    assert cli(*words, "--image-column", "where", "--label-column", "what", "--quiet").status == 0


@pytest.mark.parametrize(
    ("words", "keyword"),
    [
        (["prepare"], "SOURCE"),
        (["prepare", "digits"], "--shards"),
        (["prepare", "digits", "--shards", "x", "--size", "8"], "--size"),
        (["prepare", "digits", "--out", "x", "--band-shards", "8"], "--band-shards"),
        (["prepare", "digits", "--out", "x", "--size", "big"], "--size "),
        (["prepare", "digits", "--out", "x", "--size", "0"], "--size"),
        (["prepare", "digits", "--out", "x", "--fit", "padd"], "'pad'"),
    ],
)
def test_wrong_words_are_one_sentence(cli: Call, words: list[str], keyword: str) -> None:
    assert keyword in cli(*words).complaint


@pytest.mark.parametrize("resident", ["1", "0"], ids=["resident", "streaming"])
def test_a_run_says_how_fast_its_images_came(train: Call, photos: Path, tmp_path: Path, resident: str) -> None:
    done = train(
        photos,
        "--data.image_size",
        16,
        "--stage1.batch_size",
        8,
        "--data.workers",
        2,
        "--epochs",
        3,
        "--data.resident_gigabytes",
        resident,
    )
    assert done.status == 0
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert len(rows) == 3
    assert all(0 < float(row["waiting_share"]) <= 1 for row in rows)
    throughput = json.loads((tmp_path / "run" / "metrics.json").read_text())["throughput"]["stage1"]
    assert throughput["images_per_second"] == sorted(float(row["images_per_second"]) for row in rows)[1]
    assert throughput["waiting_share"] == sorted(float(row["waiting_share"]) for row in rows)[1]
    line = rf"stage 1 done: {throughput['images_per_second']:.0f} images/s, [\d.]+ ?% of the time waiting for data"
    assert re.search(line, done.err)


def test_images_that_cannot_be_kept_on_disk_are_a_note_of_the_run(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.data.loading.cache.SMALLEST_BYTES", 0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    done = train("digits")
    assert done.status == 0
    assert "on disk" in done.err
    assert "note: decoded" not in train("digits", "--data.cache", "false", out="second").err
