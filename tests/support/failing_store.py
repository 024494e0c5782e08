"""An object store that fails now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def failing(action: Callable[..., Any], every: int, error: type[Exception] = OSError) -> Callable[..., Any]:
    """Let an action of a store fail, but for every ``every``-th call."""
    calls = 0

    def call(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % every:
            raise error("the store is busy")
        return action(*given, **options)

    return call
