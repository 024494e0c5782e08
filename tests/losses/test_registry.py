"""Names and options of losses become objects, and a wrong one gets the nearest right one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

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
    ("name", "options"),
    [
        ("focal", {"gamma": np.int64(2), "label_smoothing": np.float32(0.5)}),
        ("cross-entropy", {"scale": np.float32(30)}),
        ("class-balanced", {"beta": np.float32(0.5)}),
        ("kps", {"scale": np.int32(15), "max_margin": np.float16(0.25), "adjust_gradients_from": np.float32(0.5)}),
        ("gcl", {"noise": np.float32(0.5), "margin": np.float64(0.5)}),
        ("agcl", {"noise": np.float32(0.5), "margin": np.int8(1)}),
        ("fbl", {"strength": np.arange(60, 61)[0]}),
        ("logit-adjustment", {"tau": np.float32(0.5), "deferred_reweighting": np.float32(0.5)}),
    ],
)
def test_numbers_of_numpy_are_plain_numbers(name: str, options: dict[str, Any]) -> None:
    expected = build_loss(name, COUNTS, {key: value.item() for key, value in options.items()})
    expected.progress = 0.5
    made = [build_loss(name, COUNTS, options)]
    if "deferred_reweighting" not in options:
        made.append(LOSSES[name](COUNTS, **options))
    for loss in made:
        loss.progress = np.float32(0.5)
        assert repr(loss) == repr(expected)
        assert {key: type(value) for key, value in vars(loss).items()} == {
            key: type(value) for key, value in vars(expected).items()
        }
        assert all(torch.equal(value, expected.get_buffer(key)) for key, value in loss.named_buffers())


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
