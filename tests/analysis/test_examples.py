"""Which images stand for the classes: every class has some, every much confused pair too, on known answers."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.analysis import examples
from longtail.analysis.confusions import confused_pairs
from longtail.analysis.examples import FULL, choose_examples, usual_detail, varied_errors


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(12), 40)
    prediction = np.where(rng.random(480) < 0.4, label, rng.integers(0, 5, 480) * rng.integers(1, 3, 480))
    return label, prediction, rng.random(480)


def test_errors_are_those_of_a_loop_in_which_answers_take_turns(answers, monkeypatch) -> None:
    monkeypatch.setattr(examples, "PAIRS", 0)
    label, prediction, confidence = answers
    expected = set()
    for one in range(12):
        wrong = [i for i in range(480) if label[i] == one != prediction[i]]
        tally = np.bincount(prediction[wrong], minlength=12)
        order = sorted(np.flatnonzero(tally), key=lambda other: (-tally[other], other))
        piles = [sorted((i for i in wrong if prediction[i] == other), key=lambda i: -confidence[i]) for other in order]
        turns = [pile[turn] for turn in range(40) for pile in piles if turn < len(pile)]
        expected |= set(turns[: 2 + one % 3])
    found = varied_errors(label, prediction, confidence, 2 + np.arange(12) % 3)
    assert set(found.tolist()) == expected
    assert (np.diff(confidence[found]) <= 0).all()


def test_the_pairs_confused_most_have_errors_whatever_the_limit(answers) -> None:
    label, prediction, confidence = answers
    found = varied_errors(label, prediction, confidence, np.zeros(12, dtype=int))
    pairs = confused_pairs(label, prediction, 12)
    kept = confused_pairs(label[found], prediction[found], 12)
    assert len(kept) == examples.PAIRS < len(pairs)
    assert set(zip(kept.label, kept.prediction, strict=True)) == set(
        list(zip(pairs.label, pairs.prediction, strict=True))[: examples.PAIRS]
    )
    assert (kept.images == np.minimum(examples.OF_PAIR, 3)).all()


def test_of_thousands_of_classes_each_keeps_little_and_the_hardest_more() -> None:
    size = 8142
    label = np.repeat(np.arange(size), 3)
    wrong = (label % 10 == 0) | (label == 7)
    prediction = np.where(wrong, (label + 1) % size, label)
    found = choose_examples(label, prediction, np.ones(len(label)), np.full(size, 5) - np.arange(size) % 2)
    assert found.close.sum() == 2 * examples.HARDEST  # each with the class that it is taken for
    assert found.close[found.classes[: examples.HARDEST]].all()
    assert found.classes[0] == 7  # as hard as others, with fewer training images
    tally = np.bincount(label[found.errors], minlength=size)
    assert set(tally[found.classes[: examples.HARDEST]]) == {3}
    assert set(tally[np.arange(0, size, 10)][30:]) == {usual_detail(size).pictures}


def test_without_errors_or_test_images_there_is_nothing_to_show() -> None:
    nothing = np.zeros(0, dtype=int)
    found = choose_examples(nothing, nothing, np.zeros(0), np.array([4, 2, 3]))
    assert found.errors.size == 0
    assert found.classes.tolist() == [1, 2, 0]
    assert usual_detail(3) == FULL
