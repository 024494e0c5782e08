"""prepare_torchvision: lets torchvision be imported beside a torch build that its compiled half does not fit."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from types import ModuleType


# A Library takes its operators with it when it is collected, so what was declared is held here.
_declared: list[torch.library.Library] = []


def prepare_torchvision() -> bool:
    """Declare the operators that ``import torchvision`` needs, only where that import would fail.

    ``timm`` and ``torchmetrics`` import torchvision on their way in. Its Python half describes the operators ``nms``
    and ``qnms`` to torch, and those exist only once its compiled half is loaded. The wheel of torchvision on PyPI is
    built for CUDA; beside a CPU build of torch the compiled half cannot load, and the import stops with "operator
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
    """Import timm, with what it imports prepared."""
    prepare_torchvision()
    import timm

    return cast("ModuleType", timm)
