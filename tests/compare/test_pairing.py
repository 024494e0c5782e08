"""Paired differences with answers worked out by hand: which runs are partners, and what is said of the others."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from longtail.compare.comparison import compare_runs
from longtail.compare.differences import counted_between, matched_interval
from longtail.compare.table import Comparison, print_table, write_csv
from longtail.errors import LongtailError
from longtail.evaluation.significance import images_interval, unpaired_interval
from longtail.run import read

BASE, OURS = {0: 0.50, 1: 0.52, 2: 0.60}, {0: 0.51, 1: 0.55, 2: 0.59}


@pytest.fixture
def runs(make_run):
    """``runs("gcl", {seed: accuracy}, **options)`` writes runs of a recipe with these accuracies."""

    def make(recipe: str, accuracies: dict[int, float], **options: object) -> list[Path]:
        folders = [
            make_run(f"{recipe}-{seed}", recipe=f"cifar-lt/{recipe}", seed=seed, **options) for seed in accuracies
        ]
        for folder, accuracy in zip(folders, accuracies.values(), strict=True):
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics["test"]["accuracy"] = accuracy
            (folder / "metrics.json").write_text(json.dumps(metrics))
        return folders

    return make


def change(comparison: Comparison, name: str):
    (row,) = [row for row in comparison.rows if row.label == name]
    return row.pairs, row.differences["accuracy"]


def test_the_deviation_is_that_of_the_differences(runs):
    pairs, difference = change(compare_runs([*runs("ce", BASE), *runs("gcl", OURS)]), "gcl")
    # 0.01, 0.03, -0.01: their deviation is 0.02, where that of the means would be 0.066.
    assert (pairs, difference.n) == (3, 3)
    assert difference.mean == pytest.approx(0.01)
    assert difference.std == pytest.approx(0.02)


def test_a_run_without_a_partner_is_left_out_and_named(runs):
    folders = [*runs("ce", BASE | {9: 0.9}), *runs("gcl", OURS | {7: 0.1})]
    comparison = compare_runs(folders)
    pairs, difference = change(comparison, "gcl")
    assert pairs == 3
    assert difference.mean == pytest.approx(0.01)
    assert comparison.rows[1].values["accuracy"].n == 4  # it still counts for its own row
    (note,) = [note for note in comparison.notes if "partner" in note]
    assert all(word in note for word in ("7, 9", "cifar-lt/gcl", "cifar-lt/ce"))


def test_seeds_on_other_images_are_no_partners(runs):
    base, ours = runs("ce", BASE), runs("gcl", OURS)
    metrics = json.loads((ours[1] / "metrics.json").read_text())
    (ours[1] / "metrics.json").write_text(json.dumps(metrics | {"data_hash": "sha256:other"}))
    comparison = compare_runs([*base, *ours])
    pairs, difference = change(comparison, "gcl")
    assert pairs == 2
    assert difference.mean == pytest.approx(0.0)  # 0.01 and -0.01
    assert any(note.startswith("seed 1 of cifar-lt/gcl") for note in comparison.notes)


def test_without_any_pair_it_says_that_means_were_subtracted(runs):
    comparison = compare_runs([*runs("ce", BASE), *runs("gcl", OURS, data_hash="sha256:other")])
    pairs, difference = change(comparison, "gcl")
    assert pairs == 0
    assert difference.mean == pytest.approx(0.01)
    assert difference.std > 0.06
    assert any("paired" in note for note in comparison.notes)


@pytest.mark.parametrize("name", ["cifar-lt/gcl", "gcl", "gcl-1"])
def test_the_baseline_comes_first_and_may_be_named_in_several_ways(name, runs):
    comparison = compare_runs([*runs("ce", BASE), *runs("gcl", OURS), *runs("kps", OURS)], baseline=name)
    assert [row.label for row in comparison.rows] == ["gcl", "ce", "kps"]
    assert change(comparison, "ce")[1].mean == pytest.approx(-0.01)
    assert change(comparison, "kps")[1].mean == pytest.approx(0.0)


def test_a_baseline_that_is_not_there_is_named(runs):
    with pytest.raises(LongtailError, match="'gcl'"):
        compare_runs([*runs("ce", BASE), *runs("gcl", OURS)], baseline="gc")


def test_names_keep_apart_what_its_options_would_fold(runs):
    folders = [*runs("ce", BASE), *runs("gcl", OURS)]
    comparison = compare_runs(folders, names=["a", "a", "b", "c", "c", "c"], baseline="c")
    assert [(row.name, row.seeds) for row in comparison.rows] == [("c", [0, 1, 2]), ("a", [0, 1]), ("b", [2])]
    assert change(comparison, "b")[1].mean == pytest.approx(0.01)


def test_the_table_counts_pairs_and_fits_eighty_columns(runs):
    comparison = compare_runs([*runs("ce", BASE), *runs("gcl", OURS | {7: 0.1}), *runs("kps", {5: 0.5})])
    console = Console(width=80, file=io.StringIO())
    print_table(comparison, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    first = [line.split()[:3] for line in lines if line.split()[:1] == ["difference"]]
    assert first[0] == ["difference", "3", "+1.0"]
    assert "…" not in console.file.getvalue()
    assert "0.5 points" in " ".join(" ".join(lines).split())
    assert lines[lines.index(next(line for line in lines if "+1.0" in line)) + 1].split()[0] == "±2.0"


def test_the_csv_file_holds_baselines_and_pairs_of_several_tables(runs, tmp_path):
    gcl_comparison = compare_runs([*runs("ce", BASE), *runs("gcl", OURS)])
    fbl_comparison = compare_runs([*runs("kps", {0: 0.5}), *runs("fbl", {0: 0.75})])
    with write_csv([gcl_comparison, fbl_comparison], tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["baseline"], row["pairs"]) for row in rows] == [
        ("cifar-lt/ce", "cifar-lt/ce", "3"),
        ("cifar-lt/gcl", "cifar-lt/ce", "3"),
        ("cifar-lt/kps", "cifar-lt/kps", "1"),
        ("cifar-lt/fbl", "cifar-lt/kps", "1"),
    ]
    assert float(rows[1]["accuracy_difference_std"]) == pytest.approx(0.02)
    assert float(rows[3]["accuracy_difference"]) == pytest.approx(0.25)


def test_one_seed_is_judged_by_the_images_that_both_were_given(make_run):
    first, second = (
        make_run(name, recipe=f"cifar-lt/{name}", slope=slope) for name, slope in (("ce", 0.8), ("gcl", 0.6))
    )
    comparison = compare_runs([first, second])
    differences = comparison.rows[1].differences
    base, ours = (read(folder).predictions for folder in (first, second))
    right = [one.prediction == one.label for one in (ours, base)]
    assert differences["balanced_accuracy"].images == images_interval(*right, base.label)
    # On a balanced test set they are one figure.
    assert differences["accuracy"].images == differences["balanced_accuracy"].images
    few = np.isin(base.label, [4, 5])  # 12 and 5 training images
    assert differences["few"].images == images_interval(right[0][few], right[1][few], base.label[few])
    assert differences["ece"].interval is None
    assert any("seeds" in note and "images" in note for note in comparison.notes)
    counted = counted_between(lambda run, seen: (seen.prediction != seen.label, seen.label == 0))
    pair = [[read(folder)] for folder in (second, first)]
    low, high = counted(*pair)
    assert low < right[1][base.label == 0].mean() - right[0][base.label == 0].mean() < high


def test_where_classes_have_unlike_many_test_images_overall_accuracy_counts_images(make_run):
    folders = [make_run(name, recipe=f"cifar-lt/{name}", slope=slope) for name, slope in (("ce", 0.8), ("gcl", 0.6))]
    for folder in folders:
        table = pq.read_table(folder / "predictions.parquet")
        pq.write_table(table.slice(10), folder / "predictions.parquet")
    ce, gcl = (read(folder) for folder in folders)
    right = [run.predictions.prediction == run.predictions.label for run in (ce, gcl)]
    assert matched_interval([ce], [gcl], "accuracy")[1] == images_interval(*right)
    assert matched_interval([ce], [gcl], "balanced_accuracy")[1] == images_interval(*right, ce.predictions.label)


def test_images_that_cannot_be_matched_leave_a_wider_interval(make_run):
    first, second = (
        make_run(name, recipe=f"cifar-lt/{name}", slope=slope) for name, slope in (("ce", 0.8), ("gcl", 0.6))
    )
    matched = compare_runs([first, second]).rows[1].differences["accuracy"].interval
    (second / "predictions.parquet").unlink()
    rows = compare_runs([first, second]).rows
    apart = rows[1].differences["accuracy"].interval
    intervals = [row.intervals["accuracy"] for row in rows]
    expected = unpaired_interval(
        rows[1].values["accuracy"].mean, intervals[1], rows[0].values["accuracy"].mean, intervals[0]
    )
    assert apart == pytest.approx(expected)
    assert apart[1] - apart[0] > matched[1] - matched[0]


def test_predictions_of_another_model_than_the_figure_are_not_used(runs):
    # The accuracies are written over, as those of an earlier stage are not of the predictions in the folder.
    (row,) = compare_runs([*runs("ce", {0: 0.5}), *runs("gcl", {0: 0.9})]).rows[1:]
    interval = row.intervals["accuracy"]
    assert row.differences["accuracy"].images == pytest.approx(unpaired_interval(0.9, interval, 0.5, interval))
