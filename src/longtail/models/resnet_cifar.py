"""ResNetCifar: the small residual networks for 32 x 32 images, ResNet-20, 32, 44 and 56."""

from __future__ import annotations

import copy
from typing import cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

DEPTHS = (20, 32, 44, 56)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters.

    Where the block halves the image and widens the channels, the shortcut takes every second pixel and fills the new
    channels with zeros, half on each side ("option A" of the paper, section 4.2).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, ``in_channels`` or more.
        stride: 2 halves height and width, 1 keeps them.

    Example:
        >>> import torch
        >>> BasicBlock(16, 32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.extra = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(shortcut(x) + residual(x))``, shape (N, out_channels, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(x + residual)


class ResNetCifar(nn.Module):
    """The residual network for CIFAR: three groups of blocks with 16, 32 and 64 channels, then the mean over pixels.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; weights drawn
    as in He et al., ICCV 2015 (Kaiming normal, fan-in). ResNet-32 has 463,504 parameters before its classifier.

    Args:
        depth: 20, 32, 44 or 56.

    Raises:
        ValueError: Another depth.

    Example:
        >>> import torch
        >>> network = ResNetCifar(20)
        >>> network(torch.zeros(2, 3, 32, 32)).shape, network.num_features
        (torch.Size([2, 64]), 64)
    """

    num_features: int = 64

    def __init__(self, depth: int = 32) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"ResNetCifar has the depths {', '.join(map(str, DEPTHS))}; got {depth}.")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _group(16, 16, blocks, stride=1)
        self.layer2 = _group(16, 32, blocks, stride=2)
        self.layer3 = _group(32, 64, blocks, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return features of shape (N, 64), all >= 0, for normalized images of shape (N, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast("Tensor", x.mean(dim=(2, 3)))


def fold_batch_norms(backbone: nn.Module) -> nn.Module:
    """Return a copy for inference whose batch normalizations are folded into the convolutions before them.

    In evaluation mode a batch normalization is a scale and an offset by channel, which the weights of the convolution
    can carry: the same function up to rounding, with one pass less over the activations for each.

    Args:
        backbone: Any; one that is not a :class:`ResNetCifar` of plain convolutions is returned as it is.

    Example:
        >>> import torch
        >>> network, images = ResNetCifar(20).eval(), torch.ones(1, 3, 8, 8)
        >>> torch.allclose(fold_batch_norms(network)(images), network(images), atol=1e-4)
        True
    """
    if type(backbone) is not ResNetCifar:
        return backbone
    network = copy.deepcopy(backbone).eval()
    for part in network.modules():
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            layer = getattr(part, conv, None)
            if type(layer) is nn.Conv2d:  # not one that an adapter has wrapped
                setattr(part, conv, fuse_conv_bn_eval(layer, getattr(part, norm)))
                setattr(part, norm, nn.Identity())
    return network


def _group(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)))
