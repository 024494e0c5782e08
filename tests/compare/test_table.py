"""The table of a comparison, in a terminal and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from printed_table import printed
from rich.console import Console

from longtail.compare.comparison import compare_runs
from longtail.compare.table import HEADINGS, print_table, write_csv
from longtail.errors import LongtailError
from longtail.evaluation.posthoc import Adjustment
from longtail.report.sections.provenance import provenance
from longtail.run.model_files import load_info, save_info


def accuracy(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]


def test_rendering_shows_values_and_differences(make_run):
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", slope=0.4)])
    console = Console(width=120, file=io.StringIO())
    print_table(comparison, console)
    text = console.file.getvalue()
    assert f"{100 * comparison.rows[0].values['accuracy'].mean:.1f}" in text
    assert f"+{100 * comparison.rows[1].differences['accuracy'].mean:.1f}" in text
    assert "cifar-lt/gcl" in text


def test_folded_seeds_fit_a_terminal_of_eighty_columns(make_run):
    comparison = compare_runs([make_run("ce"), make_run("ce1", seed=1), make_run("ce2", seed=2)])
    console = Console(width=80, file=io.StringIO())
    print_table(comparison, console)
    text = console.file.getvalue()
    assert "ECE" in text
    assert text.count("±") == len(HEADINGS)
    assert "…" not in text


def test_figures_before_an_adjustment_are_said_to_be_so(make_run, untrained_run, tmp_path):
    folders = [make_run("a", seed=0), make_run("b", seed=1), make_run("c", recipe="cifar-lt/gcl")]
    assert not any("adjustment" in note for note in compare_runs(folders).notes)
    info = load_info(untrained_run(tmp_path / "model"))
    for folder, method in ((folders[1], "logit-adjustment"), (folders[2], "none")):
        save_info(replace(info, adjustment=Adjustment((1.0,) * 3, (0.0,) * 3, {"method": method})), folder)
    comparison = compare_runs(folders)
    (note,) = [note for note in comparison.notes if "adjustment" in note]
    for part in ("1 of the 2 runs of cifar-lt/ce (logit-adjustment)", "cifar-lt/gcl (temperature)"):
        assert part in note
    assert "logit-adjustment" in dict(provenance(comparison.rows)["runs"][1]["facts"])["Adjusted"]
    (folders[2] / "model.json").write_text("{")
    with pytest.raises(LongtailError, match=r"model\.json"):
        compare_runs(folders)


def test_csv_holds_fractions_deviations_and_notes(make_run, tmp_path):
    comparison = compare_runs([make_run("ce"), make_run("ce1", seed=1), make_run("gcl", recipe="cifar-lt/gcl")])
    with write_csv([comparison], tmp_path / "new" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["cifar-lt/ce", "cifar-lt/gcl"]
    assert rows[0]["seeds"] == "0 1"
    for key in HEADINGS:
        assert 0 <= float(rows[0][key]) <= 1
    assert float(rows[0]["accuracy_std"]) > 0
    assert rows[1]["accuracy_std"] == ""
    assert "3 seeds" in rows[0]["notes"]


def test_an_unwritable_csv_is_named(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LongtailError, match="written"):
        write_csv([compare_runs([make_run("ce")])], tmp_path / "file" / "table.csv")


def test_the_table_and_its_csv_have_both_ends(make_run: Callable[..., Path], tmp_path: Path) -> None:
    comparison = compare_runs([make_run("a", recipe="x/ce"), make_run("b", recipe="x/gcl", seed=1)])
    low, high = comparison.rows[1].intervals["few"] or (0, 0)
    assert f"{100 * low:.1f}–{100 * high:.1f}" in printed(comparison)
    assert max(map(len, printed(comparison, width=80).splitlines())) <= 80
    with write_csv([comparison], tmp_path / "table.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert (float(row["few_low"]), float(row["few_high"])) == pytest.approx((low, high), abs=1e-6)
    assert row["ece_low"] == ""
