"""A trained run on new images: predictor, streams of images, parts and shards, export, model card, hub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail.predict.predictor import Predictor

__all__ = ["Predictor"]
_HOME = {"Predictor": "predictor"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that a room next door does not load them."""
    if name not in _HOME:
        raise AttributeError(f"module 'longtail.predict' has no attribute {name!r}")
    return getattr(import_module(f"longtail.predict.{_HOME[name]}"), name)
