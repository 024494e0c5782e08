"""The section on how classes lie to each other: their spread by the distance to the nearest other class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtail.counts import GROUP_NAMES
from longtail.report.class_points import class_points
from longtail.report.compare import Comparison
from longtail.report.learned import (
    Learned,
    group_keys,
    learned_rows,
    number,
    said_of,
    seeds_note,
    shared_range,
    trend,
    trend_sentence,
)
from longtail.report.palette import GROUP_LABELS, MUTED
from longtail.report.section import Drawing, Section
from longtail.report.text import listing
from longtail.report.versus import side_by_side


def spread_section(comparison: Comparison) -> Section | None:
    """Spread over the distance to the nearest centre, each class; None where no run was analysed."""
    found = [one for one in learned_rows(comparison) if np.isfinite(one.split.classes.ratio).any()]
    if not found:
        return None
    axis = shared_range([np.append(one.split.classes.ratio, 1.0) for one in found])
    drawings = []
    for index, one in enumerate(found):
        ratio = one.split.classes.ratio
        figure = class_points(one.run.counts, one.run.group_of, ratio, says="spread %{y:.2f} × the distance")
        figure.add_hline(y=1, line={"color": MUTED, "width": 1, "dash": "dot"})
        figure.update_yaxes(title="Spread / nearest centre", range=axis, nticks=6)
        alt = (
            f"Points of spread over distance to the nearest other class against training images under {one.row.label}, "
            f"{_groups(one)}."
        )
        drawings.append(Drawing(f"spread-{index}", one.row.label, alt, figure))
    layout, keys = side_by_side(len(found)), group_keys(found[0].run)
    return Section("spread", "How apart the classes lie", _sentence(found), layout, keys, tuple(drawings))


def _sentence(found: Sequence[Learned]) -> str:
    named = said_of(found)
    trends = [(one.row.label, trend(one, one.split.classes.ratio)) for one in named]
    said = [f"{_groups(one)} under {one.row.label}" for one in named]
    return (
        f"How far {found[0].name} features of a class lie from their centre, by the distance to the nearest other one; "
        f"above 1, the dotted line, a class reaches past its neighbour. It is {'; '.join(said)}. "
        f"{trend_sentence('The ratio', trends)}{seeds_note(found)}"
    )


def _groups(one: Learned) -> str:
    """The mean of each group in words."""
    groups, ratio = np.array(one.run.group_of), one.split.classes.ratio
    parts = []
    for name in GROUP_NAMES:
        known = ratio[(groups == name) & np.isfinite(ratio)]
        if known.size:
            parts.append(f"{number(float(known.mean()))} on {GROUP_LABELS[name].lower()}")
    return listing(parts)
