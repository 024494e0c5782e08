"""longtail: long-tailed image recognition, from a folder of images to a classifier that keeps its rare classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail.counts import ClassCounts

__version__ = "0.1.0"
__all__ = ["ClassCounts", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``import longtail`` itself stays fast."""
    if name == "ClassCounts":
        from longtail.counts import ClassCounts

        return ClassCounts
    raise AttributeError(f"module 'longtail' has no attribute {name!r}")
