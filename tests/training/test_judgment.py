"""Judgment of answers to images that were held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longtail.counts import ClassCounts
from longtail.training.judgment import HeldOut, bootstrap_draws

COMMON, RARE = 90, 10


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
