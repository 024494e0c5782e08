"""timm: its import next to any build of torch, and the inputs that its networks were trained with."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch

from longtail.data.decode import Interpolation

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
    loader = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    spec = importlib.machinery.FileFinder(str(package), loader).find_spec("_C")
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
    """How images become the input of a network.

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
