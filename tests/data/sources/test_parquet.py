"""Parquet sources, made by hand and real."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_images import PIXELS, write

from longtail.data.dataset import Split
from longtail.data.sources.registry import load_source
from longtail.data.subsets import cut_long_tailed
from longtail.errors import LongtailError

pytestmark = pytest.mark.usefixtures("hf_cache")


def test_class_label_names_and_empty_classes_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [2, 0, 0], datasets.ClassLabel(names=["cat", "lynx", "ape"]))
    data = load_source(f"parquet:{tmp_path}")
    assert data.classes == ("cat", "lynx", "ape")
    assert data.counts().counts == (2, 0, 1)
    assert np.array_equal(np.asarray(data.splits["train"].image(2)), PIXELS[2])


def test_splits_map_labels_by_name_not_number(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1], datasets.ClassLabel(names=["cat", "dog"]))
    write(tmp_path / "test.parquet", [0, 1, 2], datasets.ClassLabel(names=["dog", "cat", "emu"]))
    data = load_source(str(tmp_path))  # a bare path to a folder of Parquet files
    assert data.classes == ("cat", "dog", "emu")
    assert data.splits["test"].labels.tolist() == [1, 0, 2]
    assert data.counts().counts == (1, 1, 0)
    assert any("'emu'" in str(finding) for finding in data.findings)


def test_shards_in_a_data_folder(tmp_path: Path) -> None:
    for shard in range(2):
        write(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", ["a", "b"])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", ["b"])
    data = load_source(f"parquet:{tmp_path}")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "validation": 1}


def test_one_file_is_all_training(tmp_path: Path) -> None:
    write(tmp_path / "birds.parquet", ["b", "a", "b"])
    data = load_source(str(tmp_path / "birds.parquet"))
    assert (data.classes, data.splits["train"].labels.tolist()) == (("a", "b"), [1, 0, 1])


def test_integer_labels_name_themselves_over_all_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [10, 2, 0])
    write(tmp_path / "test.parquet", [1, 10])
    data = load_source(f"parquet:{tmp_path}")
    assert data.classes == ("0", "1", "2", "10")
    assert data.splits["test"].labels.tolist() == [1, 3]


def test_an_unlabeled_test_split_is_left_out(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["a", "b"])
    write(tmp_path / "train.parquet", [0, 1], names)
    write(tmp_path / "test.parquet", [-1, -1], names)
    data = load_source(f"parquet:{tmp_path}")
    assert list(data.splits) == ["train"]
    assert any("no labels" in str(finding) for finding in data.findings)


def test_a_missing_training_label_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["a", None, "b"])
    with pytest.raises(LongtailError, match=r"train row 1.*label"):
        load_source(f"parquet:{tmp_path}")


def test_columns_of_the_wrong_kind(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0.5, 1.5])
    with pytest.raises(LongtailError, match="class names"):
        load_source(f"parquet:{tmp_path}")
    pq.write_table(pa.table({"image": [1, 2], "label": ["a", "b"]}), tmp_path / "train.parquet")
    with pytest.raises(LongtailError, match="bytes or paths"):
        load_source(f"parquet:{tmp_path}")


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    pixels = Split.from_arrays(PIXELS[:2], [0, 1]).rows
    pixels.to_parquet(tmp_path / "train.parquet")
    schema = pq.read_schema(tmp_path / "train.parquet")
    meta = schema.metadata[b"huggingface"].decode()
    old = '"label": {"dtype": "int64", "_type": "Value"}'
    assert old in meta
    meta = meta.replace(old, '"label": {"names": ["cat", "cat"], "_type": "ClassLabel"}')
    table = pq.read_table(tmp_path / "train.parquet").replace_schema_metadata({b"huggingface": meta.encode()})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(LongtailError, match=r"train\.parquet.*duplicated"):
        load_source(f"parquet:{tmp_path}")


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", ["a", "b"])
    write(tmp_path / "train-1.parquet", ["a", "b"], label="species")
    with pytest.raises(LongtailError, match=r"train-0\.parquet, train-1\.parquet"):
        load_source(f"parquet:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"path,label\n"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(LongtailError, match=r"train\.parquet.*Parquet"):
        load_source(f"parquet:{tmp_path}")


def test_missing_empty_and_unnamed(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="not exist"):
        load_source(f"parquet:{tmp_path / 'none'}")
    with pytest.raises(LongtailError, match=r"train\.parquet"):
        load_source(f"parquet:{tmp_path}")
    write(tmp_path / "test.parquet", ["a", "b"])
    with pytest.raises(LongtailError, match="named train"):
        load_source(f"parquet:{tmp_path}")


def test_tables_without_rows(tmp_path: Path) -> None:
    empty = pa.table({"path": pa.array([], pa.string()), "label": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "train.parquet")
    with pytest.raises(LongtailError, match="no images"):
        load_source(f"parquet:{tmp_path}")
    write(tmp_path / "train.parquet", ["a", "b"])
    pq.write_table(empty, tmp_path / "test.parquet")
    assert list(load_source(f"parquet:{tmp_path}").splits) == ["train"]


def test_cifar100_cut_further_has_the_standard_counts(shared_data: Path) -> None:
    data = load_source(f"parquet:{shared_data / 'cifar100-lt-ir10'}")
    assert (len(data.classes), data.classes[0], len(data.splits["test"])) == (100, "apple", 10_000)
    for ratio, total, smallest in [(10, 19573, 50), (50, 12608, 10), (100, 10847, 5), (200, 9502, 2)]:
        subset = cut_long_tailed(data.splits["train"], data.classes, ratio, seed=0)
        counts = data.with_splits(train=subset).counts()
        assert (counts.total, counts[0], counts[99]) == (total, 500, smallest)


def test_cifar10_and_the_fish_read(shared_data: Path) -> None:
    cifar = load_source(f"parquet:{shared_data / 'cifar10-lt-ir10'}")
    assert len(cut_long_tailed(cifar.splits["train"], 10, 100)) == 12_406
    fish = load_source(str(shared_data / "fish4knowledge"))
    assert (len(fish.classes), round(fish.counts().imbalance_ratio)) == (23, 177)
    assert fish.splits["train"].image(0).mode == "RGB"


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2], datasets.ClassLabel(names=["a", "b", "c"]))
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([0, 1, 7])), tmp_path / "train.parquet")
    with pytest.raises(LongtailError, match=r"train row 2.*7.*0 to 2"):
        load_source(f"parquet:{tmp_path}")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_an_image_column_of_text_is_taken_for_paths(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"image": pa.array(["x.png", "no image"]).cast(kind), "label": ["a", "b"]})
    pq.write_table(table, tmp_path / "train.parquet")
    split = load_source(f"parquet:{tmp_path}").splits["train"]
    assert split.path(0) == str(tmp_path / "x.png")
    with pytest.raises(LongtailError, match=r"no image' .*exist"):
        split.image(1)


def test_where_no_cache_can_be_written_the_cache_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/home/someone")

    write(tmp_path / "train.parquet", [0, 1], datasets.ClassLabel(names=["cat", "dog"]))
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(datasets.Dataset, "from_parquet", refuse)
    with pytest.raises(LongtailError, match=r"HF_HOME.*LONGTAIL_CACHE"):
        load_source(f"parquet:{tmp_path}")
