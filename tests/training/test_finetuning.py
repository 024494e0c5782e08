"""The stage that fits a time, and the rate that it is computed from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from longtail.config.schema import TrainingConfig
from longtail.config.stage import FINETUNING, LossConfig, StageConfig
from longtail.models.model import build_model
from longtail.training.engine import Engine
from longtail.training.finetuning import MOST_FINETUNING, finetune_stage, measure_training_rate

CLASSIFIER = StageConfig(20, train="classifier", cached_views=1, sampler="class-balanced", loss=LossConfig("kps"))


@pytest.mark.parametrize(("seconds", "rate"), [(30, 50), (100, 50), (599, 61.7), (120, 0.5), (1e5, 100), (0.001, 1)])
def test_a_stage_takes_the_time_and_no_more(seconds: float, rate: float) -> None:
    images = 5_000
    stage = finetune_stage(CLASSIFIER, images, seconds, rate)
    taken = stage.epochs * stage.epoch_share * images / rate
    assert stage.epochs >= 1
    assert 0 < stage.epoch_share <= 1
    assert taken <= max(seconds, 0.001 * images / rate) + 1e-9
    assert taken > seconds - stage.epochs * 0.001 * images / rate - 1e-9 or stage.epochs == MOST_FINETUNING


def test_it_goes_on_with_loss_and_draws_of_the_classifier() -> None:
    stage = finetune_stage(CLASSIFIER, 1_000, 60, 50)
    assert (stage.train, stage.cached_views, stage.sampler, stage.loss.name) == ("all", 0, "class-balanced", "kps")
    assert stage.optimizer == FINETUNING.optimizer


def test_it_takes_what_the_user_gave() -> None:
    given = replace(FINETUNING, augmentation="none", sampler="shuffle", loss=LossConfig("gcl"), batch_size=8)
    stage = finetune_stage(CLASSIFIER, 1_000, 60, 50, given)
    assert replace(stage, epochs=0, epoch_share=1.0) == given


def test_measuring_the_rate_leaves_network_and_generator_as_they_are() -> None:
    model = build_model("resnet20", 5).freeze_backbone()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    engine = Engine(TrainingConfig(device="cpu", precision="fp32"))
    slow = measure_training_rate(model, 32, 8, engine, seconds=0.2)
    fast = measure_training_rate(model, 8, 8, engine, seconds=0.2)
    assert 0 < slow < fast
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_rate_is_that_of_the_precision_that_is_trained_in(precision: Any, dtype: torch.dtype) -> None:
    model, computed = build_model("plain-cnn", 3), set[torch.dtype]()
    model.head.register_forward_hook(lambda _, __, logits: computed.add(logits.dtype))
    measure_training_rate(model, 8, 4, Engine(TrainingConfig(device="cpu", precision=precision)), seconds=0.0)
    assert computed == {dtype}
