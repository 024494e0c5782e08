"""Streams as a source: counted once, from Parquet or tar, local or remote; what is held out; what is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import fsspec
import numpy as np
import pytest
from parquet_images import write
from streams import COUNTS, tar, write_stream

from longtail.config.schema import DataConfig
from longtail.data.dataset import Split
from longtail.data.loading.cache_folder import cache_entries
from longtail.data.shard_index import INDEX_FILE, INDEX_FORMAT, ShardIndex
from longtail.data.shard_reader import ShardFolder, ShardReader, open_shard
from longtail.data.sources import stream
from longtail.data.sources.registry import absolute_source, load_source, source_name
from longtail.data.sources.stream import StreamedSplit
from longtail.data.splits import unit_numbers
from longtail.data.subsets import cut_long_tailed
from longtail.errors import LongtailError
from longtail.remote import TRIES
from longtail.training.prepared_data import prepare_data

pytestmark = pytest.mark.usefixtures("hf_cache")


def train_of(source: str) -> StreamedSplit:
    split = load_source(source).splits["train"]
    assert isinstance(split, StreamedSplit)
    return split


@pytest.fixture
def store() -> Iterator[str]:
    """A folder of fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    yield "memory://birds"
    system.rm("/birds", recursive=True)


def test_prepared_shards_may_be_copied_with_their_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_stream(tmp_path / "shards")
    for file in shards.iterdir():
        os.utime(file, (1000, 1000))
    monkeypatch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted"))
    assert load_source(f"stream:{shards}").counts().counts == COUNTS


def test_prepared_shards_are_not_read_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_stream(tmp_path / "shards")
    monkeypatch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted"))
    data = load_source(f"stream:{shards}")
    assert data.counts().counts == COUNTS
    assert sorted(data.splits["test"].labels.tolist()) == sorted([*range(len(COUNTS))] * 4)
    assert len(train_of(f"stream:{shards}").shards.shards) == 5 * 4
    assert not data.findings


@pytest.mark.parametrize(
    "labels", [["cat", "lynx ", "lynx", "cat", "cat", "cat"], [3, 1, 1, 3, 3, 3]], ids=["names", "numbers"]
)
def test_shards_without_an_index_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[object]
) -> None:
    write(tmp_path / "a.parquet", labels[:3])
    write(tmp_path / "b.parquet", labels[3:])
    first = load_source(f"stream:{tmp_path}")
    assert first.counts().counts == ((4, 2) if labels[0] == "cat" else (2, 4))
    assert json.loads((tmp_path / INDEX_FILE).read_text())["format"] == INDEX_FORMAT
    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted again"))
        again = load_source(f"stream:{tmp_path}/*.parquet")
        assert again.classes == first.classes
        assert again.splits["train"].fingerprint() == first.splits["train"].fingerprint()
    write(tmp_path / "c.parquet", labels[3:])
    assert len(load_source(f"stream:{tmp_path}").splits["train"]) == 9


def write_twofold(file: Path) -> None:
    """Write a table with a second column of images and of labels."""
    write(file, ["cat", "cat", "cat", "lynx", "lynx", "cat"])
    rows = datasets.Dataset.from_parquet(str(file))
    rows = rows.add_column("thumbnail", rows.with_format("arrow")["image"].to_pylist()[::-1], feature=datasets.Image())
    rows.add_column("place", ["cat", "lynx", "lynx", "lynx", "lynx", "lynx"]).to_parquet(file)


def test_images_that_are_held_out_are_of_the_column_that_is_named(tmp_path: Path) -> None:
    write_twofold(tmp_path / "a.parquet")
    held = {}
    for column in ("image", "thumbnail"):
        data = load_source(f"stream:{tmp_path}", image_column=column, label_column="label")
        train = data.splits["train"]
        assert isinstance(train, StreamedSplit)
        held[column] = train.hold_out({"test": 0.5}, seed=0)[1]["test"]
    assert held["image"].labels.tolist() == held["thumbnail"].labels.tolist()
    assert held["image"].encoded(0)["bytes"] != held["thumbnail"].encoded(0)["bytes"]


