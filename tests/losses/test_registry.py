"""Names and options of losses become objects, and a wrong one gets the nearest right one."""

from __future__ import annotations

from typing import Any

import pytest

from longtail.errors import LongtailError
from longtail.losses import LOSSES, DeferredReweighting, GCLLoss, KPSLoss, build_loss, loss_options

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
    ("name", "options", "word"),
    [
        ("glc", {}, "'gcl'"),
        ("Crossentropy", {}, "mean 'cross-entropy'"),
        ("bs", {}, "mean 'balanced-softmax'"),
        ("la", {}, "mean 'logit-adjustment'"),
        ("kps", {"max_magin": 0.1}, "'max_margin'"),
        ("feature-noise", {"classifier": None}, "classifier"),
        ("gcl", {"noise": "much"}, "noise.*much"),
        ("gcl", {"noise": -1.0}, "noise.*-1"),
        ("fbl", {"curriculum": "sin"}, "'sine'"),
        ("ldam", {"deferred_reweighting": 2.0}, "deferred_reweighting.*2"),
        ("ldam", {"deferred_reweighting": "late"}, "deferred_reweighting.*late"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(LongtailError, match=word):
        build_loss(name, COUNTS, options)
