"""The time of a run is told from its first images or steps, once, as a value."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_stage import cpu

from longtail.config.schema import RunConfig
from longtail.config.stage import LossConfig, StageConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts
from longtail.data.dataset import Split
from longtail.data.image_hashes import image_hashes
from longtail.models.model import build_model
from longtail.training import frozen_features, time_estimate
from longtail.training.engine import Engine
from longtail.training.experiment import Experiment
from longtail.training.loop import Callback, Progress, StageRun
from longtail.training.time_estimate import TimeEstimate, TimeKeeper

Build = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40, "40 seconds"), (70, "a minute"), (100, "2 minutes"), (1740, "29 minutes"), (7200, "2.0 hours")],
)
def test_it_is_told_in_minutes(seconds: float, words: str) -> None:
    assert str(TimeEstimate(seconds - 10, 10)) == f"about {words}"


class Slow(Callback):
    """Steps of a fiftieth of a second."""

    def on_step_begin(self, stage: StageRun, progress: Progress) -> None:
        del stage, progress
        time.sleep(0.02)


def experiment(config: RunConfig, out: Path, callbacks: Any = ()) -> Experiment:
    return Experiment(config, out, Reporter(quiet=True), Engine(config.training), callbacks=callbacks)


def test_through_the_backbone_it_follows_from_the_first_steps(
    small_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "FIRST_STEPS_SECONDS", 0.1)
    run = experiment(small_config("cifar-lt/ce", epochs=3), tmp_path, [Slow()])
    run.train()
    seconds = sum(row["seconds"] for row in run.record.history)
    assert run.time.estimate is not None
    assert run.time.estimate.features == 0
    assert seconds / 3 < run.time.estimate.seconds < 3 * seconds


def test_fine_tuning_after_features_counts_by_its_own_steps(
    small_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "FEWEST_PIXELS", 1.0)
    stage = {"epochs": 1, "train": "classifier", "cached_views": 1}
    short, long = (
        experiment(
            small_config(stage1=stage, finetune={"epochs": epochs}, data={"cache": False}), tmp_path / str(epochs)
        )
        for epochs in (0, 500)
    )
    for run in (short, long):
        run.features.plain("train")
    assert short.time.estimate is not None
    assert long.time.estimate is not None
    assert long.time.estimate.seconds > 10 * short.time.estimate.seconds


def test_on_features_it_follows_from_the_first_images(
    small_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time_estimate, "FEWEST_PIXELS", 0)
    stage = {"train": "classifier", "cached_views": 2, "mixing": "none"}
    config = small_config("cifar-lt/ce", epochs=2, stage1=stage)
    run = experiment(config, tmp_path / "run")
    estimated: list[bool] = []

    def hashes(split: Split) -> list[bytes]:
        estimated.append(run.time.estimate is not None)
        return image_hashes(split)

    monkeypatch.setattr(frozen_features, "image_hashes", hashes)
    run.train()
    assert estimated == [True], "before anything that takes long"
    assert run.time.estimate is not None
    assert 0 < run.time.estimate.features < 60
    assert run.time.estimate.training > 0
    again = experiment(config, tmp_path / "again")
    again.train()
    assert again.time.estimate is None or again.time.estimate.features == 0, "all features are stored"


def test_a_choice_counts_by_the_epochs_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "seconds_per_feature", lambda _: 0.001)
    monkeypatch.setattr(time_estimate, "relative_slowness", lambda: 1.0)
    training = []
    for epochs in (8, 80):
        stage = StageConfig(epochs, 512, train="classifier", cached_views=1, loss=LossConfig("auto"))
        counts, model = ClassCounts([15_000, 10_000]), build_model("plain-cnn", 2)
        keeper = TimeKeeper(RunConfig(stage1=stage), {"train": 25_000}, counts, model, Engine(cpu()), lambda _: None)
        keeper.before_features(10**9, lambda size: size)
        assert keeper.estimate is not None
        training.append(keeper.estimate.training)
    assert training[1] > 5 * training[0] > 0


def test_a_long_run_is_told() -> None:
    said: list[str] = []
    keeper = TimeKeeper(
        RunConfig(stage1=StageConfig(epochs=1)),
        {"train": 4},
        ClassCounts([2, 2]),
        build_model("plain-cnn", 2),
        Engine(cpu()),
        said.append,
    )
    for estimate in (TimeEstimate(5.0, 5.0), TimeEstimate(600.0, 60.0)):
        keeper.tell(estimate)
    assert said == ["this takes about 11 minutes"]
