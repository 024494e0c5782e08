"""One page from finished runs; plotly is imported only when the page is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtail.report.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'longtail.report' has no attribute {name!r}")
    from longtail.report import page

    return page.write_report


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
