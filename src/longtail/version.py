"""The version of the package, which the build reads from here, and those of the libraries a result depends on."""

from __future__ import annotations

import platform
from functools import cache

__version__ = "0.1.0"

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "datasets", "torchmetrics", "numpy", "pillow", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of longtail, Python and the libraries a result depends on.

    Example:
        >>> sorted(versions())[:3]
        ['accelerate', 'datasets', 'longtail']
    """
    libraries = {package: _version(package) for package in _PACKAGES}
    return {"longtail": __version__, "python": platform.python_version(), **libraries}


@cache
def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
