"""A third stage trains all of a network, after its classifier was trained on stored features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ctrl_c import CtrlC
from safetensors.torch import load_file

from longtail.config.build import with_options
from longtail.config.resolve import complete, resolve
from longtail.config.schema import RunConfig
from longtail.console import Interrupted, Reporter
from longtail.errors import UsageError
from longtail.predict.predictor import load
from longtail.report.page import write_report
from longtail.run.layout import read_config
from longtail.run.result import read_run
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, StageRun

QUIET = Reporter(quiet=True)


Asked = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A classifier on stored features of digits, and two epochs of all of the network."""
    folder = tmp_path_factory.mktemp("start")
    values: dict[str, Any] = {
        "data.source": "digits",
        "data.imbalance_ratio": 20.0,
        "data.image_size": 16,
        "data.resize": 16,
        "data.validation_fraction": 0.1,
        "model.name": "resnet20",
        "training.precision": "fp32",
    }
    scratch = {"stage1.epochs": 2, "stage1.optimizer.lr": 0.02, "stage1.batch_size": 32}
    start_run(resolve(values | scratch), folder / "weights", QUIET)
    values |= {
        "model.weights": str(folder / "weights"),
        "model.standardize": True,
        "training.validate_every": 1,
        "stage1.train": "classifier",
        "stage1.cached_views": 1,
        "stage1.epochs": 3,
        "stage1.loss.name": "kps",
        "finetune.epochs": 2,
        "finetune.epoch_share": 0.7,
        "finetune.ema_decay": 0.9,
        "finetune.augmentation": "none",  # a mirrored digit is none
    }
    return lambda **options: resolve(values | options)


@pytest.fixture(scope="module")
def run(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "run"
    start_run(asked(), out, QUIET)
    return out


def same(first: Path, second: Path) -> bool:
    left, right = (load_file(folder / "model.safetensors") for folder in (first, second))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_trains_the_backbone_from_the_classifier_of_the_stage_before(run: Path) -> None:
    config, result = read_config(run), read_run(run)
    assert list(config.stages) == [1, 3]
    assert not config.is_on_features
    assert (config.finetune.loss.name, config.finetune.loss.options) == ("kps", config.stage1.loss.options)
    assert [(row.stage, row.epoch) for row in result.history] == [(1, 1), (1, 2), (1, 3), (3, 1), (3, 2)]
    assert all(row.validation_accuracy is not None for row in result.history)
    first, second = result.stages[1], result.stages[3]
    assert first is not None
    assert second is not None
    assert second.accuracy > 0.6  # of ten classes
    assert result.history[-1].train_loss < result.history[-2].train_loss
    before, after = (load_file(folder / "model.safetensors") for folder in (run / "stage1", run))
    weight = next(name for name in before if name.startswith("backbone") and before[name].ndim == 4)
    assert not torch.equal(before[weight], after[weight])
    mean = next(name for name in before if name.endswith("running_mean"))
    assert torch.equal(before[mean], after[mean])  # batch normalization was held
    assert all(torch.equal(before[f"head.{name}"], after[f"head.{name}"]) for name in ("mean", "deviation"))
    steps = 1 + int(0.7 * sum(result.counts)) // 32
    assert 0 < result.history[-1].learning_rate < 2e-4 / steps


def test_its_report_and_its_predictions_are_those_of_the_last_stage(run: Path) -> None:
    write_report([run], run / "report.html")
    result = read_run(run)
    assert result.test == result.stages[3] or (result.test and result.test.accuracy == result.stages[3].accuracy)
    assert load(run).model.head_name == "standardized-cosine"


@pytest.mark.parametrize(("stage", "epoch", "step"), [(1, 1, 3), (3, 0, 2), (3, 1, 3)])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    stage: int, epoch: int, step: int, asked: Asked, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        start_run(asked(), tmp_path / "run", QUIET, callbacks=[CtrlC(stage, epoch, step)])
    resume_run(read_config(tmp_path / "run"), tmp_path / "run", QUIET)
    assert same(run, tmp_path / "run")


class FullDisk(Callback):
    """No space is left when fine-tuning begins."""

    def on_stage_begin(self, stage: StageRun) -> None:
        if stage.index == 3:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("train", ["classifier", "scales"])
def test_it_follows_a_second_stage_also_where_it_was_stopped_between_the_two(
    train: str, asked: Asked, tmp_path: Path
) -> None:
    second = {"stage2.epochs": 1, "stage2.cached_views": 1, "stage2.train": train, "model.standardize": False}
    config = asked(**second)
    metrics = start_run(config, tmp_path / "straight", QUIET)
    assert list(metrics["stages"]) == ["stage1", "stage2", "stage3"]
    with pytest.raises(OSError, match="space"):
        start_run(config, tmp_path / "stopped", QUIET, callbacks=[FullDisk()])
    resume_run(config, tmp_path / "stopped", QUIET)
    assert same(tmp_path / "straight", tmp_path / "stopped")


def test_the_adjustment_of_the_head_comes_after_the_last_stage(asked: Asked, tmp_path: Path) -> None:
    class Offsets(Callback):
        seen: list[float]

        def on_stage_begin(self, stage: StageRun) -> None:
            offset: Any = stage.model.head.offset
            self.seen.append(offset.abs().max().item())

    callback = Offsets()
    callback.seen = []
    start_run(asked(**{"model.tau": 0.5, "finetune.epochs": 1}), tmp_path / "run", QUIET, callbacks=[callback])
    assert callback.seen == [0.0, 0.0]
    head: Any = load(tmp_path / "run").model.head
    assert head.offset.abs().max() > 0


def test_images_are_changed_while_features_are_of_plain_ones(asked: Asked, tmp_path: Path) -> None:
    shown = []

    class Shown(Callback):
        def on_stage_begin(self, stage: StageRun) -> None:
            shown.append(getattr(getattr(stage.inputs, "transform", None), "augmentation", "features"))

    config = asked(**{"finetune.epochs": 1, "finetune.augmentation": "random-resized-crop"})
    start_run(config, tmp_path / "run", QUIET, callbacks=[Shown()])
    assert shown == ["features", "random-resized-crop"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"finetune.train": "classifier"}, "finetune.train"),
        ({"stage1.augmentation": "flip"}, "augmentation"),
        ({"stage1.epochs": 0}, "stage1.epochs"),
        ({"finetune.optimizer.layer_decay": 0.7}, "timm"),
        ({"finetune.loss.name": "ldam", "model.head": "linear", "stage1.loss.name": "cross-entropy"}, "cosine"),
        ({"model.standardize": True, "stage1.cached_views": 0}, "standardize"),
    ],
)
def test_what_does_not_fit_is_refused(asked: Asked, options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        asked(**options)


def test_its_loss_waits_for_the_choice_of_the_classifier() -> None:
    values = {"stage1.train": "classifier", "stage1.cached_views": 1, "finetune.epochs": 1}
    open_choice = resolve(values | {"stage1.loss.name": "auto"})
    assert open_choice.finetune.loss.name == "auto"
    chosen = complete(with_options(open_choice, {"stage1.loss.name": "gcl", "model.head": "cosine"}))
    assert chosen.finetune.loss == chosen.stage1.loss
    drawn = complete(with_options(chosen, {"stage1.sampler": "class-balanced"}))
    assert open_choice.finetune.sampler == "auto"
    assert complete(with_options(open_choice, {"stage1.loss.name": "kps"})).finetune.sampler == "shuffle"
    assert complete(with_options(drawn, {"finetune.sampler": "auto"})).finetune.sampler == "class-balanced"
