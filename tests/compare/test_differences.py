"""What seeds and test images say of a difference together: one rule for one seed, two and many, with its reasons."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from longtail.compare.comparison import compare_runs
from longtail.compare.differences import counted_between, matched_interval, prior_between
from longtail.compare.table import Comparison, print_table, write_csv
from longtail.errors import LongtailError
from longtail.evaluation.significance import Difference, images_interval, unpaired_interval
from longtail.report.page import render_report
from longtail.report.sections.results import verdict
from longtail.run import read

MakeRun = Callable[..., Path]


@pytest.fixture
def tested(make_run: MakeRun) -> Callable[..., Path]:
    """``tested("gcl", right, seed=1)`` writes a run that has these of its test images right, 100 of each class."""

    def make(name: str, right: np.ndarray, *, seed: int = 0, paths: Sequence[str] = (), **options: object) -> Path:
        each = len(right) // 6
        folder = make_run(f"{name}-{seed}", recipe=f"cifar-lt/{name}", seed=seed, per_class_test=each, **options)
        write_predictions(folder, np.asarray(right, dtype=bool), paths)
        return folder

    return make


def write_predictions(folder: Path, right: np.ndarray, paths: Sequence[str] = (), group: Sequence[str] = ()) -> None:
    """Replace what a run says of its test images, in both of its files."""
    label = np.repeat(np.arange(6), len(right) // 6)
    table = pq.read_table(folder / "predictions.parquet")
    columns = {"label": label, "prediction": np.where(right, label, (label + 1) % 6)}
    if paths:
        columns["path"] = pa.array(paths)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    if group:
        table = table.append_column("group", pa.array(group))
    pq.write_table(table, folder / "predictions.parquet")
    metrics = json.loads((folder / "metrics.json").read_text())
    recall = right.reshape(6, -1).mean(axis=1)
    test = metrics["test"] | {"accuracy": float(right.mean()), "balanced_accuracy": float(recall.mean())}
    for name, rows in metrics["groups"].items():
        test[name] = float(recall[rows].mean())
    for row, value in zip(test["per_class"], recall, strict=True):
        row["recall"] = float(value)
    if group:
        test["intervals"] = {"level": 0.95, "unit": "film", "correlation": 0.5, "accuracy": [0.1, 0.9]}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"test": test}))


def draws(seeds: int, *gains: float, each: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Two configurations, (S, N) each: the second has every error of the first but a share of each seed, ``gains``."""
    draw = np.random.default_rng(0)
    base = draw.random((seeds, 6 * each)) < 0.5
    better = draw.random((seeds, 6 * each)) < np.array(gains)[:, None]
    return base, base | better


def accuracy(comparison: Comparison) -> Difference:
    difference = comparison.rows[1].differences["accuracy"]
    assert difference is not None
    return difference


def width(change: Difference) -> float:
    assert change.images is not None
    return change.images[1] - change.images[0]


