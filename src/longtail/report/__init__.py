"""One page from finished runs."""

from longtail.report.page import write_report

__all__ = ["write_report"]
