"""Tables of images: their columns, and the splits a table or a column of it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_images import PIXELS, write

from longtail.config.schema import DataConfig
from longtail.data.sources.registry import load_source
from longtail.data.sources.table_columns import Columns
from longtail.errors import LongtailError, UsageError
from longtail.training.prepared_data import prepare_data

pytestmark = pytest.mark.usefixtures("hf_cache")


def test_the_usual_column_comes_before_an_unusual_one() -> None:
    assert Columns().find("label", ["y", "species", "Label"], "x") == "Label"
    with pytest.raises(LongtailError, match="label_column"):
        Columns().find("label", ["image"], "x")


@pytest.mark.parametrize("option", ["image_column", "label_column", "split_column"])
def test_a_source_without_columns_refuses_their_names(option: str) -> None:
    with pytest.raises(UsageError, match=option) as caught:
        load_source("digits", **{option: "x"})
    assert f"--{option.replace('_', '-')}" in caught.value.for_command_line()


def test_columns_by_habit_and_by_option(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["a", "b"], image="img", label="fine_label")
    assert load_source(f"parquet:{tmp_path}").classes == ("a", "b")
    write(tmp_path / "other" / "train.parquet", ["a", "b"], image="scan", label="taxon")
    data = load_source(f"parquet:{tmp_path / 'other'}", image_column="scan", label_column="taxon")
    assert data.classes == ("a", "b")
    with pytest.raises(LongtailError, match=r"\(scan, taxon\)"):
        load_source(f"parquet:{tmp_path / 'other'}")


def test_a_column_named_label_beside_the_chosen_one_survives(tmp_path: Path) -> None:
    table = pa.table({"path": ["x.png", "y.png"], "label": ["p", "q"], "genus": ["b", "a"]})
    pq.write_table(table, tmp_path / "train.parquet")
    split = load_source(f"parquet:{tmp_path}", label_column="genus").splits["train"]
    assert split.labels.tolist() == [1, 0]
    assert split.column("label") == split.column("label_") == ["p", "q"]
    assert split.path(0) == str(tmp_path / "x.png")


def test_paths_that_windows_wrote_into_a_table_find_their_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    pq.write_table(pa.table({"path": ["a\\x.png", "a\\y.png"], "label": ["p", "q"]}), tmp_path / "train.parquet")
    split = load_source(f"parquet:{tmp_path}").splits["train"]
    assert [split.path(row) for row in (0, 1)] == [f"{tmp_path}/a/x.png", f"{tmp_path}/a\\y.png"]


@pytest.mark.parametrize("column", ["image", "label"])
def test_images_are_grouped_by_the_users_own_columns_image_and_label(tmp_path: Path, column: str) -> None:
    lines = [f"{number}.png,photo {number // 4},{'cat' if number % 2 else 'dog'}" for number in range(40)]
    for number in range(40):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "crops.csv").write_text("\n".join([f"crop,{column},species", *lines]))
    source = f"csv:{tmp_path / 'crops.csv'}"
    config = DataConfig(source=source, image_column="crop", label_column="species", group_column=column)
    splits = prepare_data(replace(config, validation_fraction=0.2)).data.splits
    photos = [set(split.column(column)) for split in splits.values()]
    assert len(set.union(*photos)) == sum(map(len, photos)) == 10


@pytest.mark.parametrize("column", ["image", "label"])
def test_the_columns_of_images_and_classes_are_no_groups(tmp_path: Path, column: str) -> None:
    write(tmp_path / "train.parquet", ["a", "b"])
    with pytest.raises(LongtailError, match="besides"):
        load_source(f"parquet:{tmp_path}").splits["train"].require(column)


def test_labels_are_named_as_in_any_other_source(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [" cat", "Cafe\u0301", "Caf\u00e9", "cat\u00a0"])
    assert load_source(f"parquet:{tmp_path}").classes == ("Caf\u00e9", "cat")
    write(tmp_path / "train.parquet", [0, 1, 2], datasets.ClassLabel(names=["dog ", "cat", "dog"]))
    data = load_source(f"parquet:{tmp_path}")
    assert (data.classes, data.splits["train"].labels.tolist()) == (("dog", "cat"), [0, 1, 0])
    assert [finding.kind for finding in data.findings] == ["class-spellings"]
    write(tmp_path / "train.parquet", [10.0, 9.0])
    assert load_source(f"parquet:{tmp_path}").classes == ("9", "10")
    write(tmp_path / "train.parquet", [True, False])
    assert load_source(f"parquet:{tmp_path}").classes == ("False", "True")


def test_a_column_divides_a_single_table(tmp_path: Path) -> None:
    write(tmp_path / "all.parquet", ["a", "b", "a", "b"])
    table = pq.read_table(tmp_path / "all.parquet").append_column("part", [["test", "train", "train", "test"]])
    pq.write_table(table, tmp_path / "all.parquet")
    data = load_source(f"parquet:{tmp_path / 'all.parquet'}")
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {"train": [1, 0], "test": [0, 1]}
    assert data.splits["test"].path(1) == "row 3"
    assert np.array_equal(np.asarray(data.splits["train"].image(1)), PIXELS[2])
    assert "part" not in data.splits["train"].rows.column_names


def test_several_tables_are_divided_by_a_column_only_if_it_is_named(tmp_path: Path) -> None:
    for name, places in (("train", ["train", "test"]), ("test", ["test", "train"])):
        write(tmp_path / f"{name}.parquet", ["a", "b"])
        table = pq.read_table(tmp_path / f"{name}.parquet").append_column("split", [places])
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert load_source(f"parquet:{tmp_path}").splits["train"].labels.tolist() == [0, 1]
    data = load_source(f"parquet:{tmp_path}", split_column="split")
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {"train": [1, 0], "test": [0, 1]}
    with pytest.raises(LongtailError, match=r"all row 0: .*'a' .*'b'"):
        load_source(f"parquet:{tmp_path}", split_column="label")


def test_tables_that_are_left_out_are_named(tmp_path: Path) -> None:
    for name in ("train", "extra", "._train"):
        write(tmp_path / f"{name}.parquet", ["a", "b"])
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), tmp_path / "test.parquet")
    findings = load_source(f"parquet:{tmp_path}").findings
    assert [(finding.kind, "extra.parquet" in finding.message) for finding in findings] == [
        ("split-empty", False),
        ("table-without-split", True),
    ]


def test_one_column_cannot_be_image_and_label(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["a", "b"])
    with pytest.raises(LongtailError, match="image and label"):
        load_source(f"parquet:{tmp_path}", image_column="image", label_column="image")
