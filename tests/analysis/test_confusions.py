"""Where errors go, and which images stand for the classes."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.analysis import confusions
from longtail.analysis.confusions import (
    FULL,
    choose_examples,
    confused_pairs,
    destinations,
    nearest_confusions,
    usual_detail,
    varied_errors,
)
from longtail.evaluation.metrics import group_masks, shot_group_indices

GROUPS = ["many", "many", "medium", "few", "few"]


def test_a_perfect_predictor_has_no_destinations_and_no_pairs():
    label = np.arange(5).repeat(4)
    measured = destinations(label, label, GROUPS)
    assert measured.right.tolist() == [1.0, 1.0, 1.0]
    assert not measured.wrong.any()
    assert np.isnan(measured.of_errors).all()
    pairs = confused_pairs(label, label, 5)
    assert pairs.label.size == 0
    assert nearest_confusions(pairs, 5) == [[]] * 5


def test_a_constant_predictor_sends_everything_to_one_group():
    label = np.arange(5).repeat(4)
    measured = destinations(label, np.zeros_like(label), GROUPS)
    assert measured.images.tolist() == [8, 4, 8]
    assert measured.right.tolist() == [0.5, 0.0, 0.0]
    assert measured.wrong[:, 0].tolist() == [0.5, 1.0, 1.0]
    assert not measured.wrong[:, 1:].any()
    assert measured.of_errors[:, 0].tolist() == [1.0, 1.0, 1.0]


def test_rows_sum_to_one_and_chance_counts_only_the_other_classes():
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(5, size=400), rng.integers(5, size=400)
    measured = destinations(label, prediction, GROUPS)
    np.testing.assert_allclose(measured.right + measured.wrong.sum(axis=1), 1)
    assert measured.others.tolist() == [[0.25, 0.25, 0.5], [0.5, 0.0, 0.5], [0.5, 0.25, 0.25]]


def test_random_errors_go_where_the_other_classes_are():
    rng = np.random.default_rng(1)
    label = rng.integers(5, size=60_000)
    prediction = (label + rng.integers(1, 5, size=label.size)) % 5
    measured = destinations(label, prediction, GROUPS)
    np.testing.assert_allclose(measured.of_errors, measured.others, atol=0.02)


def test_a_group_without_images_or_classes_is_unknown_and_not_zero():
    measured = destinations(np.array([0]), np.array([0]), ["many", "few"])
    assert measured.right.tolist()[0] == 1.0
    assert np.isnan(measured.right[1:]).all()
    assert np.isnan(measured.wrong[1:]).all()
    assert np.isnan(measured.others[1]).all()
    assert measured.others[2].tolist() == [1.0, 0.0, 0.0]


def test_pairs_are_those_of_the_confusion_matrix_most_frequent_first():
    rng = np.random.default_rng(2)
    label, prediction = rng.integers(6, size=500), rng.integers(6, size=500)
    matrix = np.zeros((6, 6), dtype=int)
    np.add.at(matrix, (label, prediction), 1)
    pairs = confused_pairs(label, prediction, 6)
    assert (np.diff(pairs.images) <= 0).all()
    assert len(pairs.label) == (matrix * (1 - np.eye(6)) > 0).sum()
    assert pairs.images.tolist() == matrix[pairs.label, pairs.prediction].tolist()
    np.testing.assert_allclose(pairs.share, pairs.images / matrix.sum(axis=1)[pairs.label])


def test_of_pairs_as_frequent_the_one_that_takes_more_of_its_class_comes_first():
    pairs = confused_pairs(np.array([0, 0, 0, 2]), np.array([1, 0, 0, 1]), 3)
    assert list(zip(pairs.label, pairs.prediction, pairs.share, strict=True)) == [(2, 1, 1.0), (0, 1, 1 / 3)]


def test_nearest_confusions_agree_with_the_matrix():
    rng = np.random.default_rng(3)
    label, prediction = rng.integers(8, size=900), rng.integers(8, size=900) // 2
    measured = nearest_confusions(confused_pairs(label, prediction, 8), 8, limit=2)
    for index, ((first, share), (second, _)) in enumerate(measured):
        taken = np.bincount(prediction[(label == index) & (prediction != index)], minlength=8)
        assert share == pytest.approx(taken.max() / (label == index).sum())
        assert taken[first] == taken.max()
        assert taken[second] == np.sort(taken)[-2]


def test_an_absent_class_has_no_nearest_confusion():
    measured = nearest_confusions(confused_pairs(np.array([0, 2]), np.array([2, 0]), 3), 3, limit=1)
    assert measured == [[(2, 1.0)], [], [(0, 1.0)]]


def test_thousands_of_classes_take_no_matrix():
    rng = np.random.default_rng(4)
    label, prediction = np.arange(24_000) % 8_142, rng.integers(8_142, size=24_000)
    pairs = confused_pairs(label, prediction, 8_142)
    assert pairs.images.sum() == (label != prediction).sum()
    assert {len(nearest) for nearest in nearest_confusions(pairs, 8_142)} <= {0, 1, 2, 3}


def test_masks_follow_the_labels():
    masks = group_masks(np.array([3, 0, 3]), GROUPS)
    assert masks["few"].tolist() == [True, False, True]
    assert not masks["medium"].any()
    assert shot_group_indices(GROUPS).tolist() == [0, 0, 1, 2, 2]


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(12), 40)
    prediction = np.where(rng.random(480) < 0.4, label, rng.integers(0, 5, 480) * rng.integers(1, 3, 480))
    return label, prediction, rng.random(480)


def test_errors_are_those_of_a_loop_in_which_answers_take_turns(answers, monkeypatch) -> None:
    monkeypatch.setattr(confusions, "PAIRS", 0)
    label, prediction, confidence = answers
    expected = set()
    for true in range(12):
        wrong = [i for i in range(480) if label[i] == true != prediction[i]]
        tally = np.bincount(prediction[wrong], minlength=12)
        order = sorted(np.flatnonzero(tally), key=lambda other: (-tally[other], other))
        piles = [sorted((i for i in wrong if prediction[i] == other), key=lambda i: -confidence[i]) for other in order]
        turns = [pile[turn] for turn in range(40) for pile in piles if turn < len(pile)]
        expected |= set(turns[: 2 + true % 3])
    measured = varied_errors(label, prediction, confidence, 2 + np.arange(12) % 3)
    assert set(measured.tolist()) == expected
    assert (np.diff(confidence[measured]) <= 0).all()


def test_the_pairs_confused_most_have_errors_whatever_the_limit(answers) -> None:
    label, prediction, confidence = answers
    measured = varied_errors(label, prediction, confidence, np.zeros(12, dtype=int))
    pairs = confused_pairs(label, prediction, 12)
    limited = confused_pairs(label[measured], prediction[measured], 12)
    assert len(limited.label) == confusions.PAIRS < len(pairs.label)
    assert set(zip(limited.label, limited.prediction, strict=True)) == set(
        list(zip(pairs.label, pairs.prediction, strict=True))[: confusions.PAIRS]
    )
    assert (limited.images == np.minimum(confusions.OF_PAIR, 3)).all()


def test_of_thousands_of_classes_each_keeps_little_and_the_hardest_more() -> None:
    size = 8142
    label = np.repeat(np.arange(size), 3)
    wrong = (label % 10 == 0) | (label == 7)
    prediction = np.where(wrong, (label + 1) % size, label)
    measured = choose_examples(label, prediction, np.ones(len(label)), np.full(size, 5) - np.arange(size) % 2)
    assert measured.close.sum() == 2 * confusions.HARDEST  # each with the class that it is taken for
    assert measured.close[measured.classes[: confusions.HARDEST]].all()
    assert measured.classes[0] == 7  # as hard as others, with fewer training images
    tally = np.bincount(label[measured.errors], minlength=size)
    assert set(tally[measured.classes[: confusions.HARDEST]]) == {3}
    assert set(tally[np.arange(0, size, 10)][30:]) == {usual_detail(size).pictures}


def test_without_errors_or_test_images_there_is_nothing_to_show() -> None:
    nothing = np.zeros(0, dtype=int)
    measured = choose_examples(nothing, nothing, np.zeros(0), np.array([4, 2, 3]))
    assert measured.errors.size == 0
    assert measured.classes.tolist() == [1, 2, 0]
    assert usual_detail(3) == FULL
