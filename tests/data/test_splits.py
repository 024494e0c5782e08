"""Carving a validation split: stratified, seeded, no class emptied, no group divided."""

from __future__ import annotations

import re
from typing import Any

import datasets
import numpy as np
import pytest

from longtail.data.dataset import Split
from longtail.data.splits import carve, drop_repeats, fold_numbers, group_numbers, groups_of, unit_numbers
from longtail.errors import LongtailError

COUNTS = np.array([100, 40, 5, 2, 1, 0, 7])


def split_of(counts: np.ndarray, groups: list[object] | None = None) -> Split:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    columns = {"film": groups} if groups is not None else None
    return Split.from_arrays(np.zeros((len(labels), 2, 2), np.uint8), labels, columns)


def sizes(split: Split) -> list[int]:
    return [int(size) for size in np.bincount(split.labels, minlength=len(COUNTS))]


def test_images_in_the_table_between_files_are_not_files_of_another_split() -> None:
    kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})

    def split(name: str) -> Split:
        images = [{"bytes": None, "path": name}, {"bytes": b"pixels", "path": None}]
        return Split(datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=kinds))

    remaining, findings = drop_repeats({"train": split("a.png"), "test": split("b.png")}, ["cat", "lynx"])
    assert ([len(rows) for rows in remaining.values()], findings) == ([2, 2], [])


@pytest.mark.parametrize("path", ["/films/1.mp4", "0.png", None])
def test_different_images_in_the_table_are_not_one_file(path: str | None) -> None:
    kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    images = [{"bytes": bytes([number]), "path": path} for number in range(4)]
    split = Split(datasets.Dataset.from_dict({"image": images, "label": [0, 0, 1, 1]}, features=kinds))
    remaining, findings = drop_repeats({"train": split}, ["cat", "lynx"])
    assert (len(remaining["train"]), findings, unit_numbers(split, None)) == (4, [], None)


@pytest.mark.parametrize(("fraction", "held"), [(0.1, [10, 4, 1, 0, 0, 0, 1]), (0.5, [50, 20, 3, 1, 0, 0, 4])])
def test_every_class_gives_its_share(fraction: float, held: list[int]) -> None:
    train, held_out = carve(split_of(COUNTS), fraction, num_classes=len(COUNTS))
    assert sizes(held_out) == held
    assert sizes(train) == (COUNTS - held).tolist()


def test_even_a_huge_fraction_leaves_one_image() -> None:
    train, _ = carve(split_of(COUNTS), 0.999)
    assert sizes(train) == np.minimum(COUNTS, 1).tolist()


def test_the_parts_are_disjoint_complete_and_in_order() -> None:
    train, held_out = carve(split_of(COUNTS), 0.2, seed=4)
    rows = np.concatenate([train.origin_rows, held_out.origin_rows])
    assert sorted(rows.tolist()) == list(range(COUNTS.sum()))
    assert (np.diff(train.origin_rows) > 0).all()
    assert (np.diff(held_out.origin_rows) > 0).all()


def test_the_seed_decides() -> None:
    first, again, other = (carve(split_of(COUNTS), 0.2, seed=s)[1].origin_rows.tolist() for s in (1, 1, 2))
    assert first == again != other


def films(length: int, counts: np.ndarray) -> list[object]:
    """Film names in rows of ``split_of(counts)``: runs of ``length`` images of one class each."""
    labels = split_of(counts).labels
    images_so_far = np.zeros(len(counts), dtype=int)
    names: list[object] = []
    for label in labels:
        names.append(f"{label}-{images_so_far[label] // length}")
        images_so_far[label] += 1
    return names


def test_groups_are_compared_as_class_names_are() -> None:
    values = ["Caf\u00e9", "Cafe\u0301 ", " ", " ", float("nan"), 3.0, "3"]
    assert group_numbers(values).tolist() == [0, 0, 1, 2, 3, 4, 4]
    split = split_of(np.array([4]), ["river", "river\u00a0", "", "\u200b"])
    assert groups_of(split, "film") == ["river", "river", "", ""]


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_on_one_side_and_shares_hold(fraction: float, seed: int) -> None:
    counts = np.array([300, 120, 60, 12, 4, 1])
    train, held_out = carve(split_of(counts, films(4, counts)), fraction, seed=seed, groups="film", num_classes=6)
    assert not set(train.column("film")) & set(held_out.column("film"))
    held = np.bincount(held_out.labels, minlength=6)
    assert (held < np.maximum(counts, 1)).all()
    assert np.abs(held[:3] - counts[:3] * fraction).max() <= 4
    assert held[4:].tolist() == [0, 0]  # a class that is one film cannot be divided


def test_a_group_of_several_classes_moves_whole() -> None:
    counts = np.array([40, 40])
    names: list[object] = [f"film {row % 10}" for row in range(80)]
    train, held_out = carve(split_of(counts, names), 0.25, groups="film")
    assert not set(train.column("film")) & set(held_out.column("film"))
    assert len(held_out) in {16, 24}


def test_rows_without_a_group_stand_alone() -> None:
    groups: list[object] = ["", None] * 20
    counts = np.array([20, 20])
    train, held_out = carve(split_of(counts, groups), 0.25, groups="film")
    assert np.bincount(held_out.labels).tolist() == [5, 5]
    assert len(train) == 30


def test_lists_are_groups_by_their_text() -> None:
    groups: list[object] = [["a", "b"], ["b"], ["a", "b"], ["b"]]
    assert unit_numbers(split_of(np.array([2, 2]), groups), "film").tolist() == [0, 1, 0, 1]


