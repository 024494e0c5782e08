"""The engine: the precision of every stage, loss scaling, and the mode of a network after an error."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate import PartialState
from small_stage import cpu

from longtail.models.model import build_model
from longtail.training.engine import Engine


def test_an_error_leaves_the_mode_of_a_network_as_it_was() -> None:
    model = build_model("plain-cnn", 3, "linear").train()
    with pytest.raises(RuntimeError, match="no"), Engine(cpu()).inference(model):
        raise RuntimeError("no")
    assert model.training


def test_every_stage_computes_in_the_precision_of_the_run() -> None:
    """What wraps the network of stage 1 leaves no trace that would keep stage 2 from being wrapped."""
    torch.manual_seed(0)
    model = build_model("plain-cnn", 3, "linear")
    names, images = set(vars(model)), torch.rand(4, 3, 16, 16)
    engine = Engine(cpu(precision="bf16"))
    for _ in range(2):
        wrapped, _ = engine.prepare(model, torch.optim.SGD(model.parameters()))
        _, features = wrapped(images, return_features=True)
        assert torch.equal(features, features.bfloat16().float())
        engine.release()
        assert set(vars(model)) == names
    assert not torch.equal(model.backbone(images), model.backbone(images).bfloat16().float())


def test_each_engine_has_the_device_that_it_was_asked_for() -> None:
    Engine(cpu())
    PartialState().device = torch.device("meta")  # as the first of a process on another device leaves it
    assert Engine(cpu()).accelerator.device.type == "cpu"


def test_loss_scaling_of_fp16_is_part_of_where_training_stands() -> None:
    engine, other = Engine(cpu()), Engine(cpu())
    assert engine.loss_scaling == {}
    engine.accelerator.scaler, other.accelerator.scaler = (torch.amp.GradScaler("cpu") for _ in range(2))
    engine.accelerator.scaler.scale(torch.ones(()))  # the first use makes its tensors
    engine.accelerator.scaler.update(128.0)
    other.loss_scaling = json.loads(json.dumps(engine.loss_scaling))
    assert other.accelerator.scaler.get_scale() == 128
    other.loss_scaling = {}  # of a run in another precision, or of an older version
    assert other.accelerator.scaler.get_scale() == 128
