"""The section on how classes lie to each other: their spread by the distance to the nearest other class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtail.compare.table import Comparison
from longtail.counts import GROUP_NAMES
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.evaluation.significance import seeds_interval
from longtail.report.plots.canvas import clip
from longtail.report.plots.class_points import class_points
from longtail.report.plots.figures import MANY_POINTS
from longtail.report.plots.palette import GROUP_LABELS, MUTED
from longtail.report.section import Drawing, Section
from longtail.report.select import (
    Learned,
    group_keys,
    learned_rows,
    said_of,
    seed_note,
    shared_range,
    side_by_side,
    trend,
    trend_sentence,
)
from longtail.text import class_word, listing, number


def spread_section(comparison: Comparison) -> Section | None:
    """Spread over the distance to the nearest centre, each class; None where no run was analysed."""
    found = [one for one in learned_rows(comparison) if np.isfinite(one.split.classes.ratio).any()]
    if not found:
        return None
    axis = shared_range([np.append(one.split.classes.ratio, 1.0) for one in found])
    drawings = []
    for index, one in enumerate(found):
        ratio = one.split.classes.ratio
        words = _neighbours(one) if len(ratio) <= MANY_POINTS else None
        says = "spread %{y:.2f} × the distance" + ("<br>%{hovertext}" if words else "")
        figure = class_points(one.run.counts, one.run.group_of, ratio, says=says, words=words)
        figure.add_hline(y=1, line={"color": MUTED, "width": 1, "dash": "dot"})
        figure.update_yaxes(title="Spread / nearest centre", range=axis, nticks=6)
        alt = (
            f"Points of spread over distance to the nearest other class against training images under {one.row.label}, "
            f"{_groups(one)}."
        )
        drawings.append(Drawing(f"spread-{index}", one.row.label, alt, figure))
    layout, keys = side_by_side(len(found)), group_keys(found[0].run)
    return Section("spread", "How apart the classes lie", _sentence(found), layout, keys, tuple(drawings))


def _neighbours(one: Learned) -> list[str]:
    """The two distances of each class in words, and which class is the nearest."""
    classes, names = one.split.classes, one.run.counts.names
    return [
        f"{number(spread)} to its centre, {number(far)} to {clip(class_word(names[near]), 24)}" if near >= 0 else ""
        for spread, far, near in zip(classes.spread, classes.nearest_distance, classes.nearest, strict=True)
    ]


def _sentence(found: Sequence[Learned]) -> str:
    named = said_of(found)
    trends = [(one.row.label, trend(one, one.split.classes.ratio)) for one in named]
    said = [f"{_groups(one)} under {one.row.label}" for one in named]
    return (
        f"How far {found[0].name} features of a class lie from their centre, by the distance to the nearest other one; "
        f"above 1, the dotted line, a class reaches past its neighbour. It is {'; '.join(said)}. "
        f"{trend_sentence('The ratio', trends)}{_against_first(named)}{seed_note(one.seeds for one in found)}"
    )


def _against_first(found: Sequence[Learned]) -> str:
    """Whether a class lies tighter than under the first configuration: over classes, each set against itself."""
    first = found[0]
    alike = [one for one in found[1:] if one.is_cosine == first.is_cosine]
    others = [one.row.label for one in found[1:] if one not in alike]
    changes = [(one.row.label, ratio_change(one.split.classes.ratio, first.split.classes.ratio)) for one in alike]
    said = [_changed(label, change) for label, change in changes if change]
    text = ""
    if said:
        text = f" Against {first.row.label}, the ratio of a class is {listing(said)}; intervals are over classes."
    if others:
        how = "with their length" if first.is_cosine else "by direction alone"
        text += f" Features of {listing(others)} are measured {how} and do not compare with those of {first.row.label}."
    return text


def _changed(label: str, change: tuple[float, float, float]) -> str:
    mean, low, high = change
    share = f"{number(100 * abs(mean), 1)}% {'higher' if mean > 0 else 'lower'}"
    ends = " to ".join(f"{'+' if end > 0 else ''}{number(100 * end, 1)}" for end in (low, high))
    return f"{share if low > 0 or high < 0 else 'not clearly another'} under {label} ({LEVEL_TEXT} interval {ends}%)"


def ratio_change(ratio: npt.ArrayLike, base: npt.ArrayLike) -> tuple[float, float, float] | None:
    """By what share something of each class differs from what it was, and the interval of that over classes.

    Logarithms are compared, so that twice and half weigh the same; the mean is the geometric one.

    Args:
        ratio: One a class, shape (C,); a class is left out where either is not finite and positive.
        base: What it is compared with, shape (C,).

    Returns:
        The share and both ends of its interval; None for fewer than two classes.

    Example:
        >>> [round(value, 3) for value in ratio_change([2.0, 3.0, 5.0], [1.0, 2.0, 2.0])]
        [0.957, 0.036, 2.698]
    """
    new, old = np.asarray(ratio, dtype=np.float64), np.asarray(base, dtype=np.float64)
    known = np.isfinite(new) & np.isfinite(old) & (new > 0) & (old > 0)
    if known.sum() < 2:
        return None
    change = np.log(new[known] / old[known])
    ends = seeds_interval(float(change.mean()), float(change.std(ddof=1)), int(known.sum()))
    return float(np.expm1(change.mean())), float(np.expm1(ends[0])), float(np.expm1(ends[1]))


def _groups(one: Learned) -> str:
    """The mean of each group in words."""
    groups, ratio = np.array(one.run.group_of), one.split.classes.ratio
    parts = []
    for name in GROUP_NAMES:
        known = ratio[(groups == name) & np.isfinite(ratio)]
        if known.size:
            parts.append(f"{number(float(known.mean()))} on {GROUP_LABELS[name].lower()}")
    return listing(parts)
