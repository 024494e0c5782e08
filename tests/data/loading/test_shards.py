"""What `prepare --shards` writes: every image once, as it was, in even shards by frequency, whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from digit_photos import write_digits

from longtail.counts import ClassCounts
from longtail.data.dataset import ImageData, Split
from longtail.data.loading import shards as module
from longtail.data.loading.shards import Plan, write_shards
from longtail.data.shard_index import INDEX_FILE, ShardIndex, frequency_bands, read_index
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError
from longtail.validation import FormatError

COUNTS = (40, 25, 12, 5, 3)


def long_tailed(counts: tuple[int, ...] = COUNTS) -> ImageData:
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    names = tuple(f"class {number}" for number in range(len(counts)))
    return ImageData(
        "mine", names, {"train": Split.from_arrays(pixels, labels), "test": Split.from_arrays(pixels, labels)}
    )


def index_of(folder: Path) -> ShardIndex:
    return read_index((folder / INDEX_FILE).read_bytes(), INDEX_FILE)


@pytest.mark.parametrize("most", [4096, 3], ids=["one file a hand", "several files a hand"])
def test_every_image_is_in_one_shard_of_its_band(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", most)
    data, out = long_tailed(), tmp_path / "shards"
    assert write_shards(data, out, fewest=4).images == {"train": sum(COUNTS), "test": sum(COUNTS)}
    index = index_of(out)
    train = index.splits["train"]
    assert (index.classes, train.counts) == (data.classes, COUNTS)
    assert train.bands == (0, 1, 2, 3, 3)
    assert min(len(train.dealt(band)) for band in range(4)) >= 4
    seen = []
    for shard in train.shards:
        table = pq.read_table(out / shard.file)
        assert table.num_rows == shard.images <= most
        assert {train.bands[label] for label in table["label"].to_pylist()} == {shard.band}
        seen += [
            (image["bytes"], label)
            for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)
        ]
    assert sorted(seen) == sorted(
        (data.splits["train"].encoded(row)["bytes"], label) for row, label in enumerate(data.splits["train"].labels)
    )


def test_each_class_is_spread_evenly_over_the_hands(tmp_path: Path) -> None:
    write_shards(long_tailed(), tmp_path / "shards", fewest=4)
    shards = index_of(tmp_path / "shards").splits["train"].shards
    hands = [0] * 4
    for band in range(4):
        for number, shard in enumerate(shard for shard in shards if shard.band == band):
            hands[number % 4] += shard.images
            labels = pq.read_table(tmp_path / "shards" / shard.file)["label"].to_pylist()
            for label, count in enumerate(COUNTS):
                if frequency_bands(ClassCounts(COUNTS), 4)[label] == band:
                    assert abs(labels.count(label) - count / 4) < 1
    assert max(hands) - min(hands) <= 1


def test_shards_are_a_parquet_source_too(tmp_path: Path) -> None:
    photos = load_source(str(write_digits(tmp_path / "photos", per_class=5)))
    write_shards(photos, tmp_path / "shards", fewest=2)
    table = load_source(f"parquet:{tmp_path / 'shards'}")
    assert table.classes == photos.classes
    assert sorted(table.splits["train"].path(row) for row in range(15)) == sorted(photos.splits["train"].places())


def test_an_unreadable_image_stops_or_is_left_out_of_the_counts(tmp_path: Path) -> None:
    photos = write_digits(tmp_path / "photos", per_class=5)
    (photos / "1" / "3.png").write_bytes(b"no image")
    out = tmp_path / "shards"
    with pytest.raises(LongtailError, match="3\\.png"):
        write_shards(load_source(str(photos)), out)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    done = write_shards(load_source(str(photos)), out, skip_bad=True)
    assert len(done.skipped) == 1
    assert index_of(out).splits["train"].counts == (5, 4, 5)


def test_an_image_that_the_machine_fails_to_read_stops_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, read = load_source(str(write_digits(tmp_path / "photos", per_class=2))), Path.read_bytes
    stale_file = Path(photos.splits["train"].path(1))

    def stale(path: Path) -> bytes:
        if path == stale_file:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(LongtailError, match="Stale"):
        write_shards(photos, tmp_path / "shards", skip_bad=True)


def test_a_class_without_a_readable_training_image_is_named(tmp_path: Path) -> None:
    photos = write_digits(tmp_path / "photos", per_class=2)
    for file in (photos / "1").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(LongtailError, match="'1'"):
        write_shards(load_source(str(photos)), tmp_path / "shards", skip_bad=True)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(LongtailError, match="exists"):
        write_shards(long_tailed(), tmp_path)


@pytest.mark.parametrize("counts", [(1000, 500, 3, 3, 3, 3, 3, 3, 1), (2, 2, 2), (5000, 1, 0)])
def test_bands_hold_enough_images_and_little_spread(counts: tuple[int, ...]) -> None:
    bands = frequency_bands(ClassCounts(counts), 8)
    sizes = np.bincount(bands, weights=counts)
    assert sizes.min() >= min(8, sum(counts))
    assert np.argsort(-np.array(counts), kind="stable").tolist() == np.lexsort((-np.array(counts), bands)).tolist()


def test_files_of_a_plan_differ_by_one_image() -> None:
    counts = ClassCounts([11, 10, 9])
    plan = Plan.deal(np.repeat(np.arange(3), counts.counts), frequency_bands(counts, 4), 4)
    assert {len(rows) for _, rows in plan.shards} == {7, 8}


def test_a_damaged_index_is_refused() -> None:
    with pytest.raises(FormatError, match="format"):
        read_index(b'{"format": 2}', "here")
    wrong = b'{"format": 1, "classes": ["a"], "splits": {"train": {"counts": [2], "bands": [0], "shards": []}}}'
    with pytest.raises(LongtailError, match="counts"):
        read_index(wrong, "here")