def test_numeric_groups_with_holes() -> None:
    counts = np.array([20, 20])
    names: list[object] = [float("nan"), 1.0, *[2.0, 3.0, 4.0] * 12, 5.0, float("nan")]
    _, held_out = carve(split_of(counts, names), 0.4, groups="film")
    assert len(held_out) > 0


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, float("nan")])
def test_fractions_that_mean_nothing(fraction: float) -> None:
    with pytest.raises(LongtailError, match="between 0 and 1"):
        carve(split_of(COUNTS), fraction)


def test_nothing_to_hold_out_and_no_such_column() -> None:
    with pytest.raises(LongtailError, match="no image"):
        carve(split_of(np.array([1, 1, 2])), 0.1)
    with pytest.raises(LongtailError, match="no group"):
        carve(split_of(np.array([4, 4]), ["x"] * 8), 0.5, groups="film")
    with pytest.raises(LongtailError, match="mean 'film'"):
        carve(split_of(np.array([4, 4]), ["x"] * 8), 0.5, groups="films")


@pytest.mark.parametrize(
    ("counts", "films"),
    [([1, 1, 1], None), ([1, 1, 2], None), ([3, 2, 1], None), ([4, 4], ["x"] * 8), ([9, 9], ["x"] * 9 + ["y"] * 9)],
)
def test_a_larger_fraction_is_advised_only_where_it_holds_something_out(counts: list[int], films: Any) -> None:
    split = split_of(np.array(counts), films)
    groups = "film" if films else None
    works = [share for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 0.9) if _holds(split, share, groups)]
    with pytest.raises(LongtailError, match=r"--data.test_fraction 0") as caught:
        carve(split, 0.01, groups=groups, option="--data.test_fraction")
    advised = re.findall(r"or --data.test_fraction ([\d.]+)\.$", str(caught.value))
    assert [float(text) for text in advised] == works[:1]


def _holds(split: Split, fraction: float, groups: str | None) -> bool:
    try:
        return len(carve(split, fraction, groups=groups)[1]) > 0
    except LongtailError:
        return False


@pytest.mark.parametrize(("counts", "folds", "advice"), [([3, 2], 6, "use fewer"), ([1, 1, 1], 3, "each class")])
def test_fewer_folds_are_advised_only_where_they_help(counts: list[int], folds: int, advice: str) -> None:
    split = split_of(np.array(counts))
    with pytest.raises(LongtailError, match=advice):
        fold_numbers(split.labels, folds)
    if advice == "use fewer":
        assert set(range(3)) <= set(fold_numbers(split.labels, 3).tolist())


# --- folds ------------------------------------------------------------------------------------------------------------


def test_every_class_is_dealt_out_evenly_and_so_are_all_images() -> None:
    split = split_of(COUNTS)
    numbers = fold_numbers(split.labels, 5, seed=3, num_classes=len(COUNTS))
    for label, count in enumerate(COUNTS):
        dealt = np.bincount(numbers[split.labels == label] + 1, minlength=6)
        if count == 1:  # it would leave no training image behind
            assert dealt.tolist() == [1, 0, 0, 0, 0, 0]
            continue
        assert dealt[0] == 0
        assert np.ptp(dealt[1:]) <= 1
    assert np.ptp(np.bincount(numbers[numbers >= 0])) <= 1
    assert (fold_numbers(split.labels, 5, seed=3) == numbers).all()
    assert (fold_numbers(split.labels, 5, seed=4) != numbers).any()


def test_folds_divide_no_group_and_leave_no_class_without_training_images() -> None:
    rng = np.random.default_rng(1)
    films: list[object] = [int(film) for film in rng.integers(0, 40, COUNTS.sum())]
    split = split_of(COUNTS, films)
    numbers = fold_numbers(split.labels, 4, units=unit_numbers(split, "film"), num_classes=len(COUNTS))
    for film in set(films):
        assert len(set(numbers[[other == film for other in films]].tolist())) == 1
    for fold in range(4):
        train = np.bincount(split.labels[numbers != fold], minlength=len(COUNTS))
        assert (train[COUNTS > 0] > 0).all()
    # The large classes are spread over all folds.
    for label in (0, 1):
        assert np.bincount(numbers[(split.labels == label) & (numbers >= 0)], minlength=4).min() > 0


def test_a_class_that_is_one_group_is_always_trained_on() -> None:
    films: list[object] = ["alone" if label == 1 else str(row) for row, label in enumerate([0] * 8 + [1] * 4)]
    split = Split.from_arrays(np.zeros((12, 2, 2), np.uint8), [0] * 8 + [1] * 4, {"film": films})
    numbers = fold_numbers(split.labels, 2, units=unit_numbers(split, "film"))
    assert (numbers[split.labels == 1] == -1).all()
    assert np.bincount(numbers[split.labels == 0]).tolist() == [4, 4]


@pytest.mark.parametrize("groups", [None, "film"])
def test_too_few_images_or_groups_for_the_folds(groups: str | None) -> None:
    split = Split.from_arrays(np.zeros((4, 2, 2), np.uint8), [0, 0, 1, 1], {"film": [0, 0, 1, 2]})
    with pytest.raises(LongtailError, match=r"(images|groups) for 5 folds.*fewer"):
        fold_numbers(split.labels, 5, units=unit_numbers(split, groups))
