"""The figures of a run in one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longtail.text import figure_text


def describe(summary: Mapping[str, Any]) -> str:
    """Say the main figures of a summary in one line, with their intervals where it has them.

    Example:
        >>> figures = {"accuracy": 0.5, "balanced_accuracy": 0.4, "many": 0.75, "medium": None, "few": 0.1}
        >>> describe(figures)
        'accuracy 50.0%, balanced accuracy 40.0%, many 75.0, medium n/a, few 10.0'
        >>> describe(figures | {"intervals": {"accuracy": [0.41, 0.59]}})
        'accuracy 50.0% (41.0–59.0), balanced accuracy 40.0%, many 75.0, medium n/a, few 10.0'
    """
    ends = summary.get("intervals") or {}
    whole = ("accuracy", "balanced_accuracy")
    means = [f"{name.replace('_', ' ')} {figure_text(summary[name], ends.get(name))}" for name in whole]
    groups = [f"{name} {figure_text(summary[name], ends.get(name), unit=False)}" for name in ("many", "medium", "few")]
    return ", ".join([*means, *groups])
