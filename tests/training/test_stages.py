"""Stages: which layers each trains, and which mix of classes a network assumes from how it was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mode_config import mode_config
from small_stage import cpu, make_stage

from longtail.config.build import build
from longtail.config.checks import check_config
from longtail.config.recipes import base_config
from longtail.config.schema import ModelConfig, RunConfig
from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts
from longtail.models.model import build_model
from longtail.run.model_files import load_run
from longtail.training.launch import start_run
from longtail.training.loop import train_epoch
from longtail.training.optimizers import parameter_groups
from longtail.training.stages import assumed_prior, set_trainable, trained_prior

COUNTS = ClassCounts([1000, 300, 50, 5, 0])


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("shuffle", "train"),
        ("instance", "train"),
        ("square-root", "train"),
        ("class-balanced", "uniform"),
        ("progressive", "uniform"),
        ("effective-number", "uniform"),
        ("cben", "uniform"),
    ],
)
def test_the_draws_decide(sampler: str, expected: str) -> None:
    assert assumed_prior(StageConfig(sampler=sampler), COUNTS) == expected


@pytest.mark.parametrize("ratio", [10, 50, 100, 200])
@pytest.mark.parametrize(("largest", "classes"), [(500, 100), (5000, 10)])
def test_an_exponent_of_one_half_does_not_depend_on_rounding(largest: int, classes: int, ratio: int) -> None:
    counts = ClassCounts([int(largest * ratio ** (-index / (classes - 1))) for index in range(classes)])
    assert assumed_prior(StageConfig(sampler="square-root"), counts) == "train"
    assert assumed_prior(StageConfig(loss=LossConfig("logit-adjustment", {"tau": 0.5})), counts) == "train"
    assert assumed_prior(StageConfig(), counts, tau=0.5) == "train"


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
        ("ce", "train"),
        ("mixup", "train"),
        ("mixup-crt", "uniform"),
        ("gcl", "uniform"),
        ("gcl-cben", "uniform"),
        ("ldam-drw", "uniform"),
        ("logit-adjustment", "uniform"),
        ("balanced-softmax", "uniform"),
    ],
)
def test_the_recipes(recipe: str, expected: str) -> None:
    assert trained_prior(build(base_config(f"cifar-lt/{recipe}")), COUNTS) == expected


@pytest.mark.parametrize("train", ["classifier", "scales"])
@pytest.mark.parametrize("name", ["resnet20", "plain-cnn"])
def test_stage_2_leaves_the_backbone_bit_identical(train: Any, name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 3, "linear")
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    weight = model.head.weight.detach().clone()
    stage = StageConfig(epochs=1, batch_size=8, train=train, sampler="class-balanced", mixing="mixup")
    train_epoch(make_stage(stage, cpu(), model, index=2), 0)
    after = model.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)  # batch-norm buffers are among them
    if train == "classifier":
        assert not torch.equal(model.head.weight, weight)
    else:
        assert torch.equal(model.head.head.weight, weight)
        assert not torch.equal(model.head.scale_logits, torch.ones(3))


def test_places_trains_only_the_last_block_and_the_bottleneck() -> None:
    model = build_model("timm:resnet10t+bottleneck", 3, "cosine")
    set_trainable(model, StageConfig(train="all"), ModelConfig(trainable=["trunk.layer4.0", "bottleneck"]))
    trained = {name.split(".")[1] for name, p in model.backbone.named_parameters() if p.requires_grad}
    prefixes = {name.split(".")[0] for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert prefixes == {"trunk", "bottleneck"}
    assert "conv1" not in {
        n.split(".")[1] for n, p in model.backbone.named_parameters() if p.requires_grad and n.startswith("trunk")
    }
    assert "layer4" in trained
    assert "layer3" not in trained


def test_finetuning_slows_layers_near_the_image(tmp_path: Path, quiet: Reporter) -> None:
    config = mode_config(
        "fbl", "finetune", data={"image_size": 32, "resize": 40, "augmentation": "random-resized-crop"}
    )
    check_config(config)
    start_run(config, tmp_path / "run", quiet)
    model, _ = load_run(tmp_path / "run")
    groups = parameter_groups(model, OptimizerConfig(layer_decay=0.5, weight_decay=0.05))
    scales = [group["lr_scale"] for group in groups]
    assert scales == sorted(scales)
    assert scales[-1] == 1.0
    assert scales[0] < 0.1
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    unscaled = {group["weight_decay"] for group in groups}
    assert unscaled == {0.0, 0.05}  # none on norms and biases


def test_the_loop_uses_the_scale_of_each_group(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[float, float]] = []
    inner = torch.optim.AdamW.step

    def step(self: Any, *args: Any) -> Any:
        seen.append({group.get("lr_scale", 1.0): group["lr"] for group in self.param_groups})
        return inner(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    start_run(mode_config("ce", "finetune"), tmp_path / "run", quiet)
    top = [step[1.0] for step in seen]
    assert max(top) > 0
    assert all(lr == pytest.approx(scale * step[1.0]) for step in seen for scale, lr in step.items())


@pytest.mark.parametrize(
    ("loss", "sampler", "tau", "prior"),
    [
        ("cross-entropy", "shuffle", 0.0, "train"),
        ("cross-entropy", "shuffle", 0.25, "train"),
        ("cross-entropy", "shuffle", 0.75, "uniform"),
        ("logit-adjustment", "shuffle", 0.0, "uniform"),
        ("logit-adjustment", "shuffle", 1.0, "uniform"),  # pi^-1 is farther from pi than from no prior
        ("gcl", "class-balanced", 0.75, "uniform"),
    ],
)
def test_the_prior_of_an_adjusted_classifier(loss: str, sampler: str, tau: float, prior: str) -> None:
    stage = StageConfig(loss=LossConfig(loss), sampler=sampler)
    assert assumed_prior(stage, ClassCounts([500, 50, 5]), tau=tau) == prior
