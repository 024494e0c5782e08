"""The published learning rates, epoch by epoch."""

from __future__ import annotations

import math

import pytest

from longtail.config.recipes import load_recipe
from longtail.config.stage import ScheduleConfig


def rates(schedule: ScheduleConfig, peak: float, epochs: int) -> list[float]:
    return [schedule.learning_rate(peak, epoch, epochs) for epoch in range(epochs)]


def test_cifar_protocol_for_every_epoch() -> None:
    config = load_recipe("cifar-lt/ce").config["stage1"]
    learning_rates = rates(ScheduleConfig(**config["schedule"]), config["optimizer"]["lr"], config["epochs"])
    expected = [0.1 * (e + 1) / 5 if e < 5 else 0.1 if e < 160 else 0.01 if e < 180 else 0.001 for e in range(200)]
    assert learning_rates == pytest.approx(expected)


def test_fbl_drops_by_a_hundred_and_ten_thousand() -> None:
    config = load_recipe("cifar-lt/fbl").config["stage1"]
    learning_rates = rates(ScheduleConfig(**config["schedule"]), config["optimizer"]["lr"], config["epochs"])
    assert learning_rates[159:161] == pytest.approx([0.1, 0.001])
    assert learning_rates[180] == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("data", "epochs", "first", "second"),
    [("imagenet-lt", 200, 120, 160), ("inaturalist", 200, 120, 160), ("places-lt", 90, 60, 80)],
)
def test_large_protocols(data: str, epochs: int, first: int, second: int) -> None:
    config = load_recipe(f"{data}/ce").config["stage1"]
    learning_rates = rates(ScheduleConfig(**config["schedule"]), config["optimizer"]["lr"], config["epochs"])
    assert len(learning_rates) == epochs
    expected = [0.2 if e < first else 0.02 if e < second else 0.002 for e in range(epochs)]
    assert learning_rates == pytest.approx(expected)


def test_stage_2_falls_as_a_cosine_from_0002_to_zero() -> None:
    config = load_recipe("cifar-lt/gcl").config["stage2"]
    learning_rates = rates(ScheduleConfig(**config["schedule"]), config["optimizer"]["lr"], config["epochs"])
    assert learning_rates == pytest.approx([0.001 * (1 + math.cos(math.pi * e / 30)) for e in range(30)])
    assert ScheduleConfig(**config["schedule"]).learning_rate(0.002, 30, 30) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (ScheduleConfig("multistep", milestones=[5], factors=[]), "factor"),
        (ScheduleConfig("multistep", milestones=[5, 3], factors=[0.1, 0.01]), "must rise"),
    ],
)
def test_a_schedule_that_does_not_fit_together(schedule: ScheduleConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        schedule.check("stage1.schedule")
