"""What the probe of each image finds: files that cannot be read, and images that are odd."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inspections import kinds, message, printed
from PIL import Image

from longtail.data.audit.inspection import Inspection, inspect_source
from longtail.data.audit.probe import drop_unreadable
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.errors import LongtailError

MakeFolder = Callable[[dict[str, int]], Path]


def about(inspection: Inspection, kind: str) -> tuple[str, ...]:
    """Return the images of the one finding of a kind; none if there is no such finding."""
    images = [finding.images for finding in inspection.findings if finding.kind == kind]
    assert len(images) < 2
    return images[0] if images else ()


def test_every_unreadable_file_is_named(photos: MakeFolder) -> None:
    root = photos({"a": 3, "b": 3})
    (root / "a" / "cut.png").write_bytes((root / "a" / "0.png").read_bytes()[:-25])
    (root / "b" / "text.jpg").write_text("no image")
    audit = inspect_source(str(root))
    assert [Path(name).name for name in audit.unreadable] == ["cut.png", "text.jpg"]
    errors = [str(finding) for finding in audit.findings if finding.severity == "error"]
    assert [name in error for name, error in zip(("cut.png", "'b/text.jpg'"), errors, strict=True)] == [True, True]
    assert not any(str(root) in error for error in errors)
    assert errors[0] in " ".join(printed(audit, width=400).splitlines())
    assert not audit.is_clean


def test_many_unreadable_files_are_counted(photos: MakeFolder) -> None:
    root = photos({"a": 1, "b": 1})
    for number in range(30):
        (root / "a" / f"bad{number}.jpg").touch()
    audit = inspect_source(str(root))
    assert len(audit.unreadable) == 30
    assert "10 more images" in str([finding for finding in audit.findings if finding.kind == "unreadable"][-1])
    assert sum(len(finding.images) for finding in audit.findings if finding.kind == "unreadable") == 30


def test_what_is_left_without_the_unreadable_images(photos: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    for name in ("train/a/0.png", "test/a/0.png", "test/b/0.png"):
        (root / name).write_bytes(b"no image")
    data = load_source(str(root))
    readable = drop_unreadable(data, Square(8))
    assert {name: len(split) for name, split in readable.splits.items()} == {"train": 5}
    assert [finding.kind for finding in readable.findings] == ["unreadable", "split-empty"]

    def stale(_: object) -> Image.Image:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Image, "open", stale)
    with pytest.raises(LongtailError, match="Stale"):
        drop_unreadable(data, Square(8))


def test_odd_images_are_named_by_what_is_odd(photos: MakeFolder) -> None:
    root = photos({"a": 9, "b": 4})
    noise = np.random.default_rng(1).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    rgb = Image.fromarray(noise)
    rgb.convert("CMYK").save(root / "a" / "print.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 250).save(root / "a" / "deep.png")
    palette = rgb.convert("P")
    palette.save(root / "a" / "palette.png", transparency=palette.getpixel((0, 0)))
    rgb.convert("RGBA").save(root / "a" / "opaque.png")
    rgb.save(root / "a" / "really.png", "JPEG")
    rgb.resize((200, 16)).save(root / "a" / "panorama.png")
    rgb.resize((3, 3)).save(root / "a" / "icon.png")
    Image.new("RGB", (24, 16), "red").save(root / "a" / "blank.png")
    rgb.convert("L").save(root / "a" / "film.gif", save_all=True, append_images=[Image.new("L", (20, 20))])
    Image.fromarray(noise[..., 0] / np.float32(255)).save(root / "a" / "float.tiff")
    audit = inspect_source(str(root))
    assert about(audit, "print") == ("a/print.jpg",)
    assert about(audit, "deep") == ("a/deep.png", "a/float.tiff")
    assert about(audit, "own-range") == ("a/float.tiff",)
    assert about(audit, "transparent") == ("a/palette.png",)
    assert about(audit, "misnamed") == ("a/really.png",)
    assert about(audit, "narrow") == ("a/panorama.png",)
    assert about(audit, "tiny") == ("a/icon.png",)
    assert about(audit, "one-colour") == ("a/blank.png",)
    assert about(audit, "animated") == ("a/film.gif",)
    assert audit.modes["CMYK"] == 1
    assert "'a/panorama.png'" in message(audit, "narrow")


def test_a_source_of_small_images_has_no_tiny_ones() -> None:
    assert not {"tiny", "narrow"} & set(kinds(inspect_source("digits", max_images=200)))
