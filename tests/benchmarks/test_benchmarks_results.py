"""Rows of runs, the results page that is made of them, and the grids of the comparison and of the search."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from longtail.config.recipes import base_config
from longtail.data.sources.registry import load_source
from longtail.experiments.grid_plan import plan_grid

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PUBLISHED = "dataset,imbalance_ratio,recipe,low,high,kind\ncifar100,100,ce,38.3,39.9,published\n" + (
    "cifar100,100,gcl,48.6,48.6,unverified\n"
)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, found as it finds its neighbors when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for each in ("common", "collect_results", "reproduce", "results_picture", "search"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    return __import__(name)


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("collect_results", monkeypatch)


def made_up(folder: Path, recipe: str, seed: int, accuracy: float, epochs: int = 200) -> Path:
    """A finished run with made-up figures."""
    config = base_config(f"cifar-lt/{recipe}", epochs=epochs)
    config["data"]["source"] = "cifar100"
    config["training"]["seed"] = seed
    figures = dict.fromkeys(("balanced_accuracy", "many", "medium", "few", "worst_class", "nll", "ece"), accuracy)
    figures |= {"accuracy": accuracy, "harmonic_mean": accuracy}
    stages = {"stage1": {"test": figures}} | ({"stage2": {"test": figures}} if config["stage2"]["epochs"] else {})
    metrics = {
        "recipe": f"cifar-lt/{recipe}",
        "test": figures,
        "stages": stages,
        "train_counts": [500, 5],
        "seeds": {"seed": seed, "subset_seed": 0},
        "seconds": {"stage1": 1.0, "stage2": 0.0},
        "data_hash": "sha256:0",
        "hardware": {"processor": "p", "cores": 2, "device": "cpu"},
        "versions": {"torch": "2", "longtail": "0"},
    }
    run = folder / recipe / f"seed-{seed}"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def table_of(page: Path) -> dict[tuple[str, str], list[str]]:
    """Cells of the rows of all tables by run and stage."""
    lines = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    return {(cells[0], cells[1]): cells[2:] for cells in lines if cells[0] != "run"}


def test_seeds_are_folded_and_stand_next_to_the_published_figure_with_its_kind(
    collect: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "published.csv").write_text(PUBLISHED)
    runs = [made_up(tmp_path / "runs", "ce", seed, accuracy) for seed, accuracy in enumerate((0.38, 0.40, 0.42))]
    runs.append(made_up(tmp_path / "runs", "gcl", 0, 0.5))
    collect.write_rows(collect.finished(tmp_path / "runs"), tmp_path / "cifar100-lt-100.csv")
    assert collect.finished(tmp_path / "runs") == sorted(runs)
    page = tmp_path / "index.md"
    page.write_text("# Results\n\nOurs.\n")
    collect.fill(page)
    rows = table_of(page)
    assert rows["ce", "1"][:3] == ["3", "40.0 ± 2.0", "38.3 to 39.9"]
    assert rows["gcl", "1"][:3] == ["1", "50.0", "-"]  # what its second stage starts from has no published figure
    assert rows["gcl", "2"][:3] == ["1", "50.0", "48.6 (unverified)"]
    assert "Ours." in page.read_text()
    assert "longtail train cifar100 --recipe cifar-lt/ce --epochs 200 --seed 2 --out ce-seed-2\n" in page.read_text()
    before = page.read_text()
    collect.fill(page)
    assert page.read_text() == before


def test_a_short_schedule_is_not_compared_with_published_figures(collect: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_text(PUBLISHED)
    collect.write_rows(
        [made_up(tmp_path / "runs", "ce", 0, 0.3, epochs=30)], tmp_path / "cifar100-lt-100-30-epochs.csv"
    )
    collect.fill(tmp_path / "index.md")
    assert table_of(tmp_path / "index.md")["ce", "1"][:2] == ["1", "30.0"]
    assert "published" not in (tmp_path / "index.md").read_text()


def test_rows_of_other_runs_stay_where_they_are_wanted(collect: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    first, second = made_up(tmp_path / "a", "ce", 0, 0.3), made_up(tmp_path / "a", "gcl", 0, 0.4)
    collect.write_rows([first, second], path)
    again = made_up(tmp_path / "b", "ce", 0, 0.5)
    other = made_up(tmp_path / "b", "ce", 1, 0.6)
    collect.write_rows([again, other], path, keep=True)
    with path.open(newline="") as file:
        rows = [(row["run"], row["seed"], row["stage"], row["accuracy"]) for row in csv.DictReader(file)]
    assert rows == [
        ("gcl", "0", "1", "0.4"),
        ("gcl", "0", "2", "0.4"),
        ("ce", "0", "1", "0.5"),
        ("ce", "1", "1", "0.6"),
    ]
    collect.write_rows([again], path)
    assert len(path.read_text().splitlines()) == 2


def test_the_comparison_is_the_published_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce = load("reproduce", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--out", "runs", "--cifar100", "digits"])
    flags = reproduce._flags()
    assert (flags.ratios, flags.datasets, flags.seeds) == ([100, 50, 200, 10], ["cifar100", "cifar10"], 3)
    planned = plan_grid(reproduce.grid(flags, "cifar100", 50) | {"out": "runs"})
    assert {"ce", "kps-ga", "fbl", "gcl", "agcl", "mixup-crt", "ldam-drw"} <= {run.name for run in planned.runs}
    assert {run.baseline for run in planned.runs} == {"ce"}
    for run in planned.runs:
        config = run.config
        assert (config.data.imbalance_ratio, config.model.name) == (50, "resnet32")
        assert config.data.validation_fraction == 0, "every training image is trained on, and nothing is chosen"
        assert config.stage1.epochs == 200 or run.name == "best"
        assert config.stage2.epochs in (0, 30)


@pytest.mark.parametrize("linear", [False, True])
def test_the_search_sees_no_test_image_and_sets_both_stages(
    linear: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    search = load("search", monkeypatch)
    search.hold_out("digits", 4, 5.0, 1, tmp_path / "data")
    data = load_source(f"hf:{tmp_path / 'data'}")
    assert sorted(data.splits) == ["train", "validation"]
    assert [int((data.splits["validation"].labels == label).sum()) for label in range(4)] == [search.HELD_OUT] * 4
    assert set(map(bytes, images(data.splits["train"]))).isdisjoint(map(bytes, images(data.splits["validation"])))
    assert data.counts().imbalance_ratio == pytest.approx(5.0, rel=0.1)
    flags = argparse.Namespace(linear=linear, model="resnet20", image_size=16)
    values = search.grid(flags, 4, 1, tmp_path / "data") | {"out": str(tmp_path / "runs")}
    assert values["set"]["data.test_fraction"] == 0
    for name, (recipe, option, choices, compared) in search.OPTIONS.items():
        assert compared in choices
        for value in choices:
            options = values["runs"][f"{name}-{value:g}"]["set"]
            stages = ["stage1"] if recipe == "fbl" else ["stage1", "stage2"]
            assert [options[f"{stage}.loss.options.{option}"] for stage in stages] == [value] * len(stages)


def images(split: Any) -> list[Any]:
    return [split.image(row).tobytes() for row in range(len(split))]


def test_rows_of_the_other_way_of_training_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    search, path = load("search", monkeypatch), tmp_path / "search.csv"
    row = {"training": "scratch", "classes": 5, "value": 1.0}
    search.write([row], path)
    search.write([row | {"training": "linear"}, row | {"training": "linear", "classes": 20}], path)
    search.write([row | {"value": 2.0}], path)
    with path.open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [("linear", "5", "1.0"), ("linear", "20", "1.0"), ("scratch", "5", "2.0")]


def test_the_page_of_the_repository_shows_its_rows(collect: ModuleType, tmp_path: Path) -> None:
    folder = BENCHMARKS.parent / "docs" / "results"
    shutil.copytree(folder, tmp_path / "results")
    collect.fill(tmp_path / "results" / "index.md")
    assert (tmp_path / "results" / "index.md").read_text() == (folder / "index.md").read_text()


def test_the_picture_has_the_last_stage_of_each_run_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = load("results_picture", monkeypatch)
    with (BENCHMARKS.parent / "docs" / "results" / "fish4knowledge-linear.csv").open(newline="") as stream:
        runs = picture.finished(list(csv.DictReader(stream)))
    assert next(iter(runs)) == "gcl"
    assert [row["stage"] for row in runs["gcl"]] == ["2"] * 3
    assert [row["stage"] for row in runs["ce"]] == ["1"] * 3
    marks = [trace for trace in picture.groups(runs).data if trace.mode == "markers"]
    assert [len(trace.x) for trace in marks] == [len(runs)] * 4
