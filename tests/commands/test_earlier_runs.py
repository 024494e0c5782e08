"""Runs written before the RUN folder had schemas and format numbers still load, resume, evaluate, compare and report.

``tests/vectors/earlier_runs.tar.xz`` holds runs on the digits with a small network, each without its report:
``one-stage`` (cross-entropy, validation, analyzed), ``two-stages`` (GCL), ``stopped`` (the same, stopped in stage 2),
``linear`` (features of ``one-stage``), ``adjusted`` (``one-stage`` after ``longtail adjust``), ``grid`` (two recipes).
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

RUNS = ("one-stage", "two-stages", "linear", "adjusted", "grid/ce/seed-0", "grid/gcl/seed-0")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(Path(__file__).parents[1] / "vectors" / "earlier_runs.tar.xz") as tar:
        # Python 3.11.3 and older have no filters, and newer ones ask for one.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


@pytest.fixture
def earlier(archive: Path, tmp_path: Path) -> Path:
    return shutil.copytree(archive, tmp_path / "earlier")


def figures(run: Path) -> dict[str, Any]:
    """Figures of the test images, after the adjustment of an adjusted run."""
    file = run / "adjusted.json" if (run / "adjusted.json").is_file() else run / "metrics.json"
    metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in metrics["test"].items() if isinstance(value, int | float)}


@pytest.mark.parametrize("name", RUNS)
def test_an_evaluation_gives_the_figures_of_the_training(earlier: Path, cli: Callable[..., Any], name: str) -> None:
    before = figures(earlier / name)
    outcome = cli("evaluate", earlier / name)
    assert outcome.status == 0, outcome.err
    accuracy_line = re.search(r"^accuracy +([\d.]+)%", outcome.out, re.MULTILINE)
    assert accuracy_line is not None
    assert float(accuracy_line[1]) == pytest.approx(100 * before["accuracy"], abs=0.01)
    assert figures(earlier / name) == pytest.approx(before, abs=1e-4)


def test_a_stopped_run_ends_as_the_one_that_was_never_stopped(earlier: Path, cli: Callable[..., Any]) -> None:
    outcome = cli("train", "--resume", earlier / "stopped")
    assert outcome.status == 0, outcome.err
    resumed = load_file(earlier / "stopped" / "model.safetensors")
    for name, weight in load_file(earlier / "two-stages" / "model.safetensors").items():
        # The processor that wrote it may add in another order.
        torch.testing.assert_close(resumed[name], weight, rtol=1e-3, atol=1e-4)
    assert figures(earlier / "stopped") == pytest.approx(figures(earlier / "two-stages"), abs=0.02)


@pytest.mark.usefixtures("real_report")
def test_one_page_reports_all_of_them(earlier: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    outcome = cli("report", *(earlier / name for name in RUNS), "--out", tmp_path / "page.html")
    assert outcome.status == 0, outcome.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "two-stages" in page
    assert "linear" in page


def test_they_are_compared(earlier: Path, cli: Callable[..., Any]) -> None:
    outcome = cli("compare", earlier / "one-stage", earlier / "two-stages", earlier / "linear")
    assert outcome.status == 0, outcome.err
    assert "demo/gcl" in outcome.out


@pytest.mark.usefixtures("real_report")
def test_a_grid_is_complete(earlier: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(earlier)
    weights = {path: path.stat().st_mtime_ns for path in (earlier / "grid").rglob("model.safetensors")}
    outcome = cli("compare", "--grid", "grid/grid.yaml")
    assert outcome.status == 0, outcome.err
    assert {path: path.stat().st_mtime_ns for path in (earlier / "grid").rglob("model.safetensors")} == weights


def test_an_adjusted_run_predicts_and_is_adjusted_again(
    earlier: Path, cli: Callable[..., Any], make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    outcome = cli("predict", earlier / "adjusted", make_folder({"new": 3}), "--out", tmp_path / "answers.csv")
    assert outcome.status == 0, outcome.err
    assert len((tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()) == 4
    outcome = cli("adjust", earlier / "one-stage")
    assert outcome.status == 0, outcome.err
    before, after = (json.loads((earlier / name / "adjusted.json").read_text()) for name in ("adjusted", "one-stage"))
    assert after["test"]["accuracy"] == pytest.approx(before["test"]["accuracy"], abs=1e-4)


def test_an_analysis_can_be_made_again(earlier: Path, cli: Callable[..., Any]) -> None:
    before = json.loads((earlier / "one-stage" / "analysis" / "summary.json").read_text(encoding="utf-8"))
    outcome = cli("analyse", earlier / "one-stage")
    assert outcome.status == 0, outcome.err
    after = json.loads((earlier / "one-stage" / "analysis" / "summary.json").read_text(encoding="utf-8"))
    assert after.keys() == before.keys()
