"""What the commands say of "not sure": how many predictions a threshold keeps, and how many of them are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

PARTS = ("overall", "many", "medium", "few")


def sure_table(sure: Mapping[str, Any]) -> Table:
    """Lay out what one threshold keeps of all images and of each group, and how many of those are right.

    Args:
        sure: As :func:`longtail.evaluation.coverage.sure_summary` returns it.
    """
    from longtail.training.progress import figure

    table = Table("images", "sure of", "right of those", box=None, header_style="bold", pad_edge=False)
    for part in PARTS:
        kept = sure[part]
        cells = (figure(kept[name], kept[f"{name}_interval"]) for name in ("coverage", "accuracy"))
        table.add_row(part, *cells)
    return table


def coverage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what several thresholds keep: overall and of each group, coverage and beneath it accuracy.

    Args:
        rows: As :func:`longtail.evaluation.coverage.sure_summary` returns them.
    """
    from longtail.training.progress import figure

    table = Table("from", *PARTS, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        for start, name in ((f"{row['threshold']:.4f}", "coverage"), ("", "accuracy")):
            cells = (figure(row[part][name], row[part][f"{name}_interval"], unit="") for part in PARTS)
            table.add_row(start, *cells, end_section=name == "accuracy")
    return table
