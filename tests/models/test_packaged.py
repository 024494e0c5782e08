"""Weights out of an installed package, and what happens without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longtail.errors import LongtailError
from longtail.models.backbones import build_backbone
from longtail.models.inputs import timm_inputs
from longtail.models.packaged import PACKAGES, load_in_order, packaged_weights

LITE = "tf_efficientnet_lite0"


def test_pretrained_weights_come_out_of_the_package() -> None:
    path = packaged_weights(LITE)
    if path is None:
        pytest.skip(f"{PACKAGES[LITE].install} is not installed")
    torch.manual_seed(0)
    network = build_backbone(f"timm:{LITE}", pretrained=True, in_size=224)
    stored = list(torch.load(path, weights_only=True).values())
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), stored, strict=False))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(LongtailError, match="install its package again"):
        load_in_order(torch.nn.Linear(2, 2), tmp_path / "other.pth")


def test_without_weights_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.models.backbones.packaged_weights", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LongtailError, match=r"pip install 'longtail\[weights\]'.*--model.pretrained false"):
        build_backbone("timm:test_resnet", pretrained=True, in_size=32)


@pytest.mark.parametrize(
    ("name", "size", "resize", "mean"),
    [("tf_efficientnet_lite0", 224, 256, 0.5), ("vit_small_patch16_224", 224, 249, 0.5), ("resnet50", 224, 236, 0.485)],
)
def test_a_timm_network_says_what_it_was_trained_on(name: str, size: int, resize: int, mean: float) -> None:
    inputs = timm_inputs(f"timm:{name}")
    assert inputs is not None
    assert (inputs.size, inputs.resize, inputs.mean[0]) == (size, resize, mean)
