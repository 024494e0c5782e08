"""The class table of the page: what it says of each class is what the runs say, and it stays small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from longtail.analysis.confusions import confused_pairs, nearest_confusions
from longtail.compare.comparison import compare_runs
from longtail.report import class_table as module
from longtail.report.class_table import class_table, table_json


def test_confusions_are_those_of_a_loop_over_the_images() -> None:
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 7, 300), rng.integers(0, 7, 300)
    nearest = nearest_confusions(confused_pairs(label, prediction, 9), 9, limit=4)
    for index in range(9):
        tally = np.bincount(prediction[(label == index) & (prediction != index)], minlength=9)
        order = [other for other in np.argsort(-tally, kind="stable")[:4] if tally[other]]
        assert [other for other, _ in nearest[index]] == order
        shares = tally[order] / max(1, (label == index).sum())
        assert [share for _, share in nearest[index]] == pytest.approx(shares.tolist())


def test_the_table_agrees_with_the_runs_and_folds_their_seeds(make_run) -> None:
    runs = [make_run("a", seed=0), make_run("b", seed=1), make_run("gcl", recipe="cifar-lt/gcl", slope=0.3)]
    comparison = compare_runs(runs)
    table = class_table(comparison)
    first = comparison.final[0].runs[0]
    assert table["names"] == list(first.counts.names)
    assert [table["group_names"][index] for index in table["groups"]] == list(first.group_of)
    assert (table["train"], table["test"]) == ([300, 120, 60, 30, 12, 5], [20] * 6)
    for row, columns in zip(comparison.final, table["runs"], strict=True):
        recalls = np.mean([run.test.recalls for run in row.runs], axis=0)
        assert columns["recall"] == pytest.approx((1000 * recalls).round(), abs=0.51)
        assert all(
            low <= recall <= high
            for low, recall, high in zip(columns["low"], columns["recall"], columns["high"], strict=True)
        )
        assert sum(columns["taken"][5][1::2]) <= 100
        assert "train" not in columns
    assert table["few"] <= min(table["test"])


def test_a_run_with_other_images_and_small_classes_are_said(make_run) -> None:
    comparison = compare_runs(
        [make_run("a", per_class_test=4), make_run("b", counts=(9, 8, 7, 6, 5, 4), data_hash="x")]
    )
    table = class_table(comparison)
    assert table["few"] > min(table["test"]) == 4
    assert table["runs"][1]["train"] == [9, 8, 7, 6, 5, 4]
    assert {table["group_names"][index] for index in table["runs"][1]["groups"]} == {"few"}


def test_a_run_without_test_split_has_a_table_of_its_classes(make_run) -> None:
    table = class_table(compare_runs([make_run("a", test=False)]))
    assert table["split"] == ""
    assert table["runs"][0]["recall"] == [None] * 6
    assert "taken" not in table["runs"][0]


def test_every_class_has_a_picture_before_any_has_two_and_the_hardest_get_the_rest(make_run, monkeypatch) -> None:
    comparison = compare_runs([make_run("a")])
    table = class_table(comparison)
    every = table["examples"]
    hardest = str(int(np.argmin(comparison.final[0].runs[0].test.recalls)))
    assert next(iter(every)) == hardest
    assert len(every) == 6
    assert [len(entry) for entry in every[hardest]] == [1] * 4 + [4] * 4  # training images, then errors
    first = sum(len(table["images"][each[0][0]]) for each in every.values())
    monkeypatch.setattr(module, "BUDGET", first)
    assert {key: len(each) for key, each in class_table(comparison)["examples"].items()} == dict.fromkeys(every, 1)
    monkeypatch.setattr(module, "BUDGET", len(table["images"][0]))
    short = class_table(comparison)
    assert list(short["examples"]) == [hardest]
    assert sorted(short["left_out"]) == sorted(int(key) for key in every if key != hardest)


def test_an_image_that_several_runs_get_wrong_is_embedded_once(make_run) -> None:
    first, second = make_run("a"), make_run("b", recipe="cifar-lt/gcl")
    (second / "examples.parquet").write_bytes((first / "examples.parquet").read_bytes())
    alone, both = (class_table(compare_runs(runs)) for runs in ([first], [first, second]))
    assert both["images"] == alone["images"]
    assert [entry[1] for entry in both["examples"]["5"] if len(entry) > 1] == [0] * 4 + [1] * 4


def test_no_name_can_end_the_script_that_holds_the_table(make_run) -> None:
    names = ["</script><b>", "b", "c", "d", "e", "f"]
    text = table_json(compare_runs([make_run("a", names=names)]))
    assert "<" not in text
    assert json.loads(text)["names"] == names
