"""Images, from sources to batches; names load on first use, so samplers need torch and numpy alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail.data.audit.inspection import inspect_source
    from longtail.data.dataset import ImageData, Split
    from longtail.data.samplers import LongTailSampler, ShuffleSampler, build_sampler, class_probabilities
    from longtail.data.sources.registry import load_source

__all__ = [
    "ImageData",
    "LongTailSampler",
    "ShuffleSampler",
    "Split",
    "build_sampler",
    "class_probabilities",
    "inspect_source",
    "load_source",
]

_HOME = {
    "ImageData": "dataset",
    "LongTailSampler": "samplers",
    "ShuffleSampler": "samplers",
    "Split": "dataset",
    "build_sampler": "samplers",
    "class_probabilities": "samplers",
    "inspect_source": "audit.inspection",
    "load_source": "sources.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its file when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'longtail.data' has no attribute {name!r}")
    return getattr(import_module(f"longtail.data.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
