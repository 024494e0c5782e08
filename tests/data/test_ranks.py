"""Seeded ranks: a permutation within each class, fair, and fixed for good."""

from __future__ import annotations

import numpy as np

from longtail.data.subsets import random_keys, ranks_within_class

LABELS = np.array([2, 0, 2, 2, 0, 4])


def test_each_class_is_numbered_once() -> None:
    ranks = ranks_within_class(LABELS, seed=3)
    for label in (0, 2, 4):
        mine = ranks[label == LABELS]
        assert sorted(mine.tolist()) == list(range(len(mine)))


def test_no_images_no_ranks() -> None:
    assert ranks_within_class(np.zeros(0, np.int64), seed=0).tolist() == []


def test_the_seed_decides() -> None:
    labels = np.zeros(50, np.int64)
    first, again, other = (ranks_within_class(labels, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_every_place_is_equally_likely_to_be_first() -> None:
    labels = np.zeros(4, np.int64)
    firsts = [int(np.argmin(ranks_within_class(labels, seed=seed))) for seed in range(2000)]
    assert np.abs(np.bincount(firsts) / 2000 - 0.25).max() < 0.05


def test_the_stream_never_changes() -> None:
    # PCG64's raw output for seed 0; if this changes, a seed no longer names the same subset.
    assert random_keys(2, seed=0).tolist() == [11749869230777074271, 4976686463289251617]
