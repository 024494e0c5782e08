"""Which mix of classes a network assumes, from how it was trained: every sampler, weight and loss that decides it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from longtail.config.build import build
from longtail.config.recipes import base_config
from longtail.config.schema import LossConfig, RunConfig, StageConfig
from longtail.counts import ClassCounts
from longtail.training.stages import assumed_prior, trained_prior

COUNTS = ClassCounts([1000, 300, 50, 5, 0])


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("shuffle", "train"), ("instance", "train"), ("square-root", "train"), ("class-balanced", "uniform"),
        ("progressive", "uniform"), ("effective-number", "uniform"), ("cben", "uniform"),
    ],
)  # fmt: skip
def test_the_draws_decide(sampler: str, expected: str) -> None:
    assert assumed_prior(StageConfig(sampler=sampler), COUNTS) == expected


@pytest.mark.parametrize(
    ("loss", "options", "expected"),
    [
        ("cross-entropy", {}, "train"),
        ("ldam", {}, "train"),
        ("ldam", {"deferred_reweighting": 0.8}, "uniform"),
        ("weighted", {}, "uniform"),
        ("class-balanced", {}, "uniform"),
        ("class-balanced", {"beta": 0.0}, "train"),
        ("cross-entropy", {"weight": [1.0, 3.3, 20.0, 200.0, 1000.0]}, "uniform"),
        ("balanced-softmax", {}, "uniform"),
        ("logit-adjustment", {}, "uniform"),
        ("logit-adjustment", {"tau": 0.2}, "train"),
        ("gcl", {}, "train"),
    ],
)
def test_so_do_the_weights_and_what_the_loss_takes_out(loss: str, options: dict[str, object], expected: str) -> None:
    assert assumed_prior(StageConfig(loss=LossConfig(loss, options)), COUNTS) == expected


def test_classes_of_one_size_are_as_in_training() -> None:
    assert assumed_prior(StageConfig(sampler="class-balanced"), ClassCounts([7, 7, 7])) == "train"


def test_the_last_stage_that_has_epochs_counts() -> None:
    config = RunConfig(stage1=StageConfig(epochs=1), stage2=StageConfig(epochs=1, sampler="class-balanced"))
    assert trained_prior(config, COUNTS) == "uniform"
    assert trained_prior(replace(config, stage2=StageConfig()), COUNTS) == "train"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("ce", "train"), ("mixup", "train"), ("mixup-crt", "uniform"), ("gcl", "uniform"), ("gcl-cben", "uniform"),
        ("ldam-drw", "uniform"), ("logit-adjustment", "uniform"), ("balanced-softmax", "uniform"),
    ],
)  # fmt: skip
def test_the_recipes(recipe: str, expected: str) -> None:
    assert trained_prior(build(base_config(f"cifar-lt/{recipe}")), COUNTS) == expected
