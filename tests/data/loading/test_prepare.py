"""What `prepare` writes: the same pixels, labels, names and columns, whole or not at all, in constant memory."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from PIL import Image

from longtail.data.dataset import ImageData
from longtail.data.loading import prepare as resized
from longtail.data.loading.prepare import write_resized
from longtail.data.sources.registry import load_source
from longtail.data.splits import carve
from longtail.data.square import Square
from longtail.errors import LongtailError

SOURCES = Path(__file__).parents[3] / "src"


@pytest.fixture
def photos(tmp_path: Path) -> ImageData:
    """Eleven photos of two classes and a class with none, in two splits."""
    rng = np.random.default_rng(0)
    for number in range(11):
        class_folder = tmp_path / "photos" / ("test" if number > 7 else "train") / ("cat", "lynx")[number % 2]
        class_folder.mkdir(parents=True, exist_ok=True)
        shapes = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        shapes.resize((40 + number, 30), Image.Resampling.BICUBIC).save(class_folder / f"{number}.jpg")
    (tmp_path / "photos" / "train" / "margay").mkdir()
    return load_source(f"folder:{tmp_path / 'photos'}")


def damage(data: ImageData, *rows: int) -> list[str]:
    paths = [data.splits["train"].path(row) for row in rows]
    for path in paths:
        Path(path).write_bytes(b"no image")
    return paths


def test_rows_of_one_file_stay_together(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / f"{number}.png")
    lines = [f"{number // 2}.png,{('cat', 'dog')[number % 2]}" for number in range(40)]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *lines]))
    write_resized(load_source(f"csv:{tmp_path / 'photos.csv'}"), tmp_path / "small", 8, workers=0)
    data = load_source(f"hf:{tmp_path / 'small'}")
    assert [(finding.kind, len(finding.images)) for finding in data.findings] == [("file-with-several-labels", 20)]
    assert data.findings[0].images[0].endswith("0.png")
    train, held_out = (set(part.places()) for part in carve(data.splits["train"], 0.25))
    assert (len(train | held_out), train & held_out) == (20, set())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_bytes", [1, 3 * 16**2 * 3, 32_000_000], ids=["one row", "three rows", "all rows"])
def test_the_images_are_those_that_training_would_have_made(
    photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, batch_bytes: int
) -> None:
    monkeypatch.setattr(resized, "BATCH_BYTES", batch_bytes)
    ticks: list[None] = []
    done = write_resized(photos, tmp_path / "small", 16, workers=workers, tick=lambda: ticks.append(None))
    assert (done.images, done.skipped, len(ticks)) == ({"train": 8, "test": 3}, (), 11)
    small = load_source(str(tmp_path / "small"))
    assert small.classes == photos.classes == ("cat", "lynx", "margay")
    for name, split in photos.splits.items():
        there = small.splits[name]
        assert there.labels.tolist() == split.labels.tolist()
        for row in range(len(split)):
            assert there.path(row) == split.path(row)
            assert there.image(row).size == (16, 16)
            assert np.array_equal(there.pixels(row, Square(16)), split.pixels(row, Square(16)))
        table = pa.ipc.open_stream(tmp_path / "small" / name / "data-00000-of-00001.arrow")
        sizes = [batch.num_rows for batch in table]
        assert max(sizes) == min(len(split), max(1, batch_bytes // (3 * 16**2)))


def test_every_other_column_stays(tmp_path: Path) -> None:
    lines = ["path,label,split,site,taken"]
    for number in range(6):
        Image.new("RGB", (9, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'cat' if number % 3 else 'lynx'},train,site{number // 2},2024-01-0{number + 1}")
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    data = load_source(f"csv:{tmp_path / 'photos.csv'}")
    write_resized(data, tmp_path / "small", 4, workers=0)
    train = load_source(str(tmp_path / "small")).splits["train"]
    assert train.column("site") == data.splits["train"].column("site") == [f"site{n // 2}" for n in range(6)]
    assert train.column("taken") == data.splits["train"].column("taken")


def test_other_tools_read_it_too(photos: ImageData, tmp_path: Path) -> None:
    write_resized(photos, tmp_path / "small", 16, workers=0)
    saved = datasets.load_from_disk(str(tmp_path / "small"))
    assert saved["train"].features["label"].names == ["cat", "lynx", "margay"]
    assert np.array_equal(np.asarray(saved["test"][1]["image"]), photos.splits["test"].pixels(1, Square(16)))


def test_embedded_images_keep_the_names_they_had(tmp_path: Path) -> None:
    data = load_source("digits")
    write_resized(data, tmp_path / "small", 4, workers=0)
    assert load_source(str(tmp_path / "small")).splits["test"].path(7) == "row 7"


# --- bad images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_and_leaves_nothing(photos: ImageData, tmp_path: Path, workers: int) -> None:
    first, _ = damage(photos, 2, 5)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LongtailError) as caught:
        write_resized(photos, tmp_path / "small", 16, workers=workers)
    assert first in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_bad_images_are_left_out_on_request(photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resized, "BATCH_BYTES", 3 * 16**2 * 3)
    remaining = [photos.splits["train"].path(row) for row in range(8) if row not in (2, 5)]
    bad = damage(photos, 2, 5)
    done = write_resized(photos, tmp_path / "small", 16, workers=0, skip_bad=True)
    assert done.images == {"train": 6, "test": 3}
    assert [path in problem for path, problem in zip(bad, done.skipped, strict=True)] == [True, True]
    train = load_source(str(tmp_path / "small")).splits["train"]
    assert [train.path(row) for row in range(6)] == remaining
    assert [Path(train.path(row)).parent.name for row in range(6)] == [
        "cat" if x == 0 else "lynx" for x in train.labels
    ]


def test_an_image_that_the_machine_fails_to_read_stops_all_the_same(
    photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = photos.splits["train"].path(5), Image.open

    def stale(source: str) -> Image.Image:
        if source == path:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(source)

    monkeypatch.setattr(Image, "open", stale)
    with pytest.raises(LongtailError, match="Stale"):
        write_resized(photos, tmp_path / "small", 16, workers=0, skip_bad=True)


def test_nothing_is_written_where_no_image_of_a_split_is_left(photos: ImageData, tmp_path: Path) -> None:
    damage(photos, *range(8))
    with pytest.raises(LongtailError, match="train split"):
        write_resized(photos, tmp_path / "small", 16, workers=0, skip_bad=True)
    assert not (tmp_path / "small").exists()


# --- whole or not at all ----------------------------------------------------------------------------------------------


def test_what_is_there_stays(photos: ImageData, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    write_resized(photos, tmp_path / "small", 16, workers=0)  # an empty folder is as good as none
    with pytest.raises(LongtailError, match="exists already"):
        write_resized(photos, tmp_path / "small", 8, workers=0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LongtailError, match="exists already"):
        write_resized(photos, tmp_path / "file", 8, workers=0)
    assert load_source(str(tmp_path / "small")).splits["train"].image(0).size == (16, 16)


def test_a_link_is_followed_and_what_cannot_be_replaced_is_refused_before_the_work(
    photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk" / "small").mkdir(parents=True)
    (tmp_path / "small").symlink_to(tmp_path / "disk" / "small")
    write_resized(photos, tmp_path / "small", 16, workers=0)
    assert (tmp_path / "small").is_symlink()
    assert len(load_source(str(tmp_path / "disk" / "small")).splits["train"]) == 8

    begun = partial(pytest.fail, "an image was decoded")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(LongtailError, match="empty/images"):
        write_resized(photos, Path(), 16, workers=0, tick=begun)
    monkeypatch.chdir(tmp_path)

    def busy(_: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    for of, name, replacement in ((Path, "rmdir", busy), (os.path, "ismount", lambda path: path.name == "empty")):
        with monkeypatch.context() as patch:
            patch.setattr(of, name, replacement)
            with pytest.raises(LongtailError, match="mount point"):
                write_resized(photos, tmp_path / "empty", 16, workers=0, tick=begun)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "empty", "photos", "small"]


def test_too_little_space_is_said_before_anything_is_decoded(
    photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=8_000_000))
    begun = partial(pytest.fail, "an image was decoded")
    many = photos.with_splits(train=photos.splits["train"].select([0] * 10_997))
    with pytest.raises(LongtailError, match=r"33\.0 GB .* 0\.0 GB") as caught:
        write_resized(many, tmp_path / "small", 1000, tick=begun)
    assert "smaller --size" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_size_below_one_is_refused(photos: ImageData, tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="--size"):
        write_resized(photos, tmp_path / "small", 0)


def test_two_at_once_are_refused(photos: ImageData, tmp_path: Path) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / ".small.lock"):
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        with pytest.raises(LongtailError, match="another process"):
            write_resized(photos, tmp_path / "small", 16, workers=0)
    finally:
        release.set()
        holder.join()


def test_one_that_was_finished_in_the_meantime_stays(
    photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes the folder after this one has looked, and before it has the lock."""
    remaining = tmp_path / "small" / "kept"

    class Late(FileLock):
        def __enter__(self) -> FileLock:
            remaining.parent.mkdir()
            remaining.touch()
            return super().__enter__()

    monkeypatch.setattr(resized, "FileLock", Late)
    with pytest.raises(LongtailError, match="small exists"):
        write_resized(photos, tmp_path / "small", 16, workers=0)
    assert list(remaining.parent.iterdir()) == [remaining]


def test_one_that_was_killed_is_begun_anew(photos: ImageData, tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from longtail.data.loading.prepare import write_resized
from longtail.data.sources.registry import load_source
def tick():
    print("one", flush=True)
    time.sleep(60)
write_resized(load_source({photos.source!r}), Path({str(tmp_path / "small")!r}), 16, workers=0, tick=tick)
"""
    killed = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(SOURCES)}, text=True, stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "one\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not (tmp_path / "small").exists()
    assert (tmp_path / ".small.unfinished").exists()
    write_resized(photos, tmp_path / "small", 16, workers=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "small"]
    assert len(load_source(str(tmp_path / "small")).splits["train"]) == 8