def printed(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_table(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_two_seeds_that_each_are_evidence_are_evidence_together(tested: Callable[..., Path]) -> None:
    base, ours = draws(2, 0.1, 0.4)
    folders = [[tested("ce", base[s], seed=s), tested("gcl", ours[s], seed=s)] for s in range(2)]
    assert all(accuracy(compare_runs(pair)).is_evidence for pair in folders)
    difference = accuracy(compare_runs([*folders[0], *folders[1]]))
    assert (difference.is_evidence, difference.holds, difference.n) == (True, "images", 2)
    assert difference.images == images_interval(ours, base, np.repeat(np.arange(6), 100))


def test_three_seeds_that_disagree_are_no_evidence_and_the_reason_is_printed(
    tested: Callable[..., Path], tmp_path: Path
) -> None:
    base, ours = draws(3, 0.02, 0.1, 0.5)
    folders = [tested(name, right[s], seed=s) for s in range(3) for name, right in (("ce", base), ("gcl", ours))]
    comparison = compare_runs(folders)
    difference = accuracy(comparison)
    assert (difference.is_evidence, difference.holds, difference.n) == (False, "images", 3)
    text = printed(comparison)
    assert f"+{100 * difference.mean:.1f}±{100 * (difference.std or 0):.1f}i" in text
    assert re.search(r"\bi\b.*\bs\b.*not over", text)
    assert "not over" in verdict(comparison)
    assert "over images" in render_report(comparison)
    with write_csv([comparison], tmp_path / "table.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert row["accuracy_difference_holds"] == "images"
    assert float(row["accuracy_difference_images_low"]) > 0 > float(row["accuracy_difference_seeds_low"])
    assert row["accuracy_difference_low"] == row["accuracy_difference_seeds_low"]  # the outer end of the two
    assert row["ece_difference_holds"] in ("neither", "seeds")
    assert row["ece_difference_images_low"] == ""


def test_three_seeds_that_agree_are_evidence_over_both(tested: Callable[..., Path]) -> None:
    base, ours = draws(3, 0.2, 0.22, 0.19)
    folders = [tested(name, right[s], seed=s) for s in range(3) for name, right in (("ce", base), ("gcl", ours))]
    comparison = compare_runs(folders)
    assert accuracy(comparison).holds == "images and seeds"
    assert all(word in verdict(comparison) for word in ("images", "seeds"))
    assert any(" accuracy (" in note for note in comparison.notes) is False


def test_seeds_that_have_no_partner_are_still_matched_by_images(tested: Callable[..., Path]) -> None:
    base, ours = draws(4, 0.1, 0.4, 0.1, 0.4)
    baseline_runs = [tested("ce", base[s], seed=s) for s in (0, 1)]
    our_runs = [tested("gcl", ours[s], seed=s) for s in (2, 3)]
    difference = accuracy(compare_runs([*baseline_runs, *our_runs]))
    assert (difference.n, difference.seeds) == (2, None)
    assert difference.images == images_interval(ours[2:], base[:2], np.repeat(np.arange(6), 100))


def test_a_seed_given_twice_is_no_second_seed(tested: Callable[..., Path], make_run: MakeRun) -> None:
    base, ours = draws(4, 0.1, 0.1, 0.1, 0.1)
    baseline_runs = [tested(f"ce{s}", base[s], seed=0) for s in range(4)]
    our_runs = [tested(f"gcl{s}", ours[s], seed=0) for s in range(4)]
    comparison = compare_runs([*baseline_runs, *our_runs], names=["ce"] * 4 + ["gcl"] * 4)
    assert accuracy(comparison).seeds is None
    assert accuracy(comparison).holds == "images"


def test_seeds_with_test_images_of_their_own_are_matched_each_by_itself(tested: Callable[..., Path]) -> None:
    base, ours = draws(2, 0.1, 0.3)
    folders = []
    for s in range(2):
        # As many images of each class, in the same order: the labels alone do not tell that the images are others.
        paths, images = [f"/data/{s}-{number}.png" for number in range(600)], f"sha256:{s}"
        folders.append(tested("ce", base[s], seed=s, paths=paths, data_hash=images))
        folders.append(tested("gcl", ours[s], seed=s, paths=paths, data_hash=images))
    comparison = compare_runs(folders)
    label = np.repeat(np.arange(6), 100)
    each = [images_interval(ours[s], base[s], label) for s in range(2)]
    assert accuracy(comparison).images == pytest.approx(np.mean(each, axis=0))
    assert any("own test images" in note for note in comparison.notes)


def test_other_test_images_have_a_wider_interval_and_a_note(tested: Callable[..., Path]) -> None:
    base, ours = draws(3, 0.05, 0.05, 0.05)
    first = [tested("ce", base[s], seed=s) for s in range(3)]
    second = [tested("gcl", ours[s], seed=s) for s in range(3)]
    matched = accuracy(compare_runs([*first, *second]))
    for s, folder in enumerate(second):
        write_predictions(folder, ours[s], [f"/other/b{number}.png" for number in range(600)])
    comparison = compare_runs([*first, *second])
    difference = accuracy(comparison)
    assert difference.mean == pytest.approx(matched.mean)
    assert width(difference) > 1.2 * width(matched)
    assert any("tested on" in note for note in comparison.notes)


def test_without_predictions_three_seeds_are_judged_alone_and_two_by_both_intervals(
    tested: Callable[..., Path],
) -> None:
    base, ours = draws(3, 0.2, 0.21, 0.2)
    folders = [tested(name, right[s], seed=s) for s in range(3) for name, right in (("ce", base), ("gcl", ours))]
    for folder in folders:
        (folder / "predictions.parquet").unlink()
    three, two = compare_runs(folders), compare_runs(folders[:4])
    assert (accuracy(three).images, accuracy(three).holds) == (None, "seeds")
    assert any("seeds alone" in note for note in three.notes)
    assert (accuracy(two).seeds, accuracy(two).holds) == (None, "images")
    ece = two.rows[1].differences["ece"]
    assert ece is not None
    assert (ece.interval, ece.is_evidence) == (None, False)


def test_films_are_matched_as_far_as_they_are_kept(tested: Callable[..., Path]) -> None:
    draw, film = np.random.default_rng(0), np.repeat(np.arange(60), 10)
    base = np.repeat(draw.random((2, 60)) < 0.4, 10, axis=1)
    ours = np.repeat(draw.random((2, 60)) < 0.6, 10, axis=1)
    folders = [tested(name, right[s], seed=s) for s in range(2) for name, right in (("ce", base), ("gcl", ours))]
    frames = accuracy(compare_runs(folders))
    for folder in folders:
        right = (base, ours)["gcl" in folder.name][read(folder).seed or 0]
        write_predictions(folder, right, group=[f"film {number}" for number in film])
    comparison = compare_runs(folders)
    films = accuracy(comparison)
    assert films.images == images_interval(ours, base, np.repeat(np.arange(6), 100), cluster=film)
    assert width(films) > 2 * width(frames)


def test_under_another_prior_images_are_matched_too(tested: Callable[..., Path]) -> None:
    base, ours = draws(2, 0.1, 0.4)
    sides = [[read(tested(name, right[s], seed=s)) for s in range(2)] for name, right in (("ce", base), ("gcl", ours))]
    balanced = prior_between(np.full(6, 1 / 6))(sides[1], sides[0])
    matched = matched_interval(sides[1], sides[0], "balanced_accuracy")
    assert matched is not None
    assert balanced == pytest.approx(matched[1])
    first = prior_between(np.array([1.0, *[1e-9] * 5]))(sides[1], sides[0])
    assert first == pytest.approx(images_interval(ours[:, :100], base[:, :100]), abs=0.01)


def test_partners_on_validation_images_of_their_own_are_judged_by_their_seeds(make_run: MakeRun) -> None:
    folders = [make_run(f"ce-{seed}", seed=seed, data_hash=f"{seed}") for seed in range(3)]
    folders += [
        make_run(f"gcl-{seed}", recipe="cifar-lt/gcl", slope=0.5 + 0.01 * seed, seed=seed, data_hash=f"{seed}")
        for seed in range(3)
    ]
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"test": None, "validation": metrics["test"]}))
    change = accuracy(compare_runs(folders))
    assert change.images is None
    assert change.seeds is not None


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


