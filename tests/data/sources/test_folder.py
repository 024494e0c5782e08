"""Folders of images as people have them, good and bad."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from longtail.data.dataset import Finding, ImageData
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError

MakeFolder = Callable[..., Path]


def test_class_folders_directly_below_are_training(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"dog": 2, "cat": 3})))
    assert data.classes == ("cat", "dog")
    assert list(data.splits) == ["train"]
    assert data.splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
    assert data.splits["train"].path(3).endswith(str(Path("dog", "0.png")))


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Val"])
def test_split_folders_are_recognized(make_folder: MakeFolder, word: str) -> None:
    root = make_folder({"train/a": 2, "train/b": 1, f"{word}/a": 1, "test/b": 2})
    data = load_source(f"folder:{root}")
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {
        "train": [0, 0, 1],
        "validation": [0],
        "test": [1, 1],
    }


def test_a_class_named_train_stays_a_class(make_folder: MakeFolder) -> None:
    assert load_source(str(make_folder({"bus": 1, "car": 1, "train": 2}))).classes == ("bus", "car", "train")


def test_an_empty_class_folder_is_kept_with_no_images(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"cat": 3, "lynx": 0, "dog": 1})))
    assert dict(zip(data.classes, data.counts(), strict=True)) == {"cat": 3, "dog": 1, "lynx": 0}


def test_a_class_only_in_test_is_kept_and_reported(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/zebra": 1})))
    assert data.counts().counts == (2, 2, 0)
    assert data.splits["test"].labels.tolist() == [0, 2]
    assert any("'zebra'" in finding.message and finding.severity == "warning" for finding in data.findings)


def test_images_may_lie_deeper_and_other_files_are_passed_over(make_folder: MakeFolder) -> None:
    root = make_folder({"cat/2023/may": 2, "cat": 1, "dog": 1, ".git/x": 1, "dog/.thumbs": 4})
    (root / "dog" / "notes.txt").write_text("a")
    (root / "dog" / ".hidden.png").write_text("a")
    assert load_source(str(root)).counts().counts == (3, 1)


def test_names_with_spaces_newlines_and_other_scripts(make_folder: MakeFolder) -> None:
    root = make_folder({"grosser Bär": 1, "猫": 1, "odd\nname": 1})
    data = load_source(str(root))
    assert set(data.classes) == {"grosser Bär", "猫", "odd\nname"}
    assert all(data.splits["train"].image(row).size == (6, 4) for row in range(3))
    assert data.splits["train"].fingerprint().startswith("sha256:")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux file systems hold names that are not UTF-8")
def test_a_name_that_is_not_utf8_is_named(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    Path(os.fsdecode(os.fsencode(root / "a") + b"/caf\xe9.png")).write_bytes(b"x")
    with pytest.raises(LongtailError, match=r"caf\\xe9.*rename"):
        load_source(str(root))


def test_links_are_followed_and_a_loop_ends(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (3, 3)).save(outside / "far.png")
    (root / "dog" / "link").symlink_to(outside)
    (root / "dog" / "loop").symlink_to(root / "dog")
    assert load_source(str(root)).counts().counts == (1, 2)


def test_loose_images_are_reported(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    Image.new("RGB", (3, 3)).save(root / "stray.jpg")
    assert any("class folders" in finding.message for finding in load_source(str(root)).findings)


def test_a_folder_beside_train_is_reported(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"train/a": 1, "train/b": 1, "old": 3})))
    assert len(data.splits["train"]) == 2
    assert any("old" in str(finding) for finding in data.findings)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({}, "sub-folders"),
        ({".": 3}, "3 images"),
        ({"a": 0, "b": 0}, "no images"),
        ({"a": 3}, "one class.* 'a'"),
        ({"train/a": 0, "train/b": 0, "test/a": 1}, "training images"),
        ({"test/a": 1, "test/b": 1}, "no train/"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, "both val/ and valid/"),
        ({"train": 2, "test": 1}, "test/, train/"),
        ({"train": 2, "test/a": 1}, "train/"),
        ({"photos/cat": 1, "photos/dog": 1}, "folder:.*/photos/photos"),
        ({"train/all/cat": 1, "train/all/dog": 1, "test/all/cat": 1}, "folder:.*/train/all"),
        ({"a": 1, "\u2003": 1}, "white space"),
    ],
)
def test_folders_that_cannot_be_trained_on(make_folder: MakeFolder, layout: dict[str, int], message: str) -> None:
    root = make_folder(layout or {"x": 0})
    if not layout:
        (root / "x").rmdir()
    with pytest.raises(LongtailError, match=message):
        load_source(f"folder:{root}")


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="not exist"):
        load_source(f"folder:{tmp_path / 'none'}")
    (tmp_path / "one.jpg").touch()
    with pytest.raises(LongtailError, match="a file"):
        load_source(str(tmp_path / "one.jpg"))


def test_column_options_mean_nothing_for_a_folder(make_folder: MakeFolder) -> None:
    with pytest.raises(LongtailError, match="label_column"):
        load_source(str(make_folder({"a": 1, "b": 1})), label_column="species")


def finding(data: ImageData, kind: str) -> Finding:
    (finding,) = [finding for finding in data.findings if finding.kind == kind]
    return finding


def test_a_class_named_like_a_split_is_said(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"cat": 2, "dog": 2, "test": 3})))
    assert data.classes == ("cat", "dog", "test")
    assert "test/" in finding(data, "class-or-split").message


@pytest.mark.parametrize("empty_folder", ["val", "val/a"])
def test_a_split_without_images_counts_as_none_and_is_called_empty(make_folder: MakeFolder, empty_folder: str) -> None:
    data = load_source(str(make_folder({"train/a": 2, "train/b": 2, empty_folder: 0})))
    assert list(data.splits) == ["train"]
    assert [finding.kind for finding in data.findings] == ["split-empty"]


def test_loose_images_in_a_split_folder_are_reported(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"train/a": 2, "train/b": 2, "val": 3})))
    assert list(data.splits) == ["train"]
    assert "val/" in finding(data, "image-without-class").message


def test_images_next_to_the_class_folders_of_a_split_are_reported(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"train/a": 2, "train/b": 2, "train": 1, "test/a": 1})))
    assert data.counts().counts == (2, 2)
    assert "1 image in train/" in finding(data, "image-without-class").message


def test_folders_of_a_system_are_no_classes_and_hidden_images_are_said(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1, "__MACOSX/cat": 2, "@eaDir": 1, "cat/@eaDir": 3, "dog/.thumbnails": 1})
    (root / "cat" / "._0.png").touch()
    (root / "cat" / ".DS_Store").touch()
    data = load_source(str(root))
    assert (data.classes, data.counts().counts) == (("cat", "dog"), (1, 1))
    assert finding(data, "system-folder").images == ("@eaDir", "__MACOSX", "cat/@eaDir", "dog/.thumbnails")
    assert finding(data, "hidden-file").images == ("cat/._0.png",)


def test_folders_of_a_system_beside_the_splits_are_said(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"train/a": 1, "train/b": 1, "__MACOSX": 1, "train/@eaDir": 1})))
    assert finding(data, "system-folder").images == ("__MACOSX", "train/@eaDir")
    assert len(data.findings) == 1


def test_classes_whose_images_all_lie_deeper_are_doubted(make_folder: MakeFolder) -> None:
    root = make_folder({"2023/spring/cat": 1, "2023/spring/dog": 1, "2024/fall/cat": 2})
    data = load_source(str(root))
    nested = finding(data, "classes-nested")
    assert (nested.severity, "'2023/spring/cat'" in nested.message) == ("warning", True)
    plain = make_folder({"cat/images": 2, "dog/images": 1}, name="plain")
    assert load_source(str(plain)).findings == ()


def test_folders_of_one_name_in_two_unicode_forms_are_one_class(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"train/Caf\u00e9": 1, "train/tea ": 1, "test/Cafe\u0301": 1, "test/tea": 2})))
    assert data.classes == ("Caf\u00e9", "tea")
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {"train": [0, 1], "test": [0, 1, 1]}
    assert "2 classes" in finding(data, "class-spellings").message


def test_folders_named_by_numbers_are_sorted_as_in_a_table(make_folder: MakeFolder) -> None:
    data = load_source(str(make_folder({"10": 1, "9": 2, "09": 1})))
    assert (data.classes, data.counts().counts) == (("09", "9", "10"), (1, 2, 1))


def test_other_files_are_named_and_clutter_is_not(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    for name in ("notes.txt", "sub/list.csv", "IMG_1.HEIC", "film.mp4", ".DS_Store", "Thumbs.db"):
        (root / "cat" / name).parent.mkdir(exist_ok=True)
        (root / "cat" / name).touch()
    data = load_source(str(root))
    assert data.counts().counts == (1, 1)
    assert finding(data, "not-an-image").images == ("cat/notes.txt", "cat/sub/list.csv")
    unread = finding(data, "not-read")
    assert (unread.severity, unread.images) == ("warning", ("cat/IMG_1.HEIC", "cat/film.mp4"))


def test_links_out_of_the_folder_are_followed_and_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    (tmp_path / "far").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "far" / "one.png")
    (root / "dog" / "folder").symlink_to(tmp_path / "far")
    (root / "dog" / "file.png").symlink_to(tmp_path / "far" / "one.png")
    (root / "puma").symlink_to(tmp_path / "far")
    (root / "dog" / "inside.png").symlink_to(root / "cat" / "0.png")
    data = load_source(str(root))
    assert dict(zip(data.classes, data.counts(), strict=True)) == {"cat": 1, "dog": 4, "puma": 1}
    outside = finding(data, "link-outside")
    assert (outside.severity, outside.images) == ("note", ("puma", "dog/folder", "dog/file.png"))


def test_links_back_are_not_followed(make_folder: MakeFolder) -> None:
    """Followed, they would put the images of all classes into one."""
    root = make_folder({"cat": 2, "dog": 1})
    (root / "dog" / "up").symlink_to(root)
    (root / "dog" / "self").symlink_to(root / "dog")
    (root / "all").symlink_to(root)
    data = load_source(str(root))
    assert dict(zip(data.classes, data.counts(), strict=True)) == {"cat": 2, "dog": 1}
    assert finding(data, "link-back").images == ("all", "dog/self", "dog/up")


def test_a_ring_of_links_ends(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (3, 3)).save(tmp_path / name / f"{name}.png")
        (tmp_path / name / "on").symlink_to(tmp_path / other)
    (root / "dog" / "ring").symlink_to(tmp_path / "a")
    (root / "dog" / "itself.png").symlink_to(root / "dog" / "itself.png")
    data = load_source(str(root))
    assert dict(zip(data.classes, data.counts(), strict=True)) == {"cat": 1, "dog": 4}
    with pytest.raises(LongtailError, match=r"itself\.png' .*opened"):
        [data.splits["train"].image(row) for row in range(5)]


def test_links_to_nowhere_are_called_so(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1})
    for dead_link in ("test", "train/dog/sub", "train/dog/note.txt", "train/puma"):
        (root / dead_link).symlink_to(root / "nowhere")
    data = load_source(str(root))
    dead = finding(data, "link-dead")
    assert (dead.severity, dead.images) == ("warning", ("test", "train/puma", "train/dog/note.txt", "train/dog/sub"))
    assert data.findings == (dead,)


def test_a_split_that_is_a_link_is_said(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"test/cat": 1, "test/dog": 1})
    (root / "train").symlink_to(make_folder({"cat": 2, "dog": 1}, name="elsewhere"))
    data = load_source(str(root))
    assert data.counts().counts == (2, 1)
    assert finding(data, "link-outside").images == ("train",)


def test_a_split_that_leads_back_is_not_followed(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 1})
    (root / "test").symlink_to(root)
    data = load_source(str(root))
    assert list(data.splits) == ["train"]
    assert finding(data, "link-back").images == ("test",)


def test_a_link_to_nowhere_is_named_when_it_is_read(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    split = load_source(str(root)).splits["train"]
    with pytest.raises(LongtailError, match=r"gone\.png' .*exist"):
        split.image(1 + [split.path(row).endswith("gone.png") for row in (1, 2)].index(True))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_not_be_listed_is_named(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1, "dog/private": 1})
    (root / "dog" / "private").chmod(0)
    try:
        with pytest.raises(LongtailError, match=r"private' .*listed"):
            load_source(str(root))
    finally:
        (root / "dog" / "private").chmod(0o700)


def test_a_folder_that_goes_while_it_is_listed_is_named(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"cat": 1, "dog": 1, "dog/sub": 1})
    real = os.scandir

    def vanishing(path: str) -> object:
        if str(path).endswith("sub"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    with pytest.raises(LongtailError, match=r"sub' .*listed"):
        load_source(str(root))
