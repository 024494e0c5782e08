"""timm next to any build of torch, the inputs of its networks, and their weights: packaged, cached, or out of reach."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_cache import write_weights

from longtail.device import prepare_torchvision
from longtail.errors import LongtailError
from longtail.models.backbones import build_backbone, check_network
from longtail.models.timm import (
    PACKAGES,
    cached_weights,
    has_weights,
    load_in_order,
    packaged_weights,
    require_weights,
    timm_inputs,
    timm_module,
)

LITE = "tf_efficientnet_lite0"


def test_pretrained_weights_come_out_of_the_package() -> None:
    path = packaged_weights(LITE)
    if path is None:
        pytest.skip(f"{PACKAGES[LITE]} is not installed")
    torch.manual_seed(0)
    network = build_backbone(f"timm:{LITE}", pretrained=True, in_size=224)
    stored = list(torch.load(path, weights_only=True).values())
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), stored, strict=False))


def test_a_tag_names_the_same_package() -> None:
    assert packaged_weights(f"{LITE}.in1k") == packaged_weights(LITE)
    assert packaged_weights(f"{LITE}.other") is None


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(LongtailError, match="package"):
        load_in_order(torch.nn.Linear(2, 2), tmp_path / "other.pth")


def test_without_weights_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.models.timm.packaged_weights", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LongtailError, match=r"'longtail\[weights\]'.*pretrained=False"):
        build_backbone("timm:test_resnet", pretrained=True, in_size=32)


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        (False, "--model.name timm:tf_efficientnet_lite0"),
        (False, "--mode scratch"),
        (True, "--mode linear or finetune .*transformer"),
    ],
)
def test_without_a_network_the_remedy_fits_the_mode(
    monkeypatch: pytest.MonkeyPatch, adapters: bool, words: str
) -> None:
    monkeypatch.setattr("longtail.data.sources.huggingface.reachable", lambda seconds: False)
    monkeypatch.setattr("longtail.models.timm.packaged_weights", lambda name: None)
    with pytest.raises(LongtailError) as caught:
        require_weights("timm:vit_small_patch16_224", adapters=adapters)
    assert re.search(words, caught.value.for_command_line())


def test_weights_in_the_cache_of_the_hub_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "test_resnet.r160_in1k"
    assert cached_weights(name) is None
    torch.manual_seed(0)
    trained = timm_module().create_model(name)
    path = write_weights(tmp_path, f"timm/{name}", trained)
    assert cached_weights(name) == path
    network = build_backbone(f"timm:{name}", pretrained=True, in_size=32)
    first = "layer1.0.conv1.weight"
    assert torch.equal(network.state_dict()[f"trunk.{first}"], trained.state_dict()[first])
    path.write_bytes(b"half a download")
    with pytest.raises(LongtailError, match="delete"):
        build_backbone(f"timm:{name}", pretrained=True, in_size=32)


@pytest.mark.parametrize(
    ("name", "size", "resize", "mean"),
    [("tf_efficientnet_lite0", 224, 256, 0.5), ("vit_small_patch16_224", 224, 248, 0.5), ("resnet50", 224, 235, 0.485)],
)
def test_a_timm_network_says_what_it_was_trained_on(name: str, size: int, resize: int, mean: float) -> None:
    inputs = timm_inputs(f"timm:{name}")
    assert inputs is not None
    assert (inputs.size, inputs.resize, inputs.mean[0]) == (size, resize, mean)


@pytest.mark.parametrize(
    ("name", "fit"), [("resnet50", "crop"), ("coat_lite_medium_384", "stretch"), ("volo_d4_448", "crop")]
)
def test_images_come_to_a_network_as_its_weights_ask(name: str, fit: str) -> None:
    inputs = timm_inputs(f"timm:{name}")
    assert inputs is not None
    assert (inputs.fit, inputs.square.shorter >= inputs.size) == (fit, True)  # the last is cut out of less


@pytest.mark.parametrize("ask", [timm_inputs, check_network, has_weights, require_weights])
def test_a_tag_that_does_not_exist_is_one_sentence(ask: Callable[[str], object]) -> None:
    with pytest.raises(LongtailError, match=r"'resnet50\.a1_in1k'"):
        ask("timm:resnet50.a1_in1")


def test_torchvision_is_only_touched_where_it_is_broken() -> None:
    # In a fresh process, because what is declared once stays declared.
    code = (
        "from longtail.device import prepare_torchvision\n"
        "import importlib, sys\n"
        "try:\n    import torchvision\n    whole = True\n"
        "except RuntimeError:\n    whole = False\n"
        "for name in [n for n in sys.modules if n.startswith('torchvision')]: del sys.modules[name]\n"
        "if whole: sys.exit(0)\n"
        "assert prepare_torchvision() is True\n"
        "assert prepare_torchvision() is False\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_torchvision_imports_after_the_preparation() -> None:
    prepare_torchvision()
    import torchvision

    assert torchvision.__version__
    assert prepare_torchvision() is False
