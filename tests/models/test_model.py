"""LongTailModel: features next to logits, and a frozen backbone that stays identical to the bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from longtail.errors import LongtailError
from longtail.models import LongTailModel, ScaledHead, build_model


def _steps(model: LongTailModel, steps: int = 3) -> None:
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(8, 3, 16, 16)), torch.randint(0, 4, (8,))).backward()
        optimizer.step()


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_features_are_what_the_head_was_given(head: str) -> None:
    model = build_model("plain-cnn", 4, head)
    images = torch.randn(3, 3, 16, 16)
    logits, features = model(images, return_features=True)
    assert torch.equal(logits, model.head(features))
    assert torch.equal(logits, model(images))
    assert features.shape == (3, model.num_features)


def test_frozen_backbone_stays_identical_to_the_bit() -> None:
    torch.manual_seed(0)
    model = build_model("resnet20", 4)
    _steps(model)  # so that the running statistics are not the initial ones
    model.freeze_backbone()
    backbone, head = _copy(model.backbone), _copy(model.head)
    _steps(model)
    assert any("running_mean" in name for name in backbone)
    assert all(torch.equal(value, backbone[name]) for name, value in model.backbone.state_dict().items())
    assert not torch.equal(model.head.weight, head["weight"])


def test_without_freezing_the_statistics_do_move() -> None:
    model = build_model("resnet20", 4)
    before = _copy(model.backbone)
    model.backbone.requires_grad_(False)  # what a careless second stage does
    _steps(model)
    assert not torch.equal(model.backbone.bn1.running_mean, before["bn1.running_mean"])


def test_frozen_backbone_stays_in_evaluation_mode_until_it_is_released() -> None:
    model = build_model("resnet20", 4).freeze_backbone()
    assert not any(module.training for module in model.train().backbone.modules())
    assert model.head.training
    model.unfreeze_backbone()
    assert all(module.training for module in model.modules())
    assert all(value.requires_grad for value in model.parameters())


def test_kept_parts_go_on_training() -> None:
    model = build_model("resnet20", 4).freeze_backbone(keep=("layer3",))
    before = _copy(model.backbone)
    _steps(model)
    after = model.backbone.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"layer3"}
    model.freeze_backbone()  # freezing anew forgets what was kept
    assert not any(value.requires_grad for value in model.backbone.parameters())
    assert not model.train().backbone.layer3.training


def test_unknown_part_names_the_nearest() -> None:
    with pytest.raises(LongtailError, match="layer3"):
        build_model("resnet20", 4).freeze_backbone(keep=["layr3"])


def test_logit_scales_come_on_top_of_the_trained_head_once() -> None:
    model = build_model("plain-cnn", 4)
    images = torch.randn(3, 3, 16, 16)
    before = model(images)
    model.add_logit_scales().add_logit_scales()
    assert model.head_name == "scaled-linear"
    assert isinstance(model.head, ScaledHead)
    assert torch.equal(model(images), before)
    twin = build_model("plain-cnn", 4, model.head_name)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(images), before)


def test_same_seed_gives_the_same_weights() -> None:
    twins = []
    for _ in range(2):
        torch.manual_seed(3)
        twins.append(build_model("resnet20", 4, "cosine").state_dict())
    assert all(torch.equal(twins[0][name], twins[1][name]) for name in twins[0])


def test_compiles_as_one_graph() -> None:
    model = build_model("plain-cnn", 4, "cosine").freeze_backbone()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(compiled(images), model(images))
