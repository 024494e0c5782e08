"""Adapters start as nothing, are all that trains, and vanish into the layers they are on."""

from __future__ import annotations

import pytest
import torch

from longtail.device import prepare_torchvision
from longtail.errors import LongtailError
from longtail.models import build_model
from longtail.models.adapters import add_adapters, merge_adapters, train_only_adapters

prepare_torchvision()  # before peft
pytest.importorskip("peft", reason="peft is not installed")
IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def test_adapters_train_alone_and_merge_into_an_ordinary_network() -> None:
    torch.manual_seed(0)
    model = build_model("timm:test_vit", 3, in_size=160).eval()
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    before = model(IMAGES)
    add_adapters(model.backbone, 4)
    train_only_adapters(model.backbone)
    assert torch.allclose(model(IMAGES), before, atol=1e-5)  # they start as nothing
    trained = [name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        model(IMAGES).square().sum().backward()
        optimizer.step()
    after = model(IMAGES)
    assert not torch.allclose(after, before, atol=1e-3)
    whole = merge_adapters(model)
    assert whole.state_dict().keys() == plain.keys()
    assert torch.allclose(whole(IMAGES), after, atol=1e-4)
    assert any("lora_" in name for name in model.state_dict())  # the model itself goes on with its adapters


def test_a_network_without_attention_is_refused() -> None:
    model = build_model("timm:test_resnet", 3, in_size=64)
    with pytest.raises(LongtailError, match="--mode finetune"):
        add_adapters(model.backbone, 4)


def test_a_model_without_adapters_is_returned_as_it_is() -> None:
    model = build_model("plain-cnn", 3)
    assert merge_adapters(model) is model
