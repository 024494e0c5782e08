"""Options that name columns, in every command that takes a SOURCE."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longtail.experiments.grid_plan import Grid
from longtail.run.layout import read_config

Call = Callable[..., Any]
NAMED = ("--image-column", "where", "--label-column", "who", "--split-column", "when")


@pytest.fixture
def table(make_folder: Call) -> Path:
    """Six images of two classes, with columns of unusual names."""
    file: Path = make_folder({"a": 6}) / "list.csv"
    rows = [f"a/{row}.png,{'cat' if row % 2 else 'lynx'},{'test' if row > 3 else 'train'}\n" for row in range(6)]
    file.write_text("where,who,when\n" + "".join(rows))
    return file


def test_every_command_takes_the_columns(cli: Call, train: Call, table: Path, tmp_path: Path) -> None:
    source = f"csv:{table}"
    assert json.loads(cli("inspect", source, *NAMED, "--json").out)["counts"] == {"train": [2, 2], "test": [1, 1]}
    assert cli("prepare", source, *NAMED, "--out", tmp_path / "small", "--size", "8", "--quiet").status == 0
    done = train(source, *NAMED, "--data.validation_fraction", "0")
    assert done.status == 0, done.complaint
    config = read_config(tmp_path / "run")
    assert (config.data.image_column, config.data.label_column, config.data.split_column) == ("where", "who", "when")
    assert json.loads(cli("evaluate", tmp_path / "run", "--json").out)["num_images"] == 2  # by the stored configuration
    assert json.loads(cli("evaluate", tmp_path / "run", source, *NAMED, "--json").out)["num_images"] == 2
    assert cli("train", "--resume", tmp_path / "run").status == 0
    refused = cli("evaluate", tmp_path / "run", "--split-column", "when")
    assert (refused.status, "--split-column" in refused.complaint) == (2, True)


def test_a_grid_is_planned_with_the_columns(cli: Call, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Grid] = []

    def fail_all(grid: Grid, *_: object, **__: object) -> dict[Path, str]:
        planned.append(grid)
        return {run.folder: "not trained here." for run in grid.runs}

    monkeypatch.setattr("longtail.experiments.grid_runner.run_grid", fail_all)
    words = ("compare", f"csv:{table}", "--recipe", "cifar-lt/ce", "--recipe", "cifar-lt/gcl", "--out", "grid")
    done = cli(*words, "--label-column", "kind", "--image-column", "where", "--set", "data.image_column=other")
    assert "2 of 2 runs failed" in done.complaint
    data = [run.config.data for run in planned[0].runs]
    assert {(config.label_column, config.image_column, config.split_column) for config in data} == {
        ("kind", "other", None)
    }
    for misplaced in (("run", "--label-column", "who"), ("--grid", "grid.yaml", "--label-column", "who")):
        refused = cli("compare", *misplaced)
        assert (refused.status, "--label-column" in refused.complaint) == (2, True)


def test_what_is_odd_about_a_table_is_said_when_it_is_trained_on(train: Call, table: Path, tmp_path: Path) -> None:
    rows = [*(f"a/{row}.png,{'cat' if row % 2 else 'lynx'},{'test' if row > 3 else 'train'}" for row in range(6))]
    table.write_text("\n".join(["path,label,part", *rows, "a/0.png,lynx,test", "a/1.png,cat,train", ""]))
    done = train(f"csv:{table}", "--data.validation_fraction", "0")
    assert done.status == 0, done.err
    notes = json.loads((tmp_path / "run" / "metrics.json").read_text())["notes"]
    for text in (done.err, "\n".join(notes)):
        for words in (
            "'part'",
            "held out",
            "once",
        ):
            assert words in " ".join(text.split())


def test_an_advice_names_an_option_that_the_command_has(train: Call, table: Path) -> None:
    complaint = train(f"csv:{table}").complaint
    assert "--image-column" in complaint
    assert "unknown option" not in train(f"csv:{table}", "--image-column", "where", "--label-column", "whom").complaint
