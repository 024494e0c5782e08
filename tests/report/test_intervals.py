"""Intervals in the report and the comparison, also for runs that stored none, and the mark on hardly tested classes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from longtail.compare.comparison import compare_runs
from longtail.compare.table import Comparison, print_table, write_csv
from longtail.evaluation.intervals import wilson
from longtail.report.page import render_report
from longtail.run.result import RunResult

MakeRun = Callable[..., Path]


def printed(comparison: Comparison, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_of_an_older_version_gets_its_intervals_from_its_classes(make_run: MakeRun) -> None:
    folder = make_run("old")
    assert "intervals" not in json.loads((folder / "metrics.json").read_text())["test"]
    test = RunResult.load(folder).test
    assert test is not None
    first = test.per_class[0]
    assert first.interval == pytest.approx(tuple(wilson(round((first.recall or 0) * 20), 20)))
    for name in ("accuracy", "balanced_accuracy", "many", "few", "worst_class"):
        low, high = test.intervals[name]
        assert low <= (test[name] or 0) <= high


def test_stored_intervals_are_shown_and_not_computed_again(make_run: MakeRun) -> None:
    folder = make_run("run")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test"]["intervals"] = {
        "level": 0.95, "unit": "film", "correlation": 0.5, "accuracy": [0.125, 0.875], "few": None,
    }  # fmt: skip
    metrics["test"]["per_class"][0]["recall_interval"] = [0.0625, 0.9375]
    path.write_text(json.dumps(metrics))
    comparison = compare_runs([folder])
    assert "12.5–87.5" in printed(comparison)
    page = render_report(comparison)
    assert "12.5–87.5" in page
    assert "6.2–93.8" in page
    assert any("one film" in note for note in comparison.notes)


def test_the_table_and_its_csv_have_both_ends(make_run: MakeRun, tmp_path: Path) -> None:
    comparison = compare_runs([make_run("a", recipe="x/ce"), make_run("b", recipe="x/gcl", seed=1)])
    low, high = comparison.rows[1].intervals["few"] or (0, 0)
    assert f"{100 * low:.1f}–{100 * high:.1f}" in printed(comparison)
    assert max(map(len, printed(comparison, width=80).splitlines())) <= 80
    with write_csv([comparison], tmp_path / "table.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert (float(row["few_low"]), float(row["few_high"])) == pytest.approx((low, high), abs=1e-6)
    assert row["ece_low"] == ""


def test_more_seeds_do_not_make_an_interval_narrower(make_run: MakeRun) -> None:
    folders = [make_run(f"s{seed}", seed=seed) for seed in range(3)]
    widths = [high - low for low, high in (compare_runs([f]).rows[0].intervals["few"] or (0, 0) for f in folders)]
    low, high = compare_runs(folders).rows[0].intervals["few"] or (0, 0)
    assert high - low == pytest.approx(sum(widths) / 3)


def test_a_hardly_tested_class_is_marked_in_words_wherever_it_is_listed(make_run: MakeRun) -> None:
    small, enough = make_run("small", per_class_test=4), make_run("enough", per_class_test=5)
    page, said = render_report(compare_runs([small])), compare_runs([small]).notes
    assert "class 5 *" in page
    assert "No class has 5 test images" in page  # and so none is called hard
    assert any("6 classes have fewer than 5 test images" in note for note in said)
    page = render_report(compare_runs([enough]))
    assert "class 5 *" not in page
    assert not any("fewer than 5" in note for note in compare_runs([enough]).notes)


def test_intervals_that_do_not_know_of_groups_are_said_to_be_too_narrow(make_run: MakeRun) -> None:
    folder = make_run("run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("data:\n", "data:\n  group_column: film\n"))
    assert any("one film" in note and "too narrow" in note for note in compare_runs([folder]).notes)
