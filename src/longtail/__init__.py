"""longtail: long-tailed image recognition, from a folder of images to a classifier that keeps its rare classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail.counts import ClassCounts
    from longtail.integrations.sklearn import LongTailClassifier
    from longtail.predict.predictor import load

__version__ = "0.1.0"
__all__ = ["ClassCounts", "LongTailClassifier", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``import longtail`` itself stays fast."""
    if name == "ClassCounts":
        from longtail.counts import ClassCounts

        return ClassCounts
    if name == "LongTailClassifier":
        from longtail.integrations.sklearn import LongTailClassifier

        return LongTailClassifier
    if name == "load":
        from longtail.predict.predictor import load

        return load
    raise AttributeError(f"module 'longtail' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
