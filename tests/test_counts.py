"""ClassCounts: its figures against their definitions, shot groups at their bounds, and counts that are refused."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from longtail import ClassCounts


@pytest.mark.parametrize("counts", [(500, 50, 5), (7, 7), (3, 0, 900, 1), (1, 0)])
def test_figures_follow_their_definitions(counts: tuple[int, ...]) -> None:
    class_counts = ClassCounts(counts)
    safe = [max(count, 1) for count in counts]
    deficits = [math.log(max(safe)) - math.log(count) for count in safe]
    assert class_counts.imbalance_ratio == max(safe) / min(safe)
    assert class_counts.log_deficit.tolist() == pytest.approx(deficits)
    assert class_counts.tail_weight.tolist() == pytest.approx([each / (max(deficits) or 1) for each in deficits])
    assert class_counts.prior.tolist() == pytest.approx([count / sum(safe) for count in safe])
    assert (class_counts.total, class_counts.num_classes) == (sum(counts), len(counts))


def test_the_bounds_of_the_shot_groups_are_medium() -> None:
    assert ClassCounts([101, 100, 20, 19]).group_of() == ["many", "medium", "medium", "few"]
    assert ClassCounts([6, 5, 4]).group_of(many=5, few=5) == ["many", "medium", "few"]
    with pytest.raises(ValueError, match="few=7"):
        ClassCounts([6, 5]).groups(many=5, few=7)


def test_thirds_go_by_rank_and_hold_each_class_once() -> None:
    groups = ClassCounts([5, 900, 30, 7, 1, 60, 2]).groups(by="thirds")
    assert {name: rows.tolist() for name, rows in groups.items()} == {
        "many": [1, 2, 5],
        "medium": [0, 3],
        "few": [4, 6],
    }


def test_names_move_with_their_counts() -> None:
    permuted = ClassCounts([5, 3, 1], names=["cat", "lynx", "margay"]).permute([2, 0, 1])
    assert (permuted.counts, permuted.names) == ((1, 5, 3), ("margay", "cat", "lynx"))
    with pytest.raises(ValueError, match="order"):
        permuted.permute([0, 0, 1])


def test_labels_are_counted_and_classes_without_images_stay() -> None:
    counted = ClassCounts.from_labels(np.array([2, 0, 2]), ["a", "b", "c", "d"])
    assert (counted.counts, counted.names) == ((1, 0, 2, 0), ("a", "b", "c", "d"))
    labels = np.array([2, 0, 2])
    assert ClassCounts.from_labels(labels, labels.max() + 1) == ClassCounts.from_labels(labels, 3)
    for label in (-1, 3):
        with pytest.raises(ValueError, match=f"label {label} "):
            ClassCounts.from_labels([0, label], 3)


@pytest.mark.parametrize("counts", [[4, 2], np.array([4, 2]), torch.tensor([4.0, 2.0]), ClassCounts([4, 2])])
def test_counts_come_as_numbers_arrays_tensors_or_themselves(counts: Any) -> None:
    assert ClassCounts(counts) == ClassCounts.of(counts) == ClassCounts((4, 2))


@pytest.mark.parametrize(
    "gather", [Counter, lambda labels: dict(Counter(labels)), lambda labels: pd.Series(labels).value_counts()]
)
def test_counts_of_a_mapping_are_taken_by_their_labels(gather: Any) -> None:
    assert ClassCounts(gather([2, 0, 1, 1, 2, 2, 2])).counts == (1, 2, 4)


@pytest.mark.parametrize(
    ("counts", "names", "word"),
    [
        ([4], None, "2 classes"),
        ([4, -1], None, "-1"),
        ([0, 0], None, "one image"),
        ([4, 2.5], None, "fraction"),
        ([4, float("inf")], None, "whole"),
        ([[4, 2]], None, r"\(1, 2\)"),
        (["4", "2"], None, "non-number"),
        (Counter([0, 0, 2]), None, "mapping"),
        ({"cat": 4, "lynx": 2}, None, "mapping"),
        (pd.Series([4, 2], index=["cat", "lynx"]), None, "mapping"),
        ({}, None, "2 classes"),
        ([4, 2], ["a"], "1 class names"),
        ([4, 2], ["a", "a"], "'a'"),
    ],
)
def test_counts_of_no_data_set_are_refused(counts: Any, names: list[str] | None, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ClassCounts(counts, names)
