"""Split and ImageData: what they show, and what their fingerprint does and does not depend on."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtail.data import image_hashes
from longtail.data.dataset import ImageData, Split
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError, UnreadableImageError

PIXELS = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)


def small(labels: tuple[int, ...] = (0, 1, 1, 2)) -> Split:
    return Split.from_arrays(PIXELS, list(labels), {"film": ["a", "a", "b", "b"]})


def test_pixels_come_back_as_given() -> None:
    assert np.array_equal(np.asarray(small().image(2)), PIXELS[2])


def test_select_keeps_order_names_and_columns() -> None:
    chosen = small().select([3, 1]).select([1, 0])
    assert chosen.labels.tolist() == [1, 2]
    assert [chosen.path(0), chosen.path(1)] == ["row 1", "row 3"]
    assert chosen.column("film") == ["a", "b"]
    assert np.array_equal(np.asarray(chosen.image(1)), PIXELS[3])


def test_labels_of_a_selection_are_those_of_its_rows() -> None:
    split = small()
    assert split.labels.tolist() == [0, 1, 1, 2]
    part = split.select([3, 0])
    assert part.labels.tolist() == [2, 0] == part.column("label")
    with pytest.raises(ValueError, match="read-only"):
        part.labels[0] = 1


def test_select_of_nothing_is_empty() -> None:
    assert len(small().select([])) == 0
    assert small().select([]).labels.dtype == np.int64


def test_labels_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        small().labels[0] = 5


def test_a_wrong_column_gets_the_nearest() -> None:
    with pytest.raises(LongtailError, match="mean 'film'"):
        small().column("flim")


def test_fingerprint_depends_on_labels_pixels_and_order_alone() -> None:
    same = Split.from_arrays(PIXELS, [0, 1, 1, 2])
    changed = PIXELS.copy()
    changed[0, 0, 0, 0] += 1
    assert small().fingerprint() == same.fingerprint()
    assert small().fingerprint().startswith("sha256:")
    others = [
        small((0, 1, 2, 2)),
        Split.from_arrays(changed, [0, 1, 1, 2]),
        small().select([1, 0, 2, 3]),
        small().select([0, 1, 2]),
    ]
    assert len({split.fingerprint() for split in [same, *others]}) == 5


def test_fingerprint_of_a_selection_is_that_of_the_same_rows() -> None:
    assert small().select([3, 0]).fingerprint() == Split.from_arrays(PIXELS[[3, 0]], [2, 0]).fingerprint()


def test_fingerprint_of_files_survives_a_move_and_sees_a_change(
    make_folder: Callable[[dict[str, int]], Path], tmp_path: Path
) -> None:
    root = make_folder({"cat": 2, "dog": 1})
    before = load_source(str(root)).splits["train"]
    shutil.copytree(root, tmp_path / "elsewhere")
    was = before.fingerprint()
    assert load_source(str(tmp_path / "elsewhere")).splits["train"].fingerprint() == was
    Image.new("RGB", (64, 64)).save(root / "cat" / "1.png")
    assert load_source(str(root)).splits["train"].fingerprint() != was
    (root / "cat" / "0.png").unlink()
    with pytest.raises(LongtailError, match=r"0\.png'"):
        before.fingerprint()


@pytest.mark.parametrize("work", [Split.fingerprint, image_hashes.image_hashes])
@pytest.mark.parametrize(("number", "is_damage"), [(errno.ESTALE, False), (errno.ENOENT, True)])
def test_a_file_that_the_machine_fails_to_read_is_not_damaged(
    work: Callable[[Split], object],
    number: int,
    is_damage: bool,
    make_folder: Callable[[dict[str, int]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = load_source(str(make_folder({"cat": 2, "dog": 1}))).splits["train"]
    (bad,) = [path for path, _ in split.select([1]).stored_paths()]

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Any, *words: Any, **options: Any) -> Any:
            if path == bad:
                raise OSError(number, os.strerror(number))
            return function(path, *words, **options)

        return refuse

    monkeypatch.setattr(os, "stat", refusing(os.stat))
    monkeypatch.setattr(image_hashes, "open", refusing(open), raising=False)
    with pytest.raises(UnreadableImageError, match=r"1\.png") as caught:
        work(split)
    assert caught.value.is_damage is is_damage


def test_fingerprint_of_a_file_does_not_depend_on_the_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"an image")
    ways = ("cat/1.png", "./cat/1.png", "cat//1.png", "cat/../cat/1.png")
    splits = [Split.from_files([f"{tmp_path}/{way}"], [0], root=str(tmp_path)) for way in ways]
    assert len({split.fingerprint() for split in splits}) == 1
    below = Split.from_files([f"{tmp_path}/cat/1.png"], [0], root=f"{tmp_path}/cat")
    assert below.fingerprint() != splits[0].fingerprint()


def test_paths_of_a_selection_of_files_are_those_of_its_rows(tmp_path: Path) -> None:
    files = [f"{tmp_path}/{name}.png" for name in "abcd"]
    split = Split.from_files(files, [0, 1, 1, 0], root=str(tmp_path))
    part = split.select([3, 1]).select([1, 0])
    read = replace(part, paths=None)  # from the rows themselves
    for each in (part, read):
        assert [stored["path"] for _, stored in each.scan()] == [files[1], files[3]]
        assert [label for label, _ in each.scan()] == [1, 0]
        assert list(each.files()) == ["b.png", "d.png"]
        assert each.path(1) == files[3]


def test_a_split_travels_to_worker_processes() -> None:
    copy = pickle.loads(pickle.dumps(small().select([2])))
    assert copy.path(0) == "row 2"
    assert np.array_equal(np.asarray(copy.image(0)), PIXELS[2])


def test_counts_keep_absent_classes_and_names() -> None:
    data = ImageData("mine", ("a", "b", "c", "d"), {"train": small()})
    assert data.counts().counts == (1, 2, 1, 0)
    assert data.counts().names == ("a", "b", "c", "d")


def test_with_splits_adds_without_changing_the_original() -> None:
    data = ImageData("mine", ("a", "b", "c"), {"train": small()})
    both = data.with_splits(validation=small().select([0]))
    assert (list(data.splits), list(both.splits)) == (["train"], ["train", "validation"])


def test_a_row_without_an_image_is_named() -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": [None], "label": [0]}, features=features)
    with pytest.raises(LongtailError, match="row 0"):
        Split(rows).image(0)
