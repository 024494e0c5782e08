"""``longtail inspect`` as an audit, and collections as they are: odd names, links, huge images, files that vanish."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of noise, in train and test."""
    random = np.random.default_rng(0)
    for folder, count in {"train/cat": 12, "train/lynx": 5, "test/cat": 5, "test/lynx": 5}.items():
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / folder / f"{number}.png")
    return tmp_path / "photos"


def huge(side: int) -> bytes:
    """A PNG of 70 bytes that says how large it is, and no more."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def kinds(result: Any) -> dict[str, str]:
    return {finding["kind"]: finding["severity"] for finding in json.loads(result.out)["findings"]}


# --- the audit --------------------------------------------------------------------------------------------------------


def test_strict_fails_on_errors_and_warnings_alone(cli: Call, photos: Path) -> None:
    assert cli("inspect", photos, "--strict").status == 0
    (photos / "train" / "cat" / "readme.txt").touch()
    noted = cli("inspect", photos, "--strict", "--json")
    assert (noted.status, kinds(noted)) == (0, {"not-an-image": "note"})
    (photos / "test" / "lynx" / "copy.png").write_bytes((photos / "train" / "cat" / "0.png").read_bytes())
    strict = cli("inspect", photos, "--strict", "--json")
    assert strict.status == 1
    assert kinds(strict)["exact-copies-across-labels"] == kinds(strict)["exact-copies-across-splits"] == "warning"
    assert cli("inspect", photos).status == 0
    (photos / "train" / "cat" / "0.png").write_text("no image")
    assert kinds(cli("inspect", photos, "--json"))["unreadable"] == "error"


def test_the_page_is_whole_offline_and_shows_what_was_found(cli: Call, photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "<b>lynx" / "x").mkdir(parents=True)
    (photos / "train" / "<b>lynx" / "x" / "co\npy.png").write_bytes((photos / "train/cat/0.png").read_bytes())
    out = tmp_path / "pages" / "audit.html"
    result = cli("inspect", photos, "--out", out)
    assert result.out.splitlines()[-1].startswith("page: ")
    page = out.read_text()
    assert page.count("<tr>") == 1 + 3
    assert page.count('src="data:image/webp;base64,') == 2
    assert "&lt;b&gt;lynx" in page
    assert "<b>" not in page
    assert "co\\npy.png" in page
    assert "Exact copies" in page
    assert "right label" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r'(src|href)="(?!data:|#)|url\(|<script|@import', page)
    assert "default-src 'none'" in page
    assert json.loads(cli("inspect", photos, "--json", "--out", out).out)["duplicates"][0]["kind"] == "exact"
    assert "a folder" in cli("inspect", photos, "--out", tmp_path).complaint


def test_a_sample(cli: Call, photos: Path) -> None:
    audit = json.loads(cli("inspect", photos, "--max-images", 9, "--json").out)
    assert (audit["checked"] <= 9, audit["total"]) == (True, 27)
    assert "--max-images" in cli("inspect", photos, "--max-images", 0).complaint


# --- names and links --------------------------------------------------------------------------------------------------


def test_names_with_spaces_newlines_and_other_scripts_go_all_the_way(
    cli: Call, train: Call, photos: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("two words.png", "two\nlines.png", "Käfer 猫.png", "-x.png", "a'b\"c.png")):
        (photos / "train" / "cat" / f"{number}.png").rename(photos / "train" / "cat" / name)
    (photos / "train" / "cat" / "cut\nhere.png").write_bytes(b"\x89PNG")
    audit = json.loads(cli("inspect", photos, "--json").out)
    assert audit["unreadable"] == [str(photos / "train" / "cat" / "cut\nhere.png")]
    assert "cut\\nhere.png" in cli("inspect", photos).out.replace("\n", "")
    assert "cut\\nhere.png" in train(photos).complaint
    (photos / "train" / "cat" / "cut\nhere.png").unlink()
    assert train(photos).status == 0
    assert cli("evaluate", tmp_path / "run").status == 0


def test_links_train_and_a_broken_one_is_named(cli: Call, train: Call, photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "lynx").rename(tmp_path / "elsewhere")
    (photos / "train" / "lynx").symlink_to(tmp_path / "elsewhere")
    (photos / "train" / "cat" / "up").symlink_to(photos)
    assert kinds(cli("inspect", photos, "--json")) == {"link-back": "warning", "link-outside": "note"}
    (photos / "train" / "cat" / "broken.png").symlink_to(photos / "nowhere.png")
    assert "broken.png' " in train(photos).complaint
    assert "broken.png'" in " ".join(cli("inspect", photos).out.split())
    (photos / "train" / "cat" / "broken.png").unlink()
    done = train(photos)
    assert done.status == 0
    assert "link back" in done.err


# --- huge images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_huge_image_is_refused_with_the_limit(cli: Call, train: Call, photos: Path, side: int) -> None:
    (photos / "train" / "cat" / "huge.png").write_bytes(huge(side))
    complaint = train(photos).complaint
    assert "huge.png' " in complaint
    assert all(word in complaint for word in ("89,478,485", "LONGTAIL_MAX_PIXELS"))
    result = cli("inspect", photos, "--json")
    assert "Warning" not in result.err
    assert [Path(name).name for name in json.loads(result.out)["unreadable"]] == ["huge.png"]


def test_the_limit_can_be_set(cli: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_MAX_PIXELS", "255")
    audit = json.loads(cli("inspect", photos, "--json").out)
    assert len(audit["unreadable"]) == 27
    assert all(number in audit["findings"][0]["message"] for number in ("16 x 16", "255"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("LONGTAIL_MAX_PIXELS", "3_000_000_000")
    (photos / "train" / "cat" / "huge.png").write_bytes(huge(50_000)[:40])
    assert "pixels" not in json.loads(cli("inspect", photos, "--json").out)["findings"][0]["message"]
    monkeypatch.setenv("LONGTAIL_MAX_PIXELS", "many")
    assert "whole number" in cli("inspect", photos).complaint


# --- a folder that changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("moment", ["before it is hashed", "after"])
def test_a_file_that_goes_after_it_was_listed_is_named(
    train: Call, photos: Path, monkeypatch: pytest.MonkeyPatch, workers: int, moment: str
) -> None:
    from longtail.data.dataset import Split

    real = Split.fingerprint

    def vanishing(split: Split) -> str:
        if moment == "before it is hashed":
            (photos / "train" / "lynx" / "3.png").unlink(missing_ok=True)
        fingerprint = real(split)
        (photos / "train" / "lynx" / "3.png").unlink(missing_ok=True)
        return fingerprint

    monkeypatch.setattr(Split, "fingerprint", vanishing)
    options = ("--data.resident_gigabytes", 0, "--data.validation_fraction", 0)
    complaint = train(photos, *options, "--data.workers", workers).complaint
    assert str(photos / "train" / "lynx" / "3.png") in complaint
    assert "restore" in complaint


def test_a_file_that_goes_while_it_is_inspected_is_a_finding(
    cli: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import longtail.data.audit.inspection as inspection

    real = inspection.probe_all

    def vanishing(*words: Any) -> Any:
        (photos / "train" / "lynx" / "3.png").unlink()
        return real(*words)

    monkeypatch.setattr(inspection, "probe_all", vanishing)
    audit = json.loads(cli("inspect", photos, "--json").out)
    assert audit["unreadable"] == [str(photos / "train" / "lynx" / "3.png")]


def test_inspect_shows_the_classes_the_ratio_the_groups_and_what_looks_wrong(cli: Call, make_folder: Call) -> None:
    result = cli("inspect", make_folder({"cat": 30, "lynx": 2, "margay": 0}))
    assert (result.status, result.err) == (0, "")
    for word in ("cat", "lynx", "margay", "30", "no training image", "test split"):
        assert word in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_inspect_as_json(cli: Call, make_folder: Call) -> None:
    result = cli("inspect", f"folder:{make_folder({'cat': 30, 'lynx': 2, 'margay': 0})}", "--json")
    audit = json.loads(result.out)
    assert audit["classes"] == ["cat", "lynx", "margay"]
    assert audit["counts"]["train"] == [30, 2, 0]
    assert audit["groups"] == {"many": [], "medium": [0], "few": [1, 2]}
    assert any("margay" in finding["message"] for finding in audit["findings"])


def test_inspect_takes_the_columns_of_a_table(cli: Call, make_folder: Call, tmp_path: Path) -> None:
    make_folder({"all": 2}, "pictures")
    table = tmp_path / "birds.csv"
    table.write_text("who,where\ngull,pictures/all/0.png\ntern,pictures/all/1.png\n")
    assert "name it, --image-column" in cli("inspect", table).complaint
    result = cli("inspect", table, "--label-column", "who", "--image-column", "where", "--json")
    assert json.loads(result.out)["classes"] == ["gull", "tern"]
