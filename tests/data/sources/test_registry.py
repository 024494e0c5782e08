"""The SOURCE word: prefixes, names, bare paths, and the nearest right one for a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.data.sources.builtin import NAMES, PACKAGED
from longtail.data.sources.registry import absolute_source, load_source, source_path
from longtail.errors import LongtailError


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("foldr:photos", "'foldr'.*'folder'"),
        ("paquet:x", "mean 'parquet'"),
        ("zzz:x", "Known: csv, folder, hf, parquet"),
        ("cifar-100", "mean 'cifar100'"),
        ("digit", "mean 'digits'"),
        ("folder:", "write folder:PATH"),
        ("", "Known: cifar10, cifar100, digits, mnist5k"),
        ("no/such/place", "neither"),
        ("C:\\photos\\none", "neither"),
    ],
)
def test_wrong_sources_name_the_nearest_right_one(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LongtailError, match=message) as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


def test_a_misspelled_path_names_its_neighbor(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(LongtailError, match=r"mean .*/photos'"):
        load_source(str(tmp_path / "fotos"))


def test_a_path_wins_over_nothing_else(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a": 1, "b": 2})
    monkeypatch.chdir(root.parent)
    assert load_source("photos").counts().counts == (1, 2)


def test_an_existing_path_with_a_colon_is_a_path(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    make_folder({"a": 1, "b": 2}, name="trip:2023")
    assert load_source(str(tmp_path / "trip:2023")).counts().counts == (1, 2)


@pytest.mark.parametrize(("table", "is_clear"), [("metadata.parquet", False), ("train-0.parquet", True)])
def test_a_table_next_to_class_folders_is_refused_unless_it_names_a_split(
    table: str, is_clear: bool, make_folder: Callable[..., Path]
) -> None:
    root = make_folder({"a": 1, "b": 2})
    pq.write_table(pa.table({"path": ["a/0.png", "b/0.png", "b/1.png"], "label": ["x", "y", "x"]}), root / table)
    assert load_source(f"parquet:{root}").classes == ("x", "y")
    assert load_source(f"folder:{root}").classes == ("a", "b")
    if is_clear:
        assert load_source(str(root)).classes == ("x", "y")
    else:
        with pytest.raises(LongtailError, match=r"folder:.*parquet:"):
            load_source(str(root))


def test_packaged_sources_have_a_name() -> None:
    assert set(NAMES) > PACKAGED


@pytest.mark.parametrize("prefix", ["", "folder:", "csv:", "parquet:", "hf:"])
def test_a_path_becomes_absolute_once(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    absolute = absolute_source(f"{prefix}photos")
    assert absolute == f"{prefix}{tmp_path / 'photos'}"
    assert absolute_source(absolute) == absolute
    assert source_path(absolute) == tmp_path / "photos"


@pytest.mark.parametrize("name", ["digits", "cifar10", "hf:owner/set", ""])
def test_names_stay_as_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (absolute_source(name), source_path(name)) == (name, None)
