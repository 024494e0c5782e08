"""The audit of good and bad sources, and what it prints."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from longtail.data.audit.inspection import Inspection, bar, inspect_source, render
from longtail.errors import LongtailError

MakeFolder = Callable[[dict[str, int]], Path]


@pytest.fixture
def photos(tmp_path: Path) -> MakeFolder:
    """Write folders of noise, every image its own."""

    def make(classes: dict[str, int]) -> Path:
        random = np.random.default_rng(0)
        for class_folder, count in classes.items():
            (tmp_path / "photos" / class_folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(0, 255, (16, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / class_folder / f"{number}.png")
        return tmp_path / "photos"

    return make


def printed(inspection: Inspection, width: int = 100, **options: int) -> str:
    out = io.StringIO()
    render(inspection, Console(file=out, width=width), **options)
    return out.getvalue()


def message(inspection: Inspection, kind: str, severity: str = "warning") -> str:
    """Return the message of the one finding of a kind, which has to have that severity."""
    (finding,) = [finding for finding in inspection.findings if finding.kind == kind]
    assert finding.severity == severity
    return finding.message


def about(inspection: Inspection, kind: str) -> tuple[str, ...]:
    """Return the images of the one finding of a kind; none if there is no such finding."""
    images = [finding.images for finding in inspection.findings if finding.kind == kind]
    assert len(images) < 2
    return images[0] if images else ()


def kinds(inspection: Inspection) -> list[str]:
    return [finding.kind for finding in inspection.findings]


def test_a_good_source_has_its_facts(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({"train/cat": 30, "train/lynx": 5, "test/cat": 5, "test/lynx": 5})))
    assert audit.counts == {"train": (30, 5), "test": (5, 5)}
    assert audit.imbalance_ratio == 6
    assert audit.groups == {"many": (), "medium": (0,), "few": (1,)}
    assert (audit.checked, audit.total, audit.modes) == (45, 45, {"RGB": 45})
    assert audit.sizes == {"smallest": (24, 16), "median": (24, 16), "largest": (24, 16)}
    assert audit.findings == ()
    assert audit.duplicates == ()
    assert audit.is_clean
    assert audit.seconds > 0
    assert json.loads(json.dumps(audit.to_dict()))["counts"]["train"] == [30, 5]


def test_small_and_empty_and_alike_classes(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({"cat": 30, "Lynx": 0, "puma": 1, "gray wolf": 4, "Gray_Wolf": 5})))
    assert "'Lynx'" in message(audit, "class-empty")
    assert "'puma'" in message(audit, "class-of-one")
    assert "'gray wolf'" in message(audit, "class-too-small-to-validate")
    assert "'Gray_Wolf', 'gray wolf'" in message(audit, "classes-alike")
    assert message(audit, "no-test-split", "note")


def test_few_images_are_no_matter_where_a_validation_split_is_there(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({"train/a": 9, "train/b": 3, "val/a": 2, "val/b": 2, "test/a": 7, "test/b": 4})))
    assert kinds(audit) == ["class-hardly-tested"]
    assert "'b'" in message(audit, "class-hardly-tested", "note")


def test_names_of_punctuation_alone_are_not_alike(photos: MakeFolder) -> None:
    assert "classes-alike" not in kinds(inspect_source(str(photos({"+": 3, "-": 3}))))


def test_a_balanced_source_is_told_so(photos: MakeFolder) -> None:
    assert "1.50" in message(inspect_source(str(photos({"a": 3, "b": 2}))), "balanced", "note")


def test_a_class_that_only_test_shows(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({"train/a": 3, "train/b": 3, "test/zebra": 1})))
    assert "'zebra'" in message(audit, "class-untrained")
    assert "'a', 'b'" in message(audit, "class-untested", "note")


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


def test_a_sample_is_spread_and_said_to_be_one(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({"train/a": 20, "train/b": 20, "test/a": 10})), max_images=10)
    assert (audit.checked, audit.total) == (10, 50)
    assert re.search(r"\b10 .*\b50 .*sample", printed(audit))
    with pytest.raises(LongtailError, match="max_images"):
        inspect_source("digits", max_images=0)


def test_the_histogram_shows_counts_groups_and_bars(photos: MakeFolder) -> None:
    lines = printed(inspect_source(str(photos({"cat": 40, "lynx": 4})))).splitlines()
    cat, lynx = (next(line for line in lines if line.startswith(name)) for name in ("cat", "lynx"))
    assert cat.split()[1:3] == ["40", "medium"]
    assert lynx.split()[1:3] == ["4", "few"]
    assert cat.count("█") == 10 * lynx.count("█") + cat.count("█") % 10
    assert "0 many, 1 medium, 1 few" in "\n".join(lines)


def test_many_classes_share_bars(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({f"c{number:02}": number + 1 for number in range(12)})))
    text = printed(audit, max_rows=4)
    assert "c11 + 2" in text
    assert "10-12" in text
    assert len([line for line in text.splitlines() if line.startswith("c") and "few" in line]) == 4


def test_markup_and_control_characters_are_shown_as_they_are(photos: MakeFolder) -> None:
    text = printed(inspect_source(str(photos({"[red]x": 2, "two\nlines": 1}))))
    assert "[red]x" in text
    assert "two\\nlines" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_the_terminal(photos: MakeFolder, width: int) -> None:
    text = printed(inspect_source(str(photos({"a" * 60: 3, "b": 100}))), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert width < 80 or "…" not in text.replace("a…", ""), "the bars fit next to the names"


def test_bars_grow_with_their_value() -> None:
    lengths = [len(bar(value, 100, 20)) for value in range(0, 101, 5)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (0, 20)
