"""Backbones by name: ours, those of timm, and errors with their remedy."""

from __future__ import annotations

import pytest
import torch

from longtail.commands.output import is_disk_full
from longtail.errors import LongtailError
from longtail.models import backbones, build_backbone, build_model, last_blocks


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("plain-cnn", 8),
        ("plain-cnn", 28),
        ("resnet20", 32),
        ("timm:resnet10t", 64),
        ("timm:mobilenetv3_small_050", 64),  # its feature is wider than its last map
        ("timm:vit_tiny_patch16_224", 32),  # built for one size only
        ("timm:resnet26+bottleneck", 64),
    ],
)
def test_features_have_the_size_that_is_promised(name: str, size: int) -> None:
    network = build_backbone(name, in_size=size).eval()
    with torch.no_grad():
        features = network(torch.randn(2, 3, size, size))
    assert features.shape == (2, network.num_features)


def test_new_bottleneck_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    network = build_backbone("timm:resnet26+bottleneck", in_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = network.trunk(images).mean(dim=(2, 3))
        torch.testing.assert_close(network(images), pooled)


def test_plain_cnn_has_no_batch_statistics() -> None:
    assert not list(build_backbone("plain-cnn").buffers())
    network = build_backbone("plain-cnn").train()
    images = torch.randn(4, 3, 28, 28)
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet23", "mean 'resnet"),
        ("resnet50", "mean 'timm:resnet50'"),
        ("zzz", "Known: plain-cnn, resnet20, resnet32, resnet44, resnet56, timm:NAME"),
        ("timm:resnt50", "mean 'resnet50'"),
        ("timm:zzzzzzzzzz", "list_models"),
        ("timm:hf-hub:someone/something", "no network"),  # a name in a model.json must not reach the network
        ("timm:vit_tiny_patch16_224+bottleneck", "feature map"),
    ],
)
def test_wrong_names_say_the_right_one(name: str, hint: str) -> None:
    with pytest.raises(LongtailError, match=hint):
        build_backbone(name)


def test_pretrained_weights_that_do_not_exist() -> None:
    with pytest.raises(LongtailError, match="published"):
        build_backbone("resnet32", pretrained=True)


@pytest.mark.parametrize(
    "error",
    [OSError("no such host.\ndetails"), RuntimeError("No pretrained weights exist"), OSError(28, "No space left")],
)
def test_pretrained_weights_out_of_reach(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = backbones.timm_module()

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", refuse)
    monkeypatch.setattr("longtail.data.sources.huggingface.reachable", lambda seconds: True)
    with pytest.raises(LongtailError, match="cache") as caught:
        build_backbone("timm:resnet10t", pretrained=True)
    assert "\n" not in str(caught.value)
    assert not is_disk_full(caught.value), "of the run"


def test_last_blocks_name_all_that_follows() -> None:
    assert last_blocks(build_backbone("resnet20"), 2) == ("layer2", "layer3")
    vit = last_blocks(build_backbone("timm:vit_tiny_patch16_224"), 1)
    assert vit[:2] == ("trunk.blocks.11", "trunk.norm")
    places = build_backbone("timm:resnet26+bottleneck")
    assert {"trunk.layer4", "bottleneck"} <= set(last_blocks(places, 1))
    assert "trunk.layer3" not in last_blocks(places, 1)
    assert last_blocks(places, 0) == ("bottleneck",)
    assert last_blocks(build_backbone("resnet20"), 0) == ()
    with pytest.raises(LongtailError, match="3 blocks"):
        last_blocks(build_backbone("resnet20"), 4)


def test_places_protocol_trains_the_last_block_and_the_bottleneck() -> None:
    model = build_model("timm:resnet26+bottleneck", 5, in_size=64)
    model.freeze_backbone(keep=last_blocks(model.backbone, 1)).train()
    trained = [name for name, value in model.backbone.named_parameters() if value.requires_grad]
    assert {name.split(".")[1] for name in trained if name.startswith("trunk")} == {"layer4"}
    assert any(name.startswith("bottleneck") for name in trained)
    assert not model.backbone.trunk.layer3.training
    assert model.backbone.trunk.layer4.training
