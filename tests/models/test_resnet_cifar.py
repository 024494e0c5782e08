"""The CIFAR residual networks: size, layout, and a shortcut without parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longtail.models import ResNetCifar, build_model
from longtail.models.resnet_cifar import BasicBlock, fold_batch_norms


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_072), (32, 463_504), (44, 657_936), (56, 852_368)])
def test_parameters_of_every_depth(depth: int, parameters: int) -> None:
    # Counted by hand: 3x3 convolutions 27*16, then per group in*9*out, and 2 per channel for every normalization.
    network = ResNetCifar(depth)
    assert sum(value.numel() for value in network.parameters()) == parameters
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == depth - 1  # the classifier is the last layer counted


@pytest.mark.parametrize(("classes", "parameters"), [(10, 464_154), (100, 470_004)])
def test_resnet32_has_half_a_million_parameters(classes: int, parameters: int) -> None:
    total = sum(value.numel() for value in build_model("resnet32", classes).parameters())
    assert total == parameters
    assert round(total / 1e6, 1) == 0.5


def test_image_shrinks_by_two_twice() -> None:
    network = ResNetCifar(20)
    x = network.conv1(torch.zeros(1, 3, 32, 32))
    shapes = []
    for group in (network.layer1, network.layer2, network.layer3):
        x = group(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_shortcut_takes_every_second_pixel_and_pads_channels_evenly() -> None:
    block = BasicBlock(2, 4, stride=2)
    torch.nn.init.zeros_(block.bn2.weight)  # the residual branch now gives 0
    x = torch.arange(32.0).view(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


def test_features_are_non_negative_and_any_size_is_taken() -> None:
    network = ResNetCifar(20).eval()
    features = network(torch.randn(3, 3, 45, 28))
    assert features.shape == (3, network.num_features)
    assert (features >= 0).all()
    assert features.std() > 0


def test_other_depths_are_refused() -> None:
    with pytest.raises(ValueError, match="20, 32, 44, 56"):
        ResNetCifar(18)


def test_folding_batch_normalization_keeps_the_function_and_the_network() -> None:
    network = ResNetCifar(20).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: no scale of 1, no mean of 0
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(3, 3, 12, 12)
    quick = fold_batch_norms(network)
    assert torch.allclose(quick(images), network(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_not_understood_is_not_folded() -> None:
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert fold_batch_norms(other) is other
    network = ResNetCifar(20)
    network.conv1 = nn.utils.parametrizations.weight_norm(network.conv1)  # no plain convolution any more
    assert isinstance(fold_batch_norms(network).bn1, nn.BatchNorm2d)
    assert isinstance(fold_batch_norms(network).layer1[0].bn1, nn.Identity)
