"""An Inspection in the terminal: the class histogram colored by shot group, the facts, the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from longtail.counts import GroupName
    from longtail.data.audit.inspection import Inspection
    from longtail.data.dataset import Severity

_COLORS: Mapping[GroupName, str] = {"many": "cyan", "medium": "yellow", "few": "magenta"}
_MARKS: Mapping[Severity, tuple[str, str]] = {
    "error": ("✗", "red"),
    "warning": ("!", "yellow"),
    "note": ("·", "cyan"),
}
_NAME = 30  # characters of a class name at most
_EIGHTHS = " ▏▎▍▌▋▊▉"


def render(inspection: Inspection, console: Console, *, max_rows: int = 40) -> None:
    """Print an inspection: bars by class (largest first), ratio, groups, image sizes and modes, findings.

    Args:
        inspection: From :func:`~longtail.data.audit.inspection.inspect_source`.
        console: Where to print.
        max_rows: With more classes than this, a bar stands for several classes of neighboring size.
    """
    names = min(_NAME, max(len(printable(name)) for name in inspection.classes) + 6)  # "+ 123" behind some
    numbers = sum(max(len(name), len(f"{max(counts):,}")) + 2 for name, counts in inspection.counts.items())
    other_columns = names + numbers + len("  medium  ")
    console.print(_table(inspection, max_rows, bar_width=max(8, min(48, console.width - other_columns))))
    for line in _facts(inspection):
        console.print(Text(line))
    for finding in inspection.findings:
        mark, color = _MARKS[finding.severity]
        console.print(Text.assemble((f"{mark} {finding.severity}: ", color), printable(str(finding))))


def bar(value: float, top: float, width: int) -> str:
    """Draw a horizontal bar in eighths of a character; any value above zero is visible.

    Example:
        >>> bar(5, 10, 8), bar(0, 10, 8), bar(0.001, 10, 8)
        ('████', '', '▏')
    """
    eighths = max(round(8 * width * value / top), 1) if value > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def printable(text: str) -> str:
    r"""Escape control characters and line breaks, which file and class names may contain.

    Example:
        >>> print(printable("a\nb é"))
        a\nb é
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _table(inspection: Inspection, max_rows: int, bar_width: int) -> Table:
    train = np.array(inspection.counts["train"])
    group_of = {row: name for name, rows in inspection.groups.items() for row in rows}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=_NAME)
    for name in inspection.counts:
        table.add_column(name, justify="right")
    table.add_column("group")
    table.add_column("")
    order = np.argsort(-train, kind="stable")
    for part in _runs([group_of[int(row)] for row in order], max_rows):
        rows = order[part]
        color = _COLORS[group_of[int(rows[0])]]
        cells = [_number(np.array(counts)[rows]) for counts in inspection.counts.values()]
        bars = Text(bar(float(train[rows].mean()), float(train.max()), bar_width), style=color)
        group = Text(group_of[int(rows[0])], style=color)
        title = printable(inspection.classes[rows[0]]) + (f" + {len(rows) - 1}" if len(rows) > 1 else "")
        table.add_row(Text(title), *cells, group, bars)
    return table


def _runs(groups: Sequence[GroupName], max_rows: int) -> list[slice]:
    """Cut classes in order of size into bars: one each if they fit, else runs of equal length within a group."""
    step = -(-len(groups) // max_rows)
    runs: list[slice] = []
    for index, name in enumerate(groups):
        start = runs[-1].start if runs else 0
        if runs and index - start < step and groups[start] == name:
            runs[-1] = slice(start, index + 1)
        else:
            runs.append(slice(index, index + 1))
    return runs


def _number(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _facts(inspection: Inspection) -> list[str]:
    totals = ", ".join(f"{sum(counts):,} {name}" for name, counts in inspection.counts.items())
    groups = ", ".join(f"{len(rows)} {name}" for name, rows in inspection.groups.items())
    lines = [
        f"{inspection.source}: {len(inspection.classes)} classes; images: {totals}",
        f"imbalance ratio {inspection.imbalance_ratio:.4g}; classes by shot: {groups}",
    ]
    if inspection.sizes:
        sizes = inspection.sizes
        smallest, median, largest = (f"{w}x{h}" for w, h in (sizes["smallest"], sizes["median"], sizes["largest"]))
        size = smallest if smallest == largest else f"{smallest} to {largest}, median {median}"
        modes = ", ".join(f"{count:,} {mode}" for mode, count in inspection.modes.items())
        lines.append(f"size {size}; modes: {modes}")
    part = "" if inspection.checked == inspection.total else f" of {inspection.total:,} (a sample)"
    rate = f"{inspection.checked / max(inspection.seconds, 1e-9):,.0f} images/s"
    lines.append(f"{inspection.checked:,} images decoded{part} at {rate}, {len(inspection.unreadable):,} unreadable")
    kinds = Counter(group.kind for group in inspection.duplicates)
    lines.append(f"groups of exact copies: {kinds['exact']:,}; of images that look alike: {kinds['near']:,}")
    return lines
