"""Image sizes of timm's networks: which are refused, and position embeddings that are resampled for another one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hub_cache import write_weights
from safetensors.torch import save

from longtail.errors import LongtailError
from longtail.models import build_backbone, build_model
from longtail.models.image_sizes import check_image_size
from longtail.models.inference_engine import compile_backbone
from longtail.models.preprocessing import Preprocessing
from longtail.models.timm import timm_module

VIT = "test_vit.r160_in1k"  # patches of 16 pixels, 10 x 10 of them
SIDE = 96


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """The network whose weights lie in the cache of the hub, as an earlier download leaves them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    torch.manual_seed(0)
    network: torch.nn.Module = timm_module().create_model(VIT)
    with torch.no_grad():
        network.pos_embed.normal_()  # which starts too small to matter
    write_weights(tmp_path, f"timm/{VIT}", network)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "size", "sizes"),
    [
        ("vit_tiny_patch16_224", 126, "112 or 128"),
        ("vit_small_patch14_dinov2.lvd142m", 130, "126 or 140"),
        ("vit_small_patch16_dinov3.lvd1689m", 130, "128 or 144"),
        ("vit_tiny_patch16_224", 9, "to 16"),  # nothing is below
        ("efficientformer_l1", 112, "to 224"),  # no patches, but built for one size all the same
    ],
)
def test_sizes_that_do_not_fit_name_those_that_do(name: str, size: int, sizes: str) -> None:
    with pytest.raises(LongtailError, match=sizes) as caught:
        build_backbone(f"timm:{name}", in_size=size)
    assert "--data.image_size" in caught.value.for_command_line()


@pytest.mark.parametrize(
    ("name", "size", "fitting"),
    [
        ("convnext_atto", 31, "to 32"),  # any size but those of which nothing is left
        ("inception_v3", 64, "to 80"),
        ("halonet26t", 300, "to 256"),  # blocks that divide its feature maps
    ],
)
def test_a_network_of_any_size_has_a_smallest_one(name: str, size: int, fitting: str) -> None:
    with pytest.raises(LongtailError, match=fitting) as caught:
        check_image_size(f"timm:{name}", size)
    assert "--data.image_size" in caught.value.for_command_line()
    build_backbone(f"timm:{name}", in_size=size)  # a library's user may have other images for it


def test_only_another_size_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("built a network")

    monkeypatch.setattr(timm_module(), "create_model", fail)
    for name, size in (("timm:vit_base_patch16_224", 224), ("timm:resnet50", 224), ("resnet32", 33)):
        check_image_size(name, size)


def test_published_position_embeddings_are_resampled(published: torch.nn.Module) -> None:
    network = build_backbone(f"timm:{VIT}", pretrained=True, in_size=SIDE).trunk
    theirs, mine = published.state_dict(), network.state_dict()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == ["pos_embed"]
    first, grid = theirs["pos_embed"][:, :1], theirs["pos_embed"][:, 1:]
    square = grid.unflatten(1, (10, 10)).permute(0, 3, 1, 2)
    smaller = F.interpolate(square, size=(6, 6), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(mine["pos_embed"], torch.cat([first, smaller], dim=1))


def test_published_weights_that_cannot_be_resampled_are_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "levit_128.fb_dist_in1k"
    monkeypatch.setattr("longtail.models.backbones.cached_weights", lambda name: tmp_path / "weights.safetensors")
    monkeypatch.setattr("longtail.models.backbones.require_weights", lambda name: None)
    (tmp_path / "weights.safetensors").write_bytes(save(timm_module().create_model(name).state_dict()))
    with pytest.raises(LongtailError, match="to 224"):
        build_backbone(f"timm:{name}", pretrained=True, in_size=128)


@pytest.mark.parametrize("name", [VIT, "vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"])
def test_a_trained_network_comes_to_another_size(name: str) -> None:
    patch = 14 if "patch14" in name else 16
    torch.manual_seed(0)
    network = build_backbone(f"timm:{name}", in_size=4 * patch).eval()
    # The same weights in a network of timm that resamples at every image.
    flexible = timm_module().create_model(name, num_classes=0, img_size=4 * patch, dynamic_img_size=True).eval()
    flexible.load_state_dict(network.trunk.state_dict())
    network.resize(6 * patch)
    images = torch.randn(2, 3, 6 * patch, 6 * patch)
    with torch.no_grad():
        torch.testing.assert_close(network(images), flexible(images), atol=1e-4, rtol=1e-4)
    assert network.in_size == 6 * patch


def test_a_network_that_cannot_be_resampled_says_so() -> None:
    network = build_backbone("timm:mixer_s32_224", in_size=224)
    with pytest.raises(LongtailError, match="another size"):
        network.resize(128)
    convolutional = build_backbone("timm:resnet10t", in_size=224)
    convolutional.resize(128)
    assert convolutional.in_size is None


@pytest.mark.parametrize("name", [VIT, "vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"])
def test_openvino_runs_a_transformer_at_another_size(name: str) -> None:
    pytest.importorskip("openvino", reason="the extra 'cpu' is not installed")
    side = 98 if "patch14" in name else 96
    looks = Preprocessing(side, (0.5,) * 3, (0.5,) * 3)
    model = build_model(f"timm:{name}", 3, in_size=side).eval()
    compiled = compile_backbone(model, looks, images=9, engine="openvino", store=False)
    assert compiled.takes_pixels
    pixels = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels), model(looks.normalize(pixels)), atol=1e-3, rtol=1e-3)
