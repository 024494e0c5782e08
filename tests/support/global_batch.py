"""Three steps of a stage that several processes should make as one does: each loss, each mixing, batch statistics."""

from __future__ import annotations

from dataclasses import replace

import torch
from small_stage import TRANSFORM, cpu, make_stage

from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.losses import LOSSES, build_loss
from longtail.models.model import build_model
from longtail.training.loop import train_epoch

STAGE = StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.1))
LABELS = torch.tensor([0] * 15 + [1] * 6 + [2] * 3)
NORMALIZED = "timm:test_efficientnet"
"""A network whose layers are batch normalization with its activation, a smooth one: the gradient of a ReLU at a value
within rounding of zero may be 0 on one side and 1 on the other."""

CASES = {
    **{name: replace(STAGE, loss=LossConfig(name)) for name in LOSSES},
    **{mixing: replace(STAGE, mixing=mixing) for mixing in ("mixup", "cutmix", "remix", "cmo")},
    "mixup and noise": replace(STAGE, mixing="mixup", loss=LossConfig("gcl")),
    "late weights": replace(STAGE, loss=LossConfig("ldam", {"deferred_reweighting": 0.3})),
    NORMALIZED: replace(STAGE, mixing="cutmix"),
}


def three_steps(name: str, *, exact: bool = True) -> dict[str, torch.Tensor]:
    """Train a case for one epoch in this process, which may be one of several; return the weights."""
    stage = CASES[name]
    torch.manual_seed(0)
    head = build_loss(stage.loss.name, [15, 6, 3], stage.loss.options).head
    model = build_model(name if name == NORMALIZED else "plain-cnn", 3, head, in_size=16)
    training = cpu(exact=exact, sync_batch_norm=exact)
    train_epoch(make_stage(stage, training, model, transform=replace(TRANSFORM, augmentation="flip"), labels=LABELS), 0)
    return {key: value.detach().clone() for key, value in model.state_dict().items() if value.is_floating_point()}
