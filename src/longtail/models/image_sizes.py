"""Image sizes: which a network of timm can be built for, and how a trained one comes to another size."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any, Final, cast

import torch
from torch import nn

from longtail.errors import LongtailError, first_line
from longtail.models.timm import TIMM_PREFIX, timm_module, weights_config

SIZE_OPTIONS: Final = {"the image size": "--data.image_size"}
"""Words in messages, and the option that the command line shows instead."""
_SIZE_STEP: Final = 16  # pixels


def size_options(name: str, in_size: int) -> dict[str, Any]:
    """Return what ``timm.create_model`` needs to know of the image size, for a name without ``timm:``.

    timm resamples published position embeddings of another size when it loads them.

    Example:
        >>> size_options("vit_tiny_patch16_224", 128), size_options("resnet18", 128)
        ({'img_size': 128}, {})
    """
    is_other = has_fixed_size(name) and native_size(name) != in_size
    return {"img_size": in_size} if is_other else {}


def native_size(name: str) -> int:
    """Return the side in pixels of the images that a network, a name without ``timm:``, was trained on.

    Example:
        >>> native_size("vit_tiny_patch16_224")
        224
    """
    return int(weights_config(name).input_size[-1])


def has_fixed_size(name: str) -> bool:
    """Whether a network, a name without ``timm:``, is built for one image size, as most transformers are.

    Example:
        >>> has_fixed_size("vit_tiny_patch16_224"), has_fixed_size("resnet18")
        (True, False)
    """
    config = weights_config(name)
    return config is not None and bool(config.fixed_input_size)


def check_build_size(name: str, in_size: int) -> None:
    """Check that a network can be built for images of a size, if it is built for a certain one.

    Args:
        name: A network, as for :func:`longtail.models.build_backbone`.
        in_size: Height and width of the images in pixels.

    Raises:
        LongtailError: A transformer whose patches do not divide the size, or another network that cannot be built for
            it; the message names sizes that fit.

    Example:
        >>> check_build_size("timm:vit_tiny_patch16_224", 126)
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: 'timm:vit_tiny_patch16_224' cuts images into patches of 16 pixels, which do not
        divide 126: set the image size to 112 or 128.
    """
    name = name.partition("+")[0]
    if name.startswith(TIMM_PREFIX) and size_options(name.removeprefix(TIMM_PREFIX), in_size):
        _probe(name, in_size)


def check_image_size(name: str, in_size: int) -> None:
    """Check that a network takes images of a size. Nothing is computed and no weights are made.

    Args:
        name: As for :func:`check_build_size`.
        in_size: As there.

    Raises:
        LongtailError: As there; or nothing is left of so small an image in it, or its blocks do not divide it.

    Example:
        >>> check_image_size("timm:convnext_atto", 16)
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: 'timm:convnext_atto' takes no images of 16 pixels: set the image size to 32, for
        example.
    """
    check_build_size(name, in_size)
    name = name.partition("+")[0]
    if not takes_image_size(name, in_size):
        native = native_size(name.removeprefix(TIMM_PREFIX))
        larger = range(in_size // _SIZE_STEP * _SIZE_STEP + _SIZE_STEP, native, _SIZE_STEP)
        fitting = next((size for size in larger if takes_image_size(name, size)), native)
        raise LongtailError(
            f"{name!r} takes no images of {in_size} pixels: set the image size to {fitting}, for example.",
            options=SIZE_OPTIONS,
        )


def takes_image_size(name: str, in_size: int) -> bool:
    """Whether a network takes images of a size; for one that is built for a certain size ask :func:`check_build_size`.

    Args:
        name: As for :func:`check_build_size`.
        in_size: As there.

    Example:
        >>> takes_image_size("timm:convnext_atto", 16), takes_image_size("timm:convnext_atto", 32)
        (False, True)
    """
    name = name.partition("+")[0]
    bare = name.removeprefix(TIMM_PREFIX)
    if bare == name or weights_config(bare) is None or has_fixed_size(bare):
        return True
    with suppress(LongtailError):
        if in_size != native_size(bare):
            _probe(name, in_size)
        return True
    return False


@functools.cache
def _probe(name: str, in_size: int) -> None:
    """Build a network without memory for its weights, and pass an image through that has no pixels."""
    timm, bare = timm_module(), name.removeprefix(TIMM_PREFIX)
    try:
        with torch.device("meta"), torch.no_grad():
            network = timm.create_model(bare, num_classes=0, **size_options(bare, in_size)).eval()
            _check_patch(name, network, in_size)
            network(torch.zeros(1, 3, in_size, in_size))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, LongtailError):
            raise
        raise LongtailError(
            f"{name!r} cannot be built for images of {in_size} pixels ({first_line(error)}): set the image size to "
            f"{native_size(bare)}, its own.",
            options=SIZE_OPTIONS,
        ) from error


def _check_patch(name: str, network: nn.Module, in_size: int) -> None:
    ratio = getattr(getattr(network, "patch_embed", None), "feat_ratio", None)
    if ratio is None:
        return
    patch = cast("int", ratio())
    if below := in_size % patch:
        sizes = [size for size in (in_size - below, in_size - below + patch) if size]
        raise LongtailError(
            f"{name!r} cuts images into patches of {patch} pixels, which do not divide {in_size}: set the image size "
            f"to {' or '.join(map(str, sizes))}.",
            options=SIZE_OPTIONS,
        )


def resize_network(trunk: nn.Module, in_size: int) -> None:
    """Bring a network with position embeddings to another image size, in place: they are resampled.

    Args:
        trunk: A network of timm.
        in_size: Height and width of its images in pixels from now on.

    Raises:
        LongtailError: timm cannot do it for this network.

    Example:
        >>> trunk = timm_module().create_model("test_vit", num_classes=0)
        >>> resize_network(trunk, 96)
        >>> trunk(torch.zeros(1, 3, 96, 96)).shape
        torch.Size([1, 64])
    """
    set_input_size = getattr(trunk, "set_input_size", None)
    if set_input_size is None:
        raise LongtailError(
            f"a trained {type(trunk).__name__} cannot take images of another size, {in_size} pixels: leave the image "
            "size as it was in training.",
            options=SIZE_OPTIONS,
        )
    with torch.no_grad():
        set_input_size(img_size=(in_size, in_size))
