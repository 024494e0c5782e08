"""Which configurations a sentence names, of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from longtail.compare.table import Row

Shown = TypeVar("Shown")
NAMED = 5
"""Of more configurations than this a sentence speaks of the first and the best only."""


def named(panels: Sequence[Shown], row_of: Callable[[Shown], Row]) -> list[Shown]:
    """The panels, runs or whatever stands for a configuration that a sentence names.

    These are all of a few; else the first, and the one best on few-shot classes, or on the average class where there is
    no such group.

    Args:
        panels: One for each configuration.
        row_of: The configuration of one of them.
    """
    if len(panels) <= NAMED:
        return list(panels)

    def reached(panel: Shown) -> float:
        values = row_of(panel).values
        value = values["few"] or values["balanced_accuracy"]
        return value.mean if value else 0.0

    return [panels[0], max(panels[1:], key=reached)]


def spoken(rows: Sequence[Row]) -> list[Row]:
    """The configurations a sentence names, as :func:`named` chooses."""
    return named(rows, lambda row: row)
