"""What the commands say of "not sure": how many predictions a threshold keeps, and how many of them are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from longtail.commands.shared import percent


def sure_words(sure: Mapping[str, Any]) -> str:
    """Say what a threshold keeps of all images and of each group.

    Example:
        >>> part = {"num_images": 9, "coverage": 0.5, "accuracy": None}
        >>> print(sure_words({"overall": part, "many": part, "medium": part, "few": part | {"coverage": None}}))
        sure of 50.0 % of the images (many 50.0 %, medium 50.0 %, few n/a), n/a of them right (many n/a, medium n/a, few
        n/a)
    """

    def shown(key: str) -> str:
        groups = ", ".join(f"{name} {percent(sure[name][key], 1)}" for name in ("many", "medium", "few"))
        return f"({groups})"

    overall = sure["overall"]
    return (
        f"sure of {percent(overall['coverage'], 1)} of the images {shown('coverage')}, "
        f"{percent(overall['accuracy'], 1)} of them right {shown('accuracy')}"
    )


def coverage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what several thresholds keep: overall and of each group, coverage and then accuracy.

    Args:
        rows: As :func:`longtail.evaluation.coverage.sure_summary` returns them.
    """
    parts = ("overall", "many", "medium", "few")
    table = Table("threshold", *parts, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        cells = [f"{percent(row[part]['coverage'], 1)}: {percent(row[part]['accuracy'], 1)}" for part in parts]
        table.add_row(f"{row['threshold']:.4f}", *cells)
    return table
