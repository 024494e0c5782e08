"""What a folder holds besides images in their places: other files, links of all kinds, folders that go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from longtail.data.dataset import Finding, ImageData
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError

MakeFolder = Callable[[dict[str, int]], Path]


def finding(data: ImageData, kind: str) -> Finding:
    (finding,) = [finding for finding in data.findings if finding.kind == kind]
    return finding


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
    for dead_link in ("train/dog/sub", "train/dog/note.txt", "train/puma"):
        (root / dead_link).symlink_to(root / "nowhere")
    data = load_source(str(root))
    dead = finding(data, "link-dead")
    assert (dead.severity, dead.images) == ("warning", ("train/puma", "train/dog/note.txt", "train/dog/sub"))
    assert dead.images == ("train/puma", "train/dog/note.txt", "train/dog/sub")
    assert data.findings == (dead,)


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
