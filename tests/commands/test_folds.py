"""`longtail train --folds`: what it prints, how it is resumed, and which words do not go together with it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from longtail.commands.output import class_table, summary_table
from longtail.compare.comparison import compare_runs
from longtail.console import Reporter
from longtail.experiments.grid_plan import Grid, state_of
from longtail.run.checkpoint import remove_checkpoints
from longtail.training.experiment import start_run

Cli = Callable[..., Any]


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the folds in this process, which saves the start of others."""

    def run_all(grid: Grid, _: Reporter) -> dict[Path, str]:
        for run in grid.runs:
            if state_of(run) != "finished":
                start_run(run.config, run.folder, Reporter(quiet=True))
                remove_checkpoints(run.folder)  # as the command does
        return {}

    monkeypatch.setattr("longtail.experiments.folds.run_grid", run_all)


@pytest.mark.usefixtures("_here")
def test_folds_end_in_one_table_with_intervals_and_can_be_resumed(train: Cli, cli: Cli, tmp_path: Path) -> None:
    words = ("digits", "--folds", 2, "--imbalance-ratio", 50)
    done = train(*words, out="cv")
    assert done.status == 0, done.err
    assert "95% interval" in done.out
    assert "2 folds" in done.out
    assert "untouched" in done.out
    assert "without --folds" in done.out
    assert (tmp_path / "cv" / "fold-1" / "model.safetensors").is_file()
    assert "exists already" in train(*words, out="cv").complaint
    assert "complete already" in cli("train", "--resume", tmp_path / "cv").err
    (tmp_path / "cv" / "metrics.json").unlink()
    again = cli("train", "--resume", tmp_path / "cv")
    assert again.status == 0, again.err
    assert (tmp_path / "cv" / "metrics.json").is_file()
    assert "fold-0" in cli("evaluate", tmp_path / "cv").complaint


@pytest.mark.usefixtures("_here")
def test_the_table_says_how_many_images_are_judged(train: Cli, cli: Cli, make_folder: Cli, tmp_path: Path) -> None:
    places = make_folder({"ant": 6, "bee": 6, "cat": 2})
    lines = ["path,label,haul"]
    for name, hauls in (("ant", "zzxyxy"), ("bee", "xyxyxy"), ("cat", "zz")):  # all cats are in haul z
        lines += [f"{places}/{name}/{number}.png,{name},{haul}" for number, haul in enumerate(hauls)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    done = train(f"csv:{tmp_path / 't.csv'}", "--folds", 2, "--group-column", "haul", out="cv")
    assert done.status == 0, done.err
    assert "2 folds, 10 of 14 images" in done.out
    assert "4 of 14 images" in done.out
    assert "'ant' 2, 'cat' 2 (" in done.out
    metrics = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    assert metrics["never_judged"] == {"ant": 2, "cat": 2}
    assert any("4 of 14" in note for note in compare_runs([tmp_path / "cv"]).notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--folds", "1"], "--data.folds "),
        (["--folds", "-2"], "--folds "),
        (["--data.fold", "0"], "--data.fold 0"),
        (["--folds", "3", "--data.fold", "3"], "--data.fold 3"),
        (["--folds", "5000"], "5000 folds"),
    ],
)
def test_folds_that_make_no_sense(train: Cli, tmp_path: Path, options: list[str], sentence: str) -> None:
    assert sentence in train("digits", *options).complaint
    assert not (tmp_path / "run").exists()


def _row(name: str, recall: float, images: int) -> dict[str, Any]:
    return {
        "name": name, "train_count": 9, "test_count": images, "recall": recall, "precision": None,
        "recall_interval": [0.1, 0.2], "precision_interval": None,
    }  # fmt: skip


def _printed(summary: dict[str, Any]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=100)
    console.print(summary_table(summary))
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_tables_mark_hardly_tested_classes_and_say_how_many_there_are() -> None:
    rows = [_row("many", 0.9, 50), _row("[few]", 0.1, 4)]
    table = class_table({"per_class": rows})
    assert [str(cell) for cell in table.columns[0].cells] == ["[few] *", "many"]
    assert "* fewer than 5 test images" in str(table.caption)
    assert class_table({"per_class": rows[:1]}).caption is None
    assert re.search(r"\b1\b.*\b2\b", str(class_table({"per_class": rows}, limit=1).caption))
    every = class_table({"per_class": [*rows, _row("none", None, 0) | {"train_count": 70}]}, limit=None)
    assert [str(cell) for cell in every.columns[0].cells] == ["none", "many", "[few] *"]  # the commonest first
    assert list(every.columns[3].cells)[:2] == ["n/a", "90.0"]
    summary = {
        "accuracy": 0.5,
        "per_class": rows,
        "intervals": {"level": 0.95, "unit": "image", "accuracy": [0.4, 0.6]},
    }
    assert _printed(summary) == [
        ["figure", "value", "95%", "interval"],
        ["accuracy", "50.00%", "40.0–60.0"],
        ["note:", "1", "of", "2", "tested", "classes", "has", "fewer", "than", "5", "test", "images."],
    ]
    assert _printed({"accuracy": 0.5}) == [["figure", "value"], ["accuracy", "50.00%"]]
