"""What inspect finds in good and bad folders, and what it prints."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from longtail.data.histogram import bar
from longtail.data.inspection import Inspection, inspect_source, render

MakeFolder = Callable[[dict[str, int]], Path]


def shown(inspection: Inspection, width: int = 100, **options: int) -> str:
    out = io.StringIO()
    render(inspection, Console(file=out, width=width), **options)
    return out.getvalue()


def said(inspection: Inspection, severity: str) -> str:
    return "\n".join(str(finding) for finding in inspection.findings if finding.severity == severity)


def test_a_good_source_has_its_facts(make_folder: MakeFolder) -> None:
    found = inspect_source(str(make_folder({"train/cat": 30, "train/lynx": 3, "test/cat": 2, "test/lynx": 2})))
    assert found.counts == {"train": (30, 3), "test": (2, 2)}
    assert found.imbalance_ratio == 10
    assert found.groups == {"many": (), "medium": (0,), "few": (1,)}
    assert (found.checked, found.total, found.modes) == (37, 37, {"RGB": 37})
    assert found.sizes == {"smallest": (6, 4), "median": (6, 4), "largest": (6, 4)}
    assert found.findings == ()
    assert json.loads(json.dumps(found.to_dict()))["counts"]["train"] == [30, 3]


def test_small_and_empty_and_alike_classes(make_folder: MakeFolder) -> None:
    found = inspect_source(str(make_folder({"cat": 30, "Lynx": 0, "puma": 1, "grey wolf": 4, "Grey_Wolf": 4})))
    warnings = said(found, "warning")
    assert "'Lynx' has no training image" in warnings
    assert "'puma' has one training image" in warnings
    assert "'Grey_Wolf', 'grey wolf' differ only" in warnings
    assert "no test split" in said(found, "note")


def test_names_of_punctuation_alone_are_not_alike(make_folder: MakeFolder) -> None:
    assert "differ only" not in said(inspect_source(str(make_folder({"+": 3, "-": 3}))), "warning")


def test_a_balanced_source_is_told_so(make_folder: MakeFolder) -> None:
    assert "nearly balanced (ratio 1.50)" in said(inspect_source(str(make_folder({"a": 3, "b": 2}))), "note")


def test_a_class_that_only_test_shows(make_folder: MakeFolder) -> None:
    found = inspect_source(str(make_folder({"train/a": 3, "train/b": 3, "test/zebra": 1})))
    assert "test has images of 'zebra' but training has none" in said(found, "warning")


def test_every_unreadable_file_is_named(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3})
    whole = (root / "a" / "0.png").read_bytes()
    (root / "a" / "cut.png").write_bytes(whole[:-25])
    (root / "b" / "text.jpg").write_text("no image")
    Image.new("CMYK", (9, 5)).save(root / "b" / "print.jpg")
    found = inspect_source(str(root))
    assert [Path(name).name for name in found.unreadable] == ["cut.png", "text.jpg"]
    errors = said(found, "error")
    assert "cut.png" in errors
    assert "text.jpg' is not an image that can be read: remove or re-export it." in errors
    assert found.modes["CMYK"] == 1
    assert found.sizes is not None
    assert found.sizes["largest"] == (9, 5)
    assert errors.splitlines()[0] in " ".join(shown(found, width=400).splitlines())


def test_many_unreadable_files_are_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 1, "b": 1})
    for number in range(30):
        (root / "a" / f"bad{number}.jpg").touch()
    found = inspect_source(str(root))
    assert len(found.unreadable) == 30
    assert "10 more images cannot be read" in said(found, "error")


def test_a_sample_is_spread_and_said_to_be_one(make_folder: MakeFolder) -> None:
    found = inspect_source(str(make_folder({"train/a": 20, "train/b": 20, "test/a": 10})), max_images=10)
    assert (found.checked, found.total) == (10, 50)
    assert "10 images decoded of 50 (a sample), 0 unreadable" in shown(found)


def test_the_histogram_shows_counts_groups_and_bars(make_folder: MakeFolder) -> None:
    lines = shown(inspect_source(str(make_folder({"cat": 40, "lynx": 4})))).splitlines()
    cat, lynx = (next(line for line in lines if line.startswith(name)) for name in ("cat", "lynx"))
    assert cat.split()[1:3] == ["40", "medium"]
    assert lynx.split()[1:3] == ["4", "few"]
    assert cat.count("█") == 10 * lynx.count("█") + cat.count("█") % 10
    assert "imbalance ratio 10; classes by shot: 0 many, 1 medium, 1 few" in "\n".join(lines)


def test_many_classes_share_bars(make_folder: MakeFolder) -> None:
    found = inspect_source(str(make_folder({f"c{number:02}": number + 1 for number in range(12)})))
    text = shown(found, max_rows=4)
    assert "c11 + 2" in text
    assert "10-12" in text
    assert len([line for line in text.splitlines() if line.startswith("c") and "few" in line]) == 4


def test_markup_and_control_characters_are_shown_as_they_are(make_folder: MakeFolder) -> None:
    text = shown(inspect_source(str(make_folder({"[red]x": 2, "two\nlines": 1}))))
    assert "[red]x" in text
    assert "two\\nlines" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_the_terminal(make_folder: MakeFolder, width: int) -> None:
    text = shown(inspect_source(str(make_folder({"a" * 60: 3, "b": 100}))), width=width)
    assert max(map(len, text.splitlines())) <= width


def test_bars_grow_with_their_value() -> None:
    lengths = [len(bar(value, 100, 20)) for value in range(0, 101, 5)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (0, 20)
