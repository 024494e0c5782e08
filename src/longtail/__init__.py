"""longtail: long-tailed image recognition, from a folder of images to a classifier that keeps its rare classes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longtail.version import __version__

if TYPE_CHECKING:
    from longtail.counts import ClassCounts
    from longtail.integrations.sklearn import LongTailClassifier
    from longtail.predict.predictor import load

__all__ = ["ClassCounts", "LongTailClassifier", "__version__", "load"]
_HOME = {"ClassCounts": "counts", "LongTailClassifier": "integrations.sklearn", "load": "predict.predictor"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``import longtail`` itself stays fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'longtail' has no attribute {name!r}")
    return getattr(import_module(f"longtail.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
