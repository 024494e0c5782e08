"""Judgment of answers to images that were held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from longtail.counts import ClassCounts
from longtail.training.judgment import HeldOut, bootstrap_draws

COMMON, RARE = 90, 10


def test_every_metric_is_that_of_scikit_learn_also_under_the_weights_of_a_replicate() -> None:
    random = np.random.default_rng(0)
    counts = ClassCounts([200, 60, 12, 5])
    truth = np.repeat(np.arange(4), [40, 15, 6, 3])
    answers = np.where(random.random(len(truth)) < 0.6, truth, random.integers(0, 4, len(truth)))
    draws = bootstrap_draws(np.arange(len(truth)), None, seed=1)
    held_out = HeldOut(truth, counts, counts.groups(), "balanced", draws)
    replicates = held_out.figures(answers, draws)
    for figures, weights in ((held_out.figures(answers), None), ({k: v[7] for k, v in replicates.items()}, draws[7])):
        recalls = recall_score(truth, answers, average=None, sample_weight=weights)
        assert figures["accuracy"] == pytest.approx(accuracy_score(truth, answers, sample_weight=weights))
        assert figures["balanced"] == pytest.approx(balanced_accuracy_score(truth, answers, sample_weight=weights))
        assert figures["macro-f1"] == pytest.approx(f1_score(truth, answers, average="macro", sample_weight=weights))
        groups = {"many": recalls[:1], "medium": recalls[1:2], "few": recalls[2:]}  # over 100, 20 to 100, below 20
        assert figures["worst-group"] == pytest.approx(min(group.mean() for group in groups.values()))
        assert all(figures[name] == pytest.approx(group.mean()) for name, group in groups.items())


@pytest.mark.parametrize(("won", "lost", "tau"), [(1, 6, 0.0), (10, 6, 0.5)])
def test_the_weakest_adjustment_within_a_standard_error_of_the_best_is_taken(won: int, lost: int, tau: float) -> None:
    counts = ClassCounts([COMMON, RARE])
    truth = np.repeat([0, 1], [COMMON, RARE])
    held_out = HeldOut(truth, counts, counts.groups(), "balanced", bootstrap_draws(np.arange(len(truth)), None, seed=0))
    margin = torch.full((len(truth),), 5.0)  # of the common class over the rare one
    moved = np.r_[:lost, COMMON : COMMON + won]
    margin[moved] = 0.4 * float(np.log(COMMON / RARE))  # less than half of the log-ratio, so that 0.5 moves them
    judged = held_out.judge(torch.stack([margin, torch.zeros_like(margin)], dim=1))
    assert judged.tau == tau
    assert judged.values[0.5]["balanced"] == pytest.approx((1 - lost / COMMON + won / RARE) / 2)
    assert max(each["balanced"] for each in judged.values.values()) == judged.values[0.5]["balanced"]
    assert judged.score == judged.values[tau]["balanced"]
