"""`longtail compare` where it trains first: which words go together, what it prints, and how it ends."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_grid import spec

from longtail.console import Interrupted
from longtail.experiments.grid_plan import Grid

Cli = Callable[..., Any]
CE, GCL = ("--recipe", "cifar-lt/ce"), ("--recipe", "cifar-lt/gcl")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--seeds", "3"], "--seeds "),
        (["run", "--imbalance-ratio", "3"], "--imbalance-ratio "),
        ([*CE, "--out", "x"], "one SOURCE"),
        (["a", "b", *CE, "--out", "x"], "one SOURCE"),
        (["digits", *CE], "--out DIR"),
        (["digits", *CE, *CE, "--out", "x"], "twice"),
        (["digits", *CE, "--out", "x", "--seeds", "0"], "seeds "),
        (["digits", *CE, "--out", "x", "--epochs", "0"], "--epochs "),
        (["digits", *CE, "--out", "x", "--jobs", "0"], "--jobs "),
        (["digits", *CE, "--out", "x", "--set", "data.few"], "KEY=VALUE"),
        (["digits", *CE, "--out", "x", "--set", "data.fewer=3"], "'data.few'"),
        (["digits", *CE, "--out", "x", "--baseline", "gcl"], "'gcl'"),
        (["digits", *CE, "--out", "x", "--tracker", "tensorbord"], "'tensorboard'"),
        (["run", "--ray"], "--ray "),
        (["--grid", "no.yaml", "--ray", "--jobs", "2"], "leave --jobs out"),
        (["--grid", "no.yaml", "--run-cpus", "2"], "add --ray"),
        (["--grid", "no.yaml", "--ray", "--run-gpus", "2"], "--run-gpus "),
        (["--grid", "no.yaml"], "no.yaml"),
        (["--grid", "no.yaml", *CE], "leave --recipe out"),
        (["--grid", "no.yaml", "--set", "a=b"], "leave --set out"),
        (["digits", "--grid", "no.yaml"], "'digits'"),
    ],
)
def test_words_that_do_not_go_together(cli: Cli, words: list[str], sentence: str) -> None:
    assert sentence in cli("compare", *words).complaint
    assert not Path("x").exists()


def test_several_processes_train_no_grid(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun" in cli("compare", "digits", *CE, "--out", "x").complaint
    assert not Path("x").exists()


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Grid, int | None]]:
    """Grids that would be trained; the command believes that the user stopped them."""
    plans: list[tuple[Grid, int | None]] = []

    def stop(grid: Grid, *_: object, jobs: int | None) -> None:
        plans.append((grid, jobs))
        raise Interrupted

    monkeypatch.setattr("longtail.experiments.grid_runner.run_grid", stop)
    return plans


def test_every_word_reaches_the_runs(cli: Cli, planned: list[tuple[Grid, int | None]], tmp_path: Path) -> None:
    done = cli(
        "compare",
        "digits",
        *CE,
        *GCL,
        "--seeds",
        2,
        "--epochs",
        30,
        "--batch-size",
        16,
        "--imbalance-ratio",
        50,
        "--tracker",
        "mlflow",
        "--set",
        "training.precision=bf16",
        "--set",
        "stage1.optimizer.lr=2e-3",
        "--baseline",
        "cifar-lt/gcl",
        "--out",
        "my grid",
        "--jobs",
        3,
    )
    assert (done.status, done.out) == (130, "")
    assert f"longtail compare --grid '{tmp_path}/my grid/grid.yaml'" in done.err.splitlines()[-1]
    assert "gcl: stage 2: 5 epochs" in done.err
    ((grid, jobs),) = planned
    assert jobs == 3
    assert [run.title for run in grid.runs] == ["ce seed 0", "ce seed 1", "gcl seed 0", "gcl seed 1"]
    assert {run.baseline for run in grid.runs} == {"gcl"}
    config = grid.runs[1].config
    assert (config.data.source, config.data.imbalance_ratio, config.stage1.epochs) == ("digits", 50, 30)
    assert (config.training.precision, config.training.tracker) == ("bf16", "mlflow")
    assert config.stage1.optimizer.lr == 0.002
    assert {stage.batch_size for run in grid.runs for stage in run.config.stages.values()} == {16}


def test_a_grid_goes_to_a_cluster(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def stop(address: str, _: object, **needs: object) -> None:
        asked.append((address, needs))
        raise Interrupted

    monkeypatch.setattr("longtail.experiments.grid_ray.ray_pool", stop)
    done = cli("compare", "digits", *CE, "--out", "grid", "--ray", "head:6379", "--run-gpus", 0.25)
    assert asked == [("head:6379", {"cpus": None, "gpus": 0.25})]
    assert done.status == 130
    assert done.err.endswith(f"longtail compare --grid {tmp_path}/grid/grid.yaml --ray head:6379 --run-gpus 0.25\n")


def test_words_beside_a_file_win_over_it(cli: Cli, planned: list[tuple[Grid, int | None]], tmp_path: Path) -> None:
    values = {"source": "digits", "out": "a", "baseline": "ce", "set": {"data.few": 3}}
    options = {"training.tracker": "mlflow"}
    values["runs"] = {"ce": {"recipe": "cifar-lt/ce"}, "gcl": {"recipe": "cifar-lt/gcl", "set": options}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    words = ("--out", "b", "--baseline", "gcl", "--tracker", "tensorboard")
    assert cli("compare", "--grid", "grid.yaml", *words).status == 130
    ((grid, jobs),) = planned
    assert (grid.out, jobs, grid.runs[0].baseline) == (Path("b"), None, "gcl")
    assert grid.runs[0].config.data.few == 3
    assert [run.config.training.tracker for run in grid.runs] == ["tensorboard"] * 2


def test_a_set_that_is_no_table_is_a_sentence_with_a_tracker_too(cli: Cli, tmp_path: Path) -> None:
    values = {"source": "digits", "out": "a", "set": ["data.few"], "runs": {"ce": {"recipe": "cifar-lt/ce"}}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert "set " in cli("compare", "--grid", "grid.yaml", "--tracker", "mlflow").complaint


def test_a_run_that_fails_leaves_the_others_a_table(cli: Cli, tmp_path: Path, real_report: None) -> None:
    """Through real processes: one run's loss becomes infinite, the others are compared, page and files are there."""
    recipe = {"recipe": "cifar-lt/ce"}
    runs = {"wild": recipe | {"set": {"stage1.optimizer.lr": 1e9}}, "tame": recipe}
    values = spec("grid", epochs=1, runs=runs)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    done = cli("compare", "--grid", "grid.yaml", "--jobs", 2, "--csv", "mine.csv")
    assert "1 of 2" in done.complaint
    assert "note: wild " in done.err
    assert "failed: wild seed 0: " in done.err
    assert "grid/wild/seed-0.log" in done.err
    assert "tame" in done.out
    assert "report: grid/report.html\n" in done.out
    assert done.out.endswith("table: mine.csv\n")
    (row,) = csv.DictReader((tmp_path / "mine.csv").open())
    assert (row["run"], row["seeds"], row["baseline"]) == ("tame", "0", "tame")
    assert (tmp_path / "mine.csv").read_text() == (tmp_path / "grid" / "table.csv").read_text()
    assert "<html" in (tmp_path / "grid" / "report.html").read_text()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_compare_prints_the_runs_and_writes_the_same_as_csv(
    cli: Cli, finished: Any, second: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    done = cli("compare", finished.folder, second, "--csv", table)
    assert (done.status, done.err) == (0, "")
    assert "cifar-lt/gcl" in done.out
    assert "cifar-lt/ce" in done.out
    accuracy = json.loads((finished.folder / "metrics.json").read_text())["test"]["accuracy"]
    assert f"{accuracy * 100:.1f}" in done.out
    assert len(rows_of(table)) >= 2


def test_compare_folds_seeds(cli: Cli, finished: Any, tmp_path: Path) -> None:
    other = tmp_path / "seed4"
    shutil.copytree(finished.folder, other)
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("seed: 3", "seed: 4"))
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["seeds"]["seed"] = 4
    metrics["test"]["accuracy"] += 0.02
    (other / "metrics.json").write_text(json.dumps(metrics))
    done = cli("compare", finished.folder, other)
    assert done.status == 0
    assert "±" in done.out
