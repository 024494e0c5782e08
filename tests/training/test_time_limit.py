"""Training through a network within a time limit: it is fitted to it, and begun again where its steps are late."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_stage import cpu, make_stage

from longtail.config.build import with_options
from longtail.config.resolve import resolve
from longtail.config.stage import StageConfig
from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import PlannedRun, state_of
from longtail.models.model import build_model
from longtail.run.layout import read_config
from longtail.run.search import NO_MORE, read_search
from longtail.training import automatic_experiment, time_estimate
from longtail.training.engine import Engine
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, Progress, StageRun
from longtail.training.prepared_data import prepare_data
from longtail.training.time_estimate import Pace, TimeLimit, TooSlowError, shortened

QUIET = Reporter(quiet=True)


def test_epochs_through_the_network_are_fitted_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 100.0)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 20}
    config = resolve(small | {"training.time_limit": 90.0})
    start_run(config, tmp_path / "run", QUIET)
    trained = read_config(tmp_path / "run").stage1.epochs
    images = len(prepare_data(config.data).data.splits["train"])
    assert 1 <= trained < 90 * 100 / images
    with pytest.raises(LongtailError, match="shortest possible"):
        start_run(with_options(config, {"training.time_limit": 5.0}), tmp_path / "short", QUIET)
    assert not (tmp_path / "short").exists()


@pytest.mark.parametrize(
    ("seconds", "sizes", "is_late", "rate"),
    [
        (0.5, [], False, 20.0),
        (1.5, [], True, 10 / 1.5),
        (0.5, [8, 16], True, 5.0),  # steps of the second epoch take four times as long
        (0.2, [8, 16], False, 12.5),
    ],
)
def test_a_stage_is_late_where_its_first_steps_are_slow(
    seconds: float, sizes: list[int], is_late: bool, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    options = StageConfig(epochs=2, batch_size=10, image_sizes=sizes)
    stage = make_stage(options, cpu(), build_model("plain-cnn", 3, "linear"), images=500)
    pace = Pace(TimeLimit(100.0), evaluated=30, image_size=16)  # 100 steps, for which there are 88 seconds
    pace.on_stage_begin(stage)
    with pytest.raises(TooSlowError) if is_late else nullcontext() as error:
        for step in range(1, 51):
            clock[0] += seconds
            pace.on_step_end(stage, Progress(1, 0, step))
    if error is not None:
        assert error.value.images_per_second == pytest.approx(rate)


def test_fine_tuning_that_was_asked_for_is_fitted_to_the_limit_and_the_classifier_before_it_stays() -> None:
    options = {"stage1.epochs": 10, "stage1.train": "classifier", "stage1.cached_views": 1, "model.name": "plain-cnn"}
    config = resolve(options | {"finetune.epochs": 4, "finetune.optimizer.lr": 0.001})
    short = shortened(config, 3, {"train": 1000, "test": 100}, TimeLimit(100.0), images_per_second=20.0)
    assert short.stage1 == config.stage1
    assert 1 <= short.finetune.epochs * short.finetune.epoch_share < 2
    assert short.finetune.optimizer == config.finetune.optimizer


def test_a_second_stage_is_shortened_by_its_own_length() -> None:
    two_stages = {"model.name": "plain-cnn", "stage1.epochs": 200, "stage2.epochs": 30, "stage2.train": "all"}
    images, limit = {"train": 1000, "test": 100}, TimeLimit(1000.0)
    for first in (200, 0):
        config = resolve(two_stages | {"stage1.epochs": first})
        short = shortened(config, 2, images, limit, images_per_second=20.0)
        assert short.stage1 == config.stage1
        assert 15 <= short.stage2.epochs < 20


def test_a_stage_of_the_classifier_alone_costs_its_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 20.0)
    config = resolve({"model.name": "plain-cnn", "stage1.epochs": 0, "stage2.epochs": 30})
    model: Any = None  # whose rate is given
    images, enough = {"train": 1000, "test": 100}, 12 + 1.15 * (30 * 1000 / 3 + 100 / 3) / 20
    fitted, _ = time_estimate.fit_to_limit(config, images, model, Engine(cpu()), TimeLimit(enough + 1), pytest.fail)
    assert fitted == config
    fitted, _ = time_estimate.fit_to_limit(config, images, model, Engine(cpu()), TimeLimit(enough / 2), QUIET.say)
    assert 10 < fitted.stage2.epochs < 15


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_was_asked_for_is_enough_also_where_it_is_less_than_an_epoch(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 20.0)
    options = {"stage1.epochs": 10, "stage1.train": "classifier", "stage1.cached_views": 1, "model.name": "plain-cnn"}
    config = resolve(options | {"finetune.epochs": 1, "finetune.epoch_share": share})
    model: Any = None  # whose rate is given
    enough = 12 + 1.15 * (1000 * share + 2 * 100 / 3 + 1000 / 3) / 20  # the features are one forward pass, a third
    images, engine = {"train": 1000, "test": 100}, Engine(cpu())
    fitted, more_time = time_estimate.fit_to_limit(config, images, model, engine, TimeLimit(enough + 1), pytest.fail)
    assert (fitted, more_time) == (config, "")
    with pytest.raises(LongtailError, match="shortest possible"):
        time_estimate.fit_to_limit(config, images, model, engine, TimeLimit(enough - 1), print)
    less = TimeLimit(enough - 1.15 * 1000 / 3 / 20 + 1)
    fitted, _ = time_estimate.fit_to_limit(config, images, model, engine, less, pytest.fail, has_features=True)
    assert fitted == config


def test_the_epoch_that_a_contest_promises_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 20.0)
    on_features = {"epochs": 10, "train": "classifier", "cached_views": 1}
    options = {"model.name": "plain-cnn", "finetune.epochs": 5, "training.validate_every": 1}
    config = resolve({"stage1": on_features, "stage2": on_features}, options)
    model: Any = None  # whose rate is given
    images, engine = {"train": 1000, "validation": 200, "test": 200}, Engine(cpu())
    promised = 12 + 1.15 * (1400 * 0.001 + (1000 + 400 / 3) / 20)  # as Contest.require_time
    limit = TimeLimit(promised + 1)
    fitted, _ = time_estimate.fit_to_limit(config, images, model, engine, limit, QUIET.say, seconds_per_image=0.001)
    assert 1 <= fitted.finetune.epochs * fitted.finetune.epoch_share < 1.1


def test_a_stage_that_is_late_is_shortened_and_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(pace: Pace, stage: StageRun, progress: Progress) -> None:
        del pace, stage
        if progress.step == 3:
            raise TooSlowError(20.0)

    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 1e6)
    monkeypatch.setattr(Pace, "on_step_end", late)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 20}
    start_run(resolve(small | {"training.time_limit": 150.0}), tmp_path / "run", QUIET)
    trained = read_config(tmp_path / "run")
    assert 1 <= trained.stage1.epochs < 20
    start_run(trained, tmp_path / "again", QUIET)  # as if it had been of this length from the start
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_stages_after_one_that_is_shortened_are_trained_as_its_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(pace: Pace, stage: StageRun, progress: Progress) -> None:
        del pace, progress
        if stage.index == 1:
            raise TooSlowError(40.0)

    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 1e6)
    monkeypatch.setattr(Pace, "on_step_end", late)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 20}
    start_run(resolve(small | {"stage2.epochs": 8, "training.time_limit": 150.0}), tmp_path / "run", QUIET)
    shorter, search = read_config(tmp_path / "run"), read_search(tmp_path / "run")
    assert 1 <= shorter.stage2.epochs < 8
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert [sum(row.startswith(f"{stage},") for row in rows) for stage in (1, 2)] == [
        shorter.stage1.epochs,
        shorter.stage2.epochs,
    ]
    assert search is not None
    assert search.more_time != NO_MORE


def test_a_single_epoch_that_is_late_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Callback):
        begun = 0

        def on_stage_begin(self, stage: StageRun) -> None:
            self.begun += 1
            monkeypatch.setattr(TimeLimit, "left", property(lambda _: 0.0))

    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 1e6)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 1}
    late = Late()
    start_run(resolve(small | {"training.time_limit": 150.0}), tmp_path / "run", QUIET, callbacks=[late])
    assert late.begun == 1


def test_a_shortened_run_whose_images_have_moved_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 100.0)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 20}
    resume_run(resolve(small | {"training.time_limit": 90.0}), tmp_path, QUIET, moved=True)
    made = read_config(tmp_path)
    assert made.training.time_limit is None
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1 + made.stage1.epochs < 21


@pytest.mark.parametrize("name", ["write_config", "write_search"])
def test_a_file_that_cannot_be_written_leaves_no_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 1e6)
    monkeypatch.setattr(automatic_experiment, name, refuse)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 1}
    with pytest.raises(OSError, match="space"):
        start_run(resolve(small | {"training.time_limit": 90.0}), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_a_grid_knows_a_shortened_run_again_and_its_configuration_repeats_it_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 100.0)
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 20}
    config = resolve(small | {"training.time_limit": 90.0})
    start_run(config, tmp_path / "run", QUIET)
    planned = PlannedRun(name="ce", seed=0, baseline="ce", folder=tmp_path / "run", config=config)
    assert state_of(planned) == "started"
    with pytest.raises(LongtailError, match="time_limit"):
        state_of(replace(planned, config=with_options(config, {"training.time_limit": 80.0})))
    made = read_config(tmp_path / "run")
    assert made.training.time_limit is None
    assert 1 <= made.stage1.epochs < 20
