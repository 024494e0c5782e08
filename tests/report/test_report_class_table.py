"""The class table of the page: what it says of each class is what the runs say, and it stays small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from longtail.report import class_table as module
from longtail.report.class_table import class_table, nearest_confusions, table_json
from longtail.report.compare import compare_runs


def test_confusions_are_those_of_a_loop_over_the_images() -> None:
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 7, 300), rng.integers(0, 7, 300)
    found = nearest_confusions(label, prediction, 9, limit=4)
    for one in range(9):
        tally = np.bincount(prediction[(label == one) & (prediction != one)], minlength=9)
        order = [other for other in np.argsort(-tally, kind="stable")[:4] if tally[other]]
        assert found.taken[one][found.taken[one] >= 0].tolist() == order
        assert found.share[one][: len(order)] == pytest.approx(tally[order] / max(1, (label == one).sum()))


def test_the_table_agrees_with_the_runs_and_folds_their_seeds(make_run) -> None:
    runs = [make_run("a", seed=0), make_run("b", seed=1), make_run("gcl", recipe="cifar-lt/gcl", slope=0.3)]
    comparison = compare_runs(runs)
    found = class_table(comparison)
    first = comparison.final[0].runs[0]
    assert found["names"] == list(first.counts.names)
    assert [found["group_names"][index] for index in found["groups"]] == list(first.group_of)
    assert (found["train"], found["test"]) == ([300, 120, 60, 30, 12, 5], [20] * 6)
    for row, said in zip(comparison.final, found["runs"], strict=True):
        recalls = np.mean([run.test.recalls for run in row.runs], axis=0)
        assert said["recall"] == pytest.approx((1000 * recalls).round(), abs=0.51)
        assert all(
            low <= recall <= high for low, recall, high in zip(said["low"], said["recall"], said["high"], strict=True)
        )
        assert sum(said["taken"][5][1::2]) <= 100
        assert "train" not in said
    assert found["words"] == {}


def test_a_run_with_other_images_and_small_classes_are_said(make_run) -> None:
    comparison = compare_runs(
        [make_run("a", per_class_test=4), make_run("b", counts=(9, 8, 7, 6, 5, 4), data_hash="x")]
    )
    found = class_table(comparison)
    assert found["words"] == {"4": "4 test images: too few to tell"}
    assert found["runs"][1]["train"] == [9, 8, 7, 6, 5, 4]
    assert {found["group_names"][index] for index in found["runs"][1]["groups"]} == {"few"}


def test_a_run_without_test_split_has_a_table_of_its_classes(make_run) -> None:
    found = class_table(compare_runs([make_run("a", test=False)]))
    assert found["split"] == ""
    assert found["runs"][0]["recall"] == [None] * 6
    assert "taken" not in found["runs"][0]


def test_pictures_stop_where_their_bytes_are_spent_hardest_first(make_run, monkeypatch) -> None:
    comparison = compare_runs([make_run("a")])
    every = class_table(comparison)["examples"]
    hardest = str(int(np.argmin(comparison.final[0].runs[0].test.recalls)))
    assert len(every) == 6
    assert next(iter(every)) == hardest
    monkeypatch.setattr(module, "EXAMPLE_BYTES", 1 + sum(len(one["uri"]) for one in every[hardest]))
    assert list(class_table(comparison)["examples"]) == [hardest]


def test_no_name_can_end_the_script_that_holds_the_table(make_run) -> None:
    names = ["</script><b>", "b", "c", "d", "e", "f"]
    text = table_json(compare_runs([make_run("a", names=names)]))
    assert "<" not in text
    assert json.loads(text)["names"] == names