def test_a_baseline_is_found_by_its_path_and_not_by_a_folder_name_of_several_rows(make_run, monkeypatch, tmp_path):
    folders = [make_run("ce/seed-0"), make_run("gcl/seed-0", recipe="cifar-lt/gcl")]
    monkeypatch.chdir(tmp_path)
    for spelling in ("gcl/seed-0", "./gcl/seed-0/", str(folders[1])):
        assert compare_runs(folders, baseline=spelling).rows[0].label == "gcl"
    with pytest.raises(LongtailError, match="several"):
        compare_runs(folders, baseline="seed-0")


def test_rows_that_only_their_training_images_tell_apart_stay_apart(make_run):
    folders = [make_run("jan/ce/seed-0"), make_run("feb/ce/seed-0", counts=(300, 120, 60, 30, 12, 8))]
    assert [row.name for row in compare_runs(folders).rows] == [
        "cifar-lt/ce (jan/ce/seed-0)",
        "cifar-lt/ce (feb/ce/seed-0)",
    ]


def test_groups_of_other_classes_have_no_difference(make_run):
    first, second = make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl")
    metrics = json.loads((second / "metrics.json").read_text())
    metrics["groups"] = {"many": [0], "medium": [1, 2, 3], "few": [4, 5]}
    (second / "metrics.json").write_text(json.dumps(metrics))
    comparison = compare_runs([first, second])
    assert comparison.rows[1].differences["few"] is None
    assert comparison.rows[1].differences["balanced_accuracy"].mean == 0.0
    assert any("other classes" in note for note in comparison.notes)


def test_classes_in_another_order_are_called_so(make_run):
    names = ["a", "b", "c", "d", "e", "f"]
    with pytest.raises(LongtailError, match="order"):
        compare_runs([make_run("ce", names=names), make_run("gcl", names=names[::-1])])


def test_a_row_name_in_brackets_is_printed(make_run):
    console = Console(width=120, file=io.StringIO())
    print_table(compare_runs([make_run("vit[lr0.1]", recipe=""), make_run("[/old]", recipe="")]), console)
    assert "vit[lr0.1]" in console.file.getvalue()


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
