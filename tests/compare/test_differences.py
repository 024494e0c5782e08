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
from longtail.compare.table import Comparison, print_table, write_csv
from longtail.evaluation.significance import Difference, images_interval
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
