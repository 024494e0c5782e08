"""The figures of a run in one line of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def figure(value: float | None, ends: Sequence[float] | None = None, *, unit: str = " %") -> str:
    """A fraction in percent with its interval in brackets, where it has one.

    Example:
        >>> figure(0.384, [0.3741, 0.3939]), figure(1.0, [0.9, 1.0], unit=""), figure(None)
        ('38.4 % (37.4-39.4)', '100 (90.0-100)', 'n/a')
    """
    if value is None:
        return "n/a"
    shown, *around = ("100" if share == 1 else f"{share * 100:.1f}" for share in (value, *(ends or ())))
    return f"{shown}{unit}" + (f" ({'-'.join(around)})" if around else "")


def describe(summary: Mapping[str, Any]) -> str:
    """Say the main figures of a summary in one line, with their intervals where it has them.

    Example:
        >>> figures = {"accuracy": 0.5, "balanced_accuracy": 0.4, "many": 0.75, "medium": None, "few": 0.1}
        >>> describe(figures)
        'accuracy 50.0 %, balanced accuracy 40.0 %, many 75.0, medium n/a, few 10.0'
        >>> describe(figures | {"intervals": {"accuracy": [0.41, 0.59]}})
        'accuracy 50.0 % (41.0-59.0), balanced accuracy 40.0 %, many 75.0, medium n/a, few 10.0'
    """
    ends = summary.get("intervals") or {}
    whole = ("accuracy", "balanced_accuracy")
    means = [f"{name.replace('_', ' ')} {figure(summary[name], ends.get(name))}" for name in whole]
    groups = [f"{name} {figure(summary[name], ends.get(name), unit='')}" for name in ("many", "medium", "few")]
    return ", ".join([*means, *groups])
