"""One page and one table from finished runs; plotly is imported only when the page is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtail.compare.comparison import compare_runs
    from longtail.compare.table import Comparison
    from longtail.report.page import write_report
    from longtail.run.result import RunResult

__all__ = ["Comparison", "RunResult", "compare_runs", "write_report"]

_HOMES = {
    "Comparison": "compare.table",
    "compare_runs": "compare.comparison",
    "write_report": "report.page",
    "RunResult": "run.result",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'longtail.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"longtail.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
