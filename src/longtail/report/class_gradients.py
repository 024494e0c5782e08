"""The section on the gradients of each class: the ratio against its size, and the two sums against each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.norms import rank_trend
from longtail.counts import FloatArray
from longtail.report.balance import (
    ALIKE,
    Ends,
    Panel,
    are_alike,
    group_word,
    named_panels,
    ratio_text,
    shared_ends,
)
from longtail.report.canvas import blank
from longtail.report.class_points import add_class_points, class_points
from longtail.report.learned import group_keys
from longtail.report.palette import MUTED
from longtail.report.section import Drawing, Section, in_rows
from longtail.report.text import listing, number
from longtail.report.versus import side_by_side

FARTHEST = 1e3
"""Ratios beyond this, or below its inverse, are of a class that was hardly drawn: the axis ends there."""


def class_gradients_section(panels: Sequence[Panel]) -> Section | None:
    """Ratio and sums of each class at the end of stage 1; None where no run drew an image of a class then."""
    panels = [panel for panel in panels if np.isfinite(panel.last).any()]
    if not panels:
        return None
    ends = ratio_ends([panel.last for panel in panels])
    reach = shared_ends([part for panel in panels for part in panel.sums])
    ratios = [
        Drawing(f"gradient-classes-{place}", f"{panel.label}: ratio", _ratio_alt(panel), _ratio_points(panel, ends))
        for place, panel in enumerate(panels)
    ]
    sums = [
        Drawing(f"gradient-class-sums-{place}", f"{panel.label}: sums", _sums_alt(panel), _sum_points(panel, reach))
        for place, panel in enumerate(panels)
    ]
    layout = "two" if len(panels) == 1 else side_by_side(len(panels))
    return Section(
        "gradient-classes", "Gradients of each class", _sentence(panels), layout, group_keys(panels[0].one.run),
        in_rows(ratios, sums),
    )  # fmt: skip


def ratio_ends(ratios: Sequence[FloatArray]) -> Ends:
    """Ends of a logarithmic axis that holds all ratios and 1.

    Example:
        >>> [round(end, 2) for end in ratio_ends([np.array([0.1, np.nan])])]
        [-1.08, 0.08]
    """
    return shared_ends([np.clip(part, 1 / FARTHEST, FARTHEST) for part in ratios] + [np.ones(1)])


def ratio_axis(figure: go.Figure, ends: Ends) -> go.Figure:
    """Make the vertical axis one of ratios, with a line at 1."""
    figure.add_hline(y=1, line={"color": MUTED, "width": 1, "dash": "dot"})
    ticks = [step * 10.0**power for power in range(-3, 4) for step in ((1, 2, 5) if ends[1] - ends[0] < 2 else (1,))]
    if ends[1] - ends[0] < 0.5:
        ticks = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2]
    return figure.update_yaxes(
        title="Raised / lowered", type="log", range=list(ends), tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )


def _ratio_points(panel: Panel, ends: Ends) -> go.Figure:
    """Ratio of each class against its training images."""
    run = panel.one.run
    held = np.clip(panel.last, 1 / FARTHEST, FARTHEST)
    return ratio_axis(class_points(run.counts, run.group_of, held, says="raised / lowered %{y:.3r}"), ends)


def _sum_points(panel: Panel, ends: Ends) -> go.Figure:
    """What raised each class against what lowered it; a class on the dotted line was raised as much as lowered."""
    run, (raised, lowered) = panel.one.run, panel.sums
    figure = blank(300, left=58)
    corners = np.power(10.0, ends)
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    figure.add_scatter(x=corners, y=corners, mode="lines", line=line, hoverinfo="skip")
    add_class_points(figure, run.group_of, lowered, raised, says="raised by %{y:.3g}, lowered by %{x:.3g}")
    axis = {"type": "log", "range": list(ends), "dtick": 1, "tickformat": "~g"}
    figure.update_xaxes(title="Lowered by (logarithmic)", **axis)
    return figure.update_yaxes(title="Raised by", **axis)


def _ratio_alt(panel: Panel) -> str:
    low, middle, high = np.nanquantile(panel.last, [0, 0.5, 1])
    return (
        f"Points of raising over lowering gradient against training images for each class under {panel.label}: from "
        f"{ratio_text(low)} to {ratio_text(high)}, median {ratio_text(middle)}."
    )


def _sums_alt(panel: Panel) -> str:
    raised, lowered = panel.sums
    above = int((raised > lowered).sum())
    return (
        f"Points of what raised each class against what lowered it under {panel.label}, on logarithmic axes: {above} "
        f"of {int(np.isfinite(raised).sum())} classes were raised more than lowered."
    )


def _sentence(panels: Sequence[Panel]) -> str:
    parts = [part for panel in named_panels(panels) if (part := _trend(panel))]
    found = f"Ranked over all classes, the ratio {listing(parts)}." if parts else "Too few classes to see a trend."
    return (
        "The ratio of each class in the last epoch of stage 1, and its two sums, with the classes that were raised as "
        f"much as lowered on the dotted line. {found}"
    )


def _trend(panel: Panel) -> str:
    """How the ratio goes with the size of a class, and that it does so by little where the groups are alike."""
    trend = rank_trend(panel.last, panel.one.run.counts.array)
    if not np.isfinite(trend.rho):
        return ""
    what = "rises with the size of the class" if trend.rho > 0 else "falls with the size of the class"
    follows = what if trend.is_evidence else "does not clearly follow the size of the class"
    little = ""
    if trend.is_evidence and panel.contrast is not None and are_alike(*panel.contrast):
        heads, tails = map(group_word, panel.head_and_tail)
        little = f", by less than {ALIKE:.0%} between {heads} and {tails} ones"
    return f"{follows} under {panel.label} (rank correlation {number(trend.rho)}{little})"
