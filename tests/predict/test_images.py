"""Listing: the same files as the standard library finds, in order, each real folder once, and in bounded memory."""

from __future__ import annotations

import glob
import itertools
import os
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from longtail.data.decode import decode
from longtail.errors import UnreadableImageError
from longtail.predict import images
from longtail.predict.images import LeftOut, files_like, find_images, images_below


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [
        "b.png",
        "a.JPG",
        "deep/c.png",
        "deep/er/d.webp",
        "e.png",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
        "deep/.h/y.png",
        "a b\nc.png",
        "märz/山.png",
    ]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path / "images"


def names(items: object) -> list[str]:
    return [Path(image.name).name for image in items]  # type: ignore[attr-defined]


def test_a_folder_is_listed_in_order_without_what_is_hidden(folder: Path) -> None:
    assert names(images_below(str(folder), LeftOut())) == [
        "a b\nc.png",
        "a.JPG",
        "b.png",
        "c.png",
        "d.webp",
        "e.png",
        "山.png",
    ]


def test_folders_that_a_system_adds_are_left_out_and_counted(folder: Path) -> None:
    before, after = LeftOut(), LeftOut()
    expected = names(images_below(str(folder), before))
    for system in ("__MACOSX", "deep/@eaDir"):
        (folder / system).mkdir()
        (folder / system / "thumb.png").touch()
    assert names(images_below(str(folder), after)) == expected
    assert after.hidden == before.hidden + 2


@pytest.mark.parametrize(
    "pattern",
    ["*.png", "**/*.png", "**", "deep/*.png", "*/*.png", "d*/**/*.webp", "[ab].*", ".*.png", "**/c.png", "*/er/*"],
)
def test_patterns_mean_what_they_mean_to_glob(pattern: str, folder: Path) -> None:
    whole = str(folder / pattern)
    expected = {path for path in glob.glob(whole, recursive=True) if Path(path).is_file()}  # noqa: PTH207
    paths = [image.name for image in files_like(whole, LeftOut())]
    assert expected
    assert set(paths) == expected
    assert len(paths) == len(expected)


def test_a_relative_pattern_stays_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [image.name for image in files_like("*.png", LeftOut())] == ["a b\nc.png", "b.png", "e.png"]


def test_links_that_lead_back_up_end_and_links_elsewhere_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "far.png").touch()
    for name in ("one", "two"):
        (folder / name).symlink_to(tmp_path / "out", target_is_directory=True)
    assert sorted(names(images_below(str(folder), LeftOut()))).count("far.png") == 1
    assert len(names(images_below(str(folder), LeftOut()))) == 8


def test_a_pipe_is_not_waited_for_and_a_dead_link_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
    assert names(images_below(str(tmp_path), LeftOut())) == ["dead.png"]


def test_a_link_that_cannot_be_followed_costs_no_other_image(tmp_path: Path) -> None:
    for name in ("b", "ring.png"):
        (tmp_path / name).symlink_to(tmp_path / name)
    for name in ("far.png", "photos.2024", ".snapshot"):
        (tmp_path / name).symlink_to("x" * 300)  # longer than a name may be
    for name in ("a.png", "c.png", "z.png"):
        (tmp_path / name).touch()
    (tmp_path / "below.txt").symlink_to(tmp_path / "a.png" / "below")  # a file leads nowhere
    left_out = LeftOut()
    items = list(images_below(str(tmp_path), left_out))
    assert (left_out.hidden, sum(left_out.others.values())) == (1, 2)
    assert names(items) == ["a.png", "c.png", "far.png", "photos.2024", "ring.png", "z.png"]
    assert [item.name for item in items if item.is_folder] == [str(tmp_path / "photos.2024")]
    assert [item.is_folder for item in files_like(f"{tmp_path}/*.2024", LeftOut())] == [False]


def test_a_folder_that_vanishes_while_it_is_listed_is_a_problem(folder: Path) -> None:
    items = images_below(str(folder), LeftOut())
    first = [next(items).name for _ in range(3)]
    for path in ("deep/er/d.webp", "deep/c.png", "deep/.h/y.png", "deep/er", "deep/.h", "deep"):
        (folder / path).rmdir() if (folder / path).is_dir() else (folder / path).unlink()
    rest = list(items)
    assert len(first) == 3
    assert [image.problem != "" for image in rest] == [True, False, False]
    assert "listed" in rest[0].problem


def test_large_folders_are_sorted_in_portions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {image.name for image in images_below(str(folder), LeftOut())}
    monkeypatch.setattr(images, "SORTED_AT_ONCE", 2)
    assert {image.name for image in images_below(str(folder), LeftOut())} == whole


class FakeEntry:
    def __init__(self, number: int) -> None:
        self.name = f"{number:09}.png"

    def is_dir(self) -> bool:
        return False

    def is_file(self) -> bool:
        return True


class FakeListing(itertools.count):  # type: ignore[type-arg]
    def __enter__(self) -> object:
        return (FakeEntry(number) for number in itertools.islice(self, 20_000))

    def __exit__(self, *_: object) -> None:
        pass


def test_memory_does_not_grow_with_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.os, "scandir", lambda _: FakeListing())
    monkeypatch.setattr(images, "SORTED_AT_ONCE", 100)
    peaks = []
    for _ in range(2):  # Python's table of interned strings may grow during one of them
        tracemalloc.start()
        assert sum(1 for _ in images_below(str(tmp_path), LeftOut())) == 20_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks) < 500_000  # the names alone would be 1.4 MB


def test_a_table_of_another_system_names_files_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("0.png", "Cafe\u0301.png"):
        (tmp_path / "a" / name).touch()
    (tmp_path / "list.csv").write_text("sep=;\npath;kind\na\\0.png;x\na/Caf\u00e9.png;y\na/gone.png;z\n")
    items = [*find_images(tmp_path / "list.csv").items(LeftOut())]
    assert [item.name for item in items] == ["a\\0.png", "a/Caf\u00e9.png", "a/gone.png"]
    assert [item.source for item in items] == [
        f"{tmp_path}/a/0.png",
        f"{tmp_path}/a/Cafe\u0301.png",
        f"{tmp_path}/a/gone.png",
    ]


def test_a_name_that_is_too_long_is_one_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path\n{300 * 'é'}.png\n")
    (item,) = find_images(tmp_path / "list.csv").items(LeftOut())
    with pytest.raises(UnreadableImageError):
        decode(item.source)


def test_file_folder_and_pattern(folder: Path, tmp_path: Path) -> None:
    def paths(images: Path | str) -> list[str]:
        return [item.name for item in find_images(images).items(LeftOut())]

    assert paths(folder / "b.png") == [str(folder / "b.png")]
    assert paths(folder / "notes.txt") == [str(folder / "notes.txt")]  # named outright, so it is tried
    assert len(paths(folder)) == 7
    assert [Path(path).name for path in paths(f"{folder}/[be].png")] == ["b.png", "e.png"]
    bracket = tmp_path / "shot [1].png"
    Image.new("RGB", (4, 4)).save(bracket)
    assert paths(bracket) == [str(bracket)]  # a name first, then a pattern
