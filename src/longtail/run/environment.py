"""What a result was made with: versions of the libraries, and the machine."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from longtail.cores import cores
from longtail.device import accelerator_name
from longtail.version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "datasets", "torchmetrics", "numpy", "pillow", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of longtail, Python and the libraries a result depends on.

    Example:
        >>> sorted(versions())[:3]
        ['accelerate', 'datasets', 'longtail']
    """
    found = {"longtail": __version__, "python": platform.python_version()}
    return found | {package: _version(package) for package in _PACKAGES}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def hardware(device: torch.device) -> dict[str, str | int]:
    """Return the processor, its cores and the accelerator a run used.

    Example:
        >>> hardware(torch.device("cpu"))["device"]
        'cpu'
    """
    name = accelerator_name(device) or device.type
    return {"device": name, "processor": _processor(), "cores": cores(), "system": platform.system()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
