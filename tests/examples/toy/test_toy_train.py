"""The toy: equal conditions for every loss, the same result from the same seed, and a clear refusal of nonsense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy.losses import CONTENDERS
from toy.plane import region_shares, upright
from toy.train import SIDES, ToyNetwork, around_circle, train_toy

from longtail.console import Reporter
from longtail.counts import ClassCounts
from longtail.errors import LongtailError

QUIET = Reporter(quiet=True)


def test_every_loss_starts_from_the_same_weights():
    counts = ClassCounts([142, 64, 29, 13, 6, 2])
    states = [ToyNetwork(8, contender, counts, seed=3).state_dict() for contender in CONTENDERS.values()]
    for state in states[1:]:
        shared = [key for key in state if key.startswith("body") or key == "head.weight"]
        assert len(shared) == 9
        assert all(torch.equal(state[key], states[0][key]) for key in shared)


def test_small_classes_start_between_large_ones():
    weight = around_circle(ClassCounts([50, 3, 40, 2, 30, 1])).numpy()
    angle = np.degrees(np.arctan2(*weight.T)) % 360
    large, small = np.sort(angle[[0, 2, 4]]), np.sort(angle[[1, 3, 5]])
    np.testing.assert_allclose(small - large, 60, atol=1e-3)


def test_the_same_seed_gives_the_same_planes_and_a_linear_one_learns():
    first, second = (train_toy(["ce", "gcl"], seeds=1, epochs=5, reporter=QUIET) for _ in range(2))
    for name in ("ce", "gcl"):
        np.testing.assert_array_equal(first.planes[name][0].features, second.planes[name][0].features)
    ce, gcl = first.planes["ce"][0], first.planes["gcl"][0]
    assert ce.recalls[0] > 0.9
    assert not ce.is_cosine
    assert gcl.is_cosine
    assert not gcl.bias.any()
    assert region_shares(upright(gcl, first.counts)).sum() == pytest.approx(1)


def test_another_seed_draws_other_images_from_the_same_profile():
    result = train_toy(["ldam"], seeds=2, epochs=1, imbalance_ratio=20, reporter=QUIET)
    assert result.counts.counts == (142, 77, 42, 23, 12, 7)
    first, second = result.planes["ldam"]
    assert not np.array_equal(first.features, second.features)
    assert result.titles == {"ldam": "ldam"}
    assert set(SIDES) == {"digits", "mnist5k"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": ["gclx"]}, "mean 'gcl'"),
        ({"losses": []}, "loss"),
        ({"losses": ["ce", "ce"]}, "named twice"),
        ({"losses": ["feature-noise"]}, "'feature-noise'"),
        ({"source": "cifar10"}, "Known: digits, mnist5k"),
        ({"seeds": 0}, "--seeds"),
        ({"epochs": 0}, "--epochs"),
        ({"imbalance_ratio": 0.5}, "at least 1"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(options, message):
    with pytest.raises(LongtailError, match=message):
        train_toy(**({"losses": ["ce"], "reporter": QUIET} | options))
