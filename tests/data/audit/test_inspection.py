"""The audit of good and bad sources, and what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from inspections import kinds, message, printed
from PIL import Image

from longtail.data.audit.inspection import bar, inspect_source
from longtail.errors import LongtailError

MakeFolder = Callable[[dict[str, int]], Path]


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


@pytest.mark.parametrize(("long", "is_said"), [(2, False), (3, True)])
def test_many_long_images_are_told_of_the_fit(photos: MakeFolder, long: int, is_said: bool) -> None:
    root = photos({"a": 8, "b": 2})
    for number in range(long):
        Image.open(root / "a" / f"{number}.png").resize((30, 18)).save(root / "a" / f"{number}.png")
    findings = {finding.kind: finding for finding in inspect_source(str(root)).findings}
    assert ("long" in findings) == is_said
    if is_said:
        assert findings["long"].images == ("a/0.png", "a/1.png", "a/2.png")
        assert "--data.fit" in findings["long"].remedy


def test_a_class_that_only_test_shows(photos: MakeFolder) -> None:
    audit = inspect_source(str(photos({"train/a": 3, "train/b": 3, "test/zebra": 1})))
    assert "'zebra'" in message(audit, "class-untrained")
    assert "'a', 'b'" in message(audit, "class-untested", "note")


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
