"""Names and options of losses become objects, and a wrong one gets the nearest right one."""

from __future__ import annotations

from typing import Any

import pytest

from longtail.errors import LongtailError
from longtail.losses import LOSSES, DeferredReweighting, GCLLoss, KPSLoss, build_loss
from longtail.losses.registry import loss_options

COUNTS = [500, 50, 5]


@pytest.mark.parametrize("name", LOSSES)
def test_every_name_builds_with_its_default_options(name: str) -> None:
    assert type(build_loss(name, COUNTS)) is LOSSES[name]
    assert type(build_loss(name, COUNTS, loss_options(name))) is LOSSES[name]


def test_options_reach_the_loss() -> None:
    loss = build_loss("gcl", COUNTS, {"noise": 1.0, "scale": 15, "label_smoothing": 0.1})
    assert isinstance(loss, GCLLoss)
    assert (loss.noise, loss.scale, loss.label_smoothing) == (1.0, 15, 0.1)


def test_deferred_reweighting_wraps() -> None:
    loss = build_loss("kps", COUNTS, {"deferred_reweighting": 0.9, "scale": 20.0})
    assert isinstance(loss, DeferredReweighting)
    assert isinstance(loss.loss, KPSLoss)
    assert (loss.start, loss.logit_scale) == (0.9, 20.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("glc", {}, "unknown loss 'glc'. Did you mean 'gcl'"),
        ("kps", {"max_magin": 0.1}, "no option 'max_magin'. Did you mean 'max_margin'"),
        ("feature-noise", {"classifier": None}, "no option 'classifier'"),
        ("gcl", {"noise": "much"}, "loss 'gcl': noise must be a number, got 'much'"),
        ("gcl", {"noise": -1.0}, "loss 'gcl': noise must be at least 0"),
        ("fbl", {"curriculum": "sin"}, "Did you mean 'sine'"),
        ("ldam", {"deferred_reweighting": 2.0}, r"deferred_reweighting must be in \[0, 1\]"),
        ("ldam", {"deferred_reweighting": "late"}, "deferred_reweighting must be a number"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LongtailError, match=message):
        build_loss(name, COUNTS, options)
