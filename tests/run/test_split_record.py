"""RUN/splits.csv: every image once, and the same splits made of it again."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longtail.config.schema import DataConfig
from longtail.data.dataset import ImageData, Split
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError
from longtail.run.split_record import find_splits, read_splits, write_splits
from longtail.training.prepared_data import prepare_data


@pytest.mark.parametrize("folds", [{}, {"folds": 3, "fold": 1}])
def test_images_within_a_table_are_found_by_their_rows(tmp_path: Path, folds: dict[str, int]) -> None:
    prepared = prepare_data(DataConfig(source="digits", imbalance_ratio=10, validation_fraction=0.2, **folds))
    write_splits(tmp_path, prepared.data.splits, prepared.source, prepared.origins)
    lines = Counter(row["split"] for row in csv.DictReader((tmp_path / "splits.csv").open(newline="")))
    sizes = {name: len(split) for name, split in prepared.data.splits.items()}
    assert lines == sizes | {"left out": 1797 - sum(sizes.values())}
    record = read_splits(tmp_path)
    assert record is not None
    restored = find_splits(load_source("digits"), record)
    assert (restored.missing, restored.emptied, restored.added) == ({}, (), 0)
    for name, split in prepared.data.splits.items():
        assert restored.splits[name].fingerprint() == split.fingerprint()


def test_files_are_found_by_their_paths_also_in_another_split_of_the_table(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    places = make_folder({"ant": 4, "bee": 4})
    rows = [
        (f"{places}/{name}/{number}.png", name, "train" if number else "test", number % 2)
        for name in ("ant", "bee")
        for number in range(4)
    ]

    def write(rows: list[tuple[str, str, str, int]]) -> None:
        lines = [f"{path},{name},{split},film-{film}" for path, name, split, film in rows]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,split,film", *lines]))

    write(rows)
    source = f"csv:{tmp_path / 't.csv'}"
    prepared = prepare_data(DataConfig(source=source, validation_fraction=0))
    write_splits(tmp_path, prepared.data.splits, prepared.source, prepared.origins, "film")
    groups = [row["group"] for row in csv.DictReader((tmp_path / "splits.csv").open(newline=""))]
    assert Counter(groups) == {"film-0": 4, "film-1": 4}
    record = read_splits(tmp_path)
    assert record is not None
    write([(rows[0][0], "ant", "train", 0), *rows[1:-1]])
    restored = find_splits(load_source(source), record)
    assert restored.missing == {"train": ("photos/bee/3.png",)}
    assert list(restored.splits["test"].files()) == ["photos/ant/0.png", "photos/bee/0.png"]
    assert restored.splits["test"].labels.tolist() == [0, 1]


def test_many_files_are_found_and_each_place_of_a_file_that_is_listed_again(tmp_path: Path) -> None:
    files = [f"{tmp_path}/{number:06}.png" for number in range(60_000)]  # so many that their pairs exceed 32 bits
    labels = np.arange(60_001) % 3
    train = Split.from_files([*files, files[7]], labels, root=str(tmp_path))
    data = ImageData("mine", ("a", "b", "c"), {"train": train})
    odd = np.arange(1, 60_001, 2)
    splits = {"train": train.select(np.append(odd[::-1], 60_000)), "test": train.select([4, 2])}
    write_splits(tmp_path, splits, data, {"train": "train", "test": "train"})
    record = read_splits(tmp_path)
    assert record is not None
    restored = find_splits(data, record)
    assert (restored.missing, restored.emptied, restored.added) == ({}, (), 0)
    for name, split in splits.items():
        assert restored.splits[name].origin_rows.tolist() == split.origin_rows.tolist()


def test_a_record_of_something_else_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("split,class,path,source_split,row\ntrain,ant,a.png,somewhere,0\n")
    with pytest.raises(LongtailError, match="damaged"):
        read_splits(tmp_path)
    assert read_splits(tmp_path / "none") is None