@pytest.mark.parametrize("columns", [("label", "place"), ("place", "label")])
def test_an_index_is_taken_for_the_label_column_that_it_counted(
    tmp_path: Path, columns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_twofold(tmp_path / "a.parquet")
    counts = {"label": (4, 2), "place": (1, 5)}

    def counted(column: str) -> tuple[int, ...]:
        return load_source(f"stream:{tmp_path}", image_column="image", label_column=column).counts().counts

    assert [counted(column) for column in columns] == [counts[column] for column in columns]
    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted again"))
        assert [counted(column) for column in columns] == [counts[column] for column in columns]
    values = json.loads((tmp_path / INDEX_FILE).read_text())
    assert values.pop("label") == columns[0]
    values["splits"]["train"]["counts"] = [3, 3]
    (tmp_path / INDEX_FILE).write_text(json.dumps(values))
    assert counted(columns[0]) == counts[columns[0]], "an index of earlier versions was counted by any column"
    assert json.loads((tmp_path / INDEX_FILE).read_text())["label"] == columns[0], "and is replaced"


def test_the_index_of_shards_that_an_earlier_version_prepared_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_stream(tmp_path / "shards") / INDEX_FILE
    values = json.loads(place.read_text())
    assert values.pop("label") == "label"
    place.write_text(json.dumps(values))
    monkeypatch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted"))
    assert load_source(f"stream:{place.parent}").counts().counts == COUNTS


def test_the_index_of_a_place_that_cannot_be_written_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.parquet", ["cat", "lynx", "lynx"])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("longtail.data.sources.stream.writing", refuse)
        assert load_source(f"stream:{tmp_path}").counts().counts == (1, 2)
    assert not (tmp_path / INDEX_FILE).exists()
    monkeypatch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted again"))
    assert load_source(f"stream:{tmp_path}").counts().counts == (1, 2)


def test_the_cache_lists_a_stream_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        write(tmp_path / "shards" / f"{name}-0.parquet", ["cat", "lynx"] * 3)
    (tmp_path / "shards" / INDEX_FILE).mkdir()  # so that it cannot be written there
    train_of("stream:shards").hold_out({"validation": 0.25}, seed=0)
    entries = cache_entries()
    assert {entry.contents.kind for entry in entries} == {"index", "table"}
    assert {entry.contents.source for entry in entries} == {str(tmp_path / "shards")} == {source_name("stream:shards")}


def test_the_index_of_changed_shards_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", ["cat", "lynx", "lynx"])
    load_source(f"stream:{tmp_path}")
    values = json.loads((tmp_path / INDEX_FILE).read_text())
    for shard in values["splits"]["train"]["shards"]:
        del shard["version"]  # as an earlier version wrote it
    values["splits"]["train"]["counts"] = [2, 1]
    (tmp_path / INDEX_FILE).write_text(json.dumps(values))
    assert load_source(f"stream:{tmp_path}").counts().counts == (1, 2)
    monkeypatch.setattr(ShardReader, "labels", lambda *_: pytest.fail("the images were counted again"))
    monkeypatch.setattr(stream, "cache_root", lambda: tmp_path / "another machine")
    assert load_source(f"stream:{tmp_path}").counts().counts == (1, 2)


def test_without_a_home_a_stream_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for place in ("longtail.data.sources.stream", "longtail.data.loading.cache_folder"):
        monkeypatch.setattr(f"{place}.cache_root", nowhere)
    write(tmp_path / "a.parquet", ["cat", "lynx", "lynx"])
    assert load_source(f"stream:{tmp_path}").counts().counts == (1, 2)


def test_hidden_files_are_no_shards(tmp_path: Path) -> None:
    """macOS writes one next to each file of a foreign disk."""
    write(tmp_path / "a.parquet", ["cat", "lynx", "lynx"])
    (tmp_path / "._a.parquet").write_bytes(b"Mac OS X")
    for pattern in (tmp_path, tmp_path / "*.parquet"):
        assert load_source(f"stream:{pattern}").counts().counts == (1, 2)


@pytest.mark.parametrize("labels", [[["cat", "lynx"], ["cat"], []], [0.5, 1.0, 2.0]], ids=["lists", "fractions"])
def test_a_column_that_holds_no_class_names(tmp_path: Path, labels: list[object]) -> None:
    write(tmp_path / "a.parquet", labels)
    with pytest.raises(LongtailError, match="class names"):
        load_source(f"stream:{tmp_path}")


def test_a_remote_folder_of_archives(store: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe({"/birds/train-0.tar": tar(["wren", "owl", "owl"]), "/birds/train-1.tar": tar(["owl"], first=3)})
    system.pipe("/birds/test-0.tar", tar([{"label": "wren"}, {"label": "owl"}], first=4))
    with pytest.raises(LongtailError, match="label"):
        load_source(f"stream:{store}/test-*.tar")  # within the JSON of a sample
    system.pipe("/birds/test-0.tar", tar(["wren", "owl"], first=4))
    data = load_source(f"stream:{store}/*.tar", label_column="txt")
    assert data.classes == ("owl", "wren")
    assert data.counts().counts == (3, 1)
    assert system.exists(f"/birds/{INDEX_FILE}")
    images = list(data.splits["train"].reader.images(0, first=1))  # type: ignore[attr-defined]
    assert [(image.row, image.label) for image in images] == [(1, 0), (2, 0)]
    assert data.splits["test"].labels.tolist() == [1, 0]
    assert data.splits["test"].image(1).getpixel((0, 0)) == (5, 0, 250)


def test_files_tell_their_split_by_name(tmp_path: Path) -> None:
    for name in ("train-0", "val-0", "holdout"):
        write(tmp_path / f"{name}.parquet", ["cat", "lynx"])
    data = load_source(f"stream:{tmp_path}")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "validation": 2}
    assert any("holdout" in str(finding) for finding in data.findings)


def test_a_part_is_held_out_of_every_class_by_hash(tmp_path: Path) -> None:
    train = train_of(f"stream:{write_stream(tmp_path / 'shards', test=False)}")
    rest, splits = train.hold_out({"test": 0.25}, seed=0)
    held = splits["test"]
    assert np.bincount(held.labels).tolist() == [16, 10, 6, 3, 1]
    assert rest.shards.counts == (48, 30, 19, 9, 4)
    assert len(rest) == sum(shard.images for shard in rest.shards.shards) == 110
    streamed = [image for number in range(len(rest.shards.shards)) for image in rest.reader.images(number)]
    assert len(streamed) == 110
    assert not {image.name for image in streamed} & set(held.places())
    again, same = train.hold_out({"test": 0.25}, seed=0)
    assert same["test"].fingerprint() == held.fingerprint()
    assert again.fingerprint() == rest.fingerprint()
    rest_of_rest, more = rest.hold_out({"validation": 0.1}, seed=0)
    assert not set(more["validation"].places()) & set(held.places())
    assert len(rest_of_rest) + len(more["validation"]) == 110
    at_once, both = train.hold_out({"test": 0.25, "validation": 0.1}, seed=0)
    assert at_once.fingerprint() == rest_of_rest.fingerprint()
    assert [sorted(split.places()) for split in both.values()] == [
        sorted(held.places()),
        sorted(more["validation"].places()),
    ]
    assert train.hold_out({"test": 0.25}, seed=1)[1]["test"].fingerprint() != held.fingerprint()


def test_archives_are_read_once_for_their_labels_and_once_for_all_images_that_are_held_out(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an archive, labels cannot be read without its images."""
    examples, read = ShardReader._examples, list[int]()

    def recorded(reader: ShardReader, columns: Sequence[str], shard: int, first: int) -> Iterator[dict[str, Any]]:
        for example in examples(reader, columns, shard, first):
            read.append(shard)
            yield example

    monkeypatch.setattr(ShardReader, "_examples", recorded)
    system = fsspec.filesystem("memory")
    system.pipe({"/birds/a.tar": tar([0, 1] * 8), "/birds/b.tar": tar([0, 0, 1] * 5, first=16)})
    config = DataConfig(source=f"stream:{store}", test_fraction=0.25, validation_fraction=0.1)
    first = prepare_data(config)
    assert len(read) == 2 * 31
    assert prepare_data(config).data_hash == first.data_hash
    assert len(read) == 2 * 31
    assert [len(first.data.splits[name]) for name in ("train", "validation", "test")] == [21, 2, 8]
    prepare_data(replace(config, split_seed=1))
    assert len(read) == 3 * 31, "labels are kept, whatever the seed"


@pytest.mark.parametrize("tells_versions", [True, False])
def test_corrected_labels_are_counted_though_the_files_keep_their_sizes(
    store: str, monkeypatch: pytest.MonkeyPatch, tells_versions: bool
) -> None:
    """In a store that tells no versions, once the index is deleted."""
    system = fsspec.filesystem("memory")
    if not tells_versions:
        monkeypatch.setattr("longtail.data.shard_reader._version", lambda _: "")
    for labels in ([0, 0, 0, 1], [0, 0, 1, 1]):
        system.pipe({"/birds/train-0.tar": tar(labels), "/birds/test-0.tar": tar(labels[2:])})
        data = load_source(f"stream:{store}")
        train = data.splits["train"]
        assert isinstance(train, StreamedSplit)
        assert train.shards.counts == (labels.count(0), labels.count(1))
        assert data.splits["test"].labels.tolist() == labels[2:]
        rest, held = train.hold_out({"validation": 0.5}, seed=0)
        streamed = [image.label for image in rest.reader.images(0)]
        assert sorted(held["validation"].labels.tolist() + streamed) == labels
        assert np.bincount(streamed).tolist() == list(rest.shards.counts)
        if not tells_versions:
            system.rm(f"/birds/{INDEX_FILE}")


def test_one_process_counts_and_the_others_wait_for_it(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, counted, count = fsspec.filesystem("memory"), list[str](), stream._count

    def recorded(source: str, folder: ShardFolder, label: str, reader: object) -> ShardIndex:
        counted.append(label)
        time.sleep(0.3)
        return count(source, folder, label, reader)

    monkeypatch.setattr(stream, "_count", recorded)
    system.pipe("/birds/a.tar", tar([0, 1] * 8))
    with ThreadPoolExecutor(2) as pool:
        assert [data.counts().counts for data in pool.map(load_source, [f"stream:{store}"] * 2)] == [(8, 8)] * 2
    assert len(counted) == 1


def test_no_more_is_held_out_than_fits_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = train_of(f"stream:{write_stream(tmp_path / 'shards', test=False)}")
    monkeypatch.setattr("longtail.data.sources.stream.MOST_HELD_OUT", 20)
    assert 15 <= len(train.hold_out({"test": 0.5}, seed=0)[1]["test"]) <= 25
    with pytest.raises(LongtailError, match="test_fraction"):
        train.hold_out({"test": 0.001}, seed=0)


def test_what_needs_a_list_of_the_images_is_refused(tmp_path: Path) -> None:
    train: Split = train_of(f"stream:{write_stream(tmp_path / 'shards')}")
    for work in (
        lambda: train.labels,
        lambda: train.select([0]),
        lambda: train.column("label"),
        train.files,
        train.places,
        lambda: unit_numbers(train, None),
        lambda: cut_long_tailed(train, 5, 10),
        lambda: train.image(0),
        lambda: train.require("camera"),
    ):
        with pytest.raises(LongtailError, match="streamed"):
            work()


def test_a_sample_is_of_several_shards(tmp_path: Path) -> None:
    train = train_of(f"stream:{write_stream(tmp_path / 'shards')}")
    sample = train.sample(32)
    assert 24 <= len(sample) <= 32
    assert {0, 1, 2} <= set(sample.labels.tolist())
    assert sample.image(0).size == (8, 8)


@pytest.mark.parametrize(("files", "word"), [((), "matches no"), (("a.tar", "b.parquet"), "tar files")])
def test_a_folder_without_shards_of_one_kind_is_refused(tmp_path: Path, files: tuple[str, ...], word: str) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(LongtailError, match=word):
        load_source(f"stream:{tmp_path}")


@pytest.mark.parametrize("source", ["stream:/absent/*.tar", "stream:nowhere://bucket/*.tar", "stream:"])
def test_a_place_that_is_not_there(source: str) -> None:
    with pytest.raises(LongtailError):
        load_source(source)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    shards = write_stream(tmp_path / "shards")
    file = sorted(shards.glob("train-b0-*"))[1]
    file.write_bytes(b"\0" * file.stat().st_size)
    train = train_of(f"stream:{shards}")
    with pytest.raises(LongtailError, match=file.name):
        list(train.reader.images(1))


def test_a_remote_shard_that_fails_is_read_on_and_a_truncated_one_is_named(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.remote._WAIT", 0.0)
    system = fsspec.filesystem("memory")
    system.pipe({"/birds/a.tar": tar([0, 1, 1, 0, 0, 1]), "/birds/b.tar": tar([1, 0, 1], first=6)})
    train = train_of(f"stream:{store}")
    whole = [[*train.reader.images(0)], [*train.reader.images(1)]]
    iterate, tries = datasets.IterableDataset.__iter__, list[int]()

    def failing(stream: datasets.IterableDataset) -> Iterator[dict[str, object]]:
        tries.append(len(tries))
        for number, example in enumerate(iterate(stream)):
            if number == 1:
                raise ConnectionError("the store is away")
            yield example

    with monkeypatch.context() as patch:
        patch.setattr(datasets.IterableDataset, "__iter__", failing)
        assert [[*train.reader.images(0)], [*train.reader.images(1)]] == whole
    assert len(tries) == 9, "as often as there are images"
    system.pipe("/birds/b.tar", tar([1, 0, 1], first=6)[:3000])
    with pytest.raises(LongtailError, match=r"b\.tar"):
        list(train.reader.images(1))


@pytest.mark.parametrize(
    ("error", "failures", "words"),
    [
        (OSError("503 Slow Down"), TRIES - 1, None),
        (FileNotFoundError("Unable to find it"), TRIES - 1, None),
        (OSError("503 Slow Down"), TRIES, r"cannot be opened \(503 Slow Down\): try again later"),
        (ValueError("no magic bytes"), TRIES, "fetch or write it again"),
    ],
)
def test_remote_shards_are_opened_again(
    error: Exception, failures: int, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.remote._WAIT", 0.0)
    answers = iter([error] * failures)

    def load(*_: object, **__: object) -> SimpleNamespace:
        if failure := next(answers, None):
            raise failure
        return SimpleNamespace(num_shards=1)

    monkeypatch.setattr("datasets.load_dataset", load)
    if words is None:
        assert open_shard("parquet", "memory://a.parquet").num_shards == 1
        return
    with pytest.raises(LongtailError, match=words):
        open_shard("parquet", "memory://a.parquet")


def test_an_image_without_a_label_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["cat", None, "lynx"])
    with pytest.raises(LongtailError, match="row 1"):
        load_source(f"stream:{tmp_path}")


def test_classes_keep_the_order_that_shards_state(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [1, 0, 0], datasets.ClassLabel(names=["lynx", "cat", "ape"]))
    data = load_source(f"stream:{tmp_path}")
    assert data.classes == ("lynx", "cat", "ape")
    assert data.counts().counts == (2, 1, 0)


def test_a_pattern_is_made_absolute_and_a_url_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_source("stream:shards/*.tar") == f"stream:{tmp_path}/shards/*.tar"
    assert absolute_source("stream:s3://bucket/*.tar") == "stream:s3://bucket/*.tar"
