"""The sections on gradients: what raised the logits of each group against what lowered them, while it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.gradients import GradientBalance, gradient_balance
from longtail.analysis.norms import rank_trend
from longtail.compare.rows import Comparison
from longtail.compare.wording import listing, number
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.evaluation.significance import welch_interval
from longtail.report.captions import named
from longtail.report.plots.canvas import blank
from longtail.report.plots.class_points import add_class_points, class_points
from longtail.report.plots.palette import GROUP_LABELS, MUTED
from longtail.report.section import Drawing, Key, Section, in_rows
from longtail.report.select import (
    Recorded,
    add_group_lines,
    group_keys,
    group_legend,
    last_epoch,
    recorded_rows,
    seed_note,
    shared_epochs,
    side_by_side,
)


def gradients_sections(comparison: Comparison) -> list[Section]:
    """The ratio of each group over the epochs, the sums it is made of, and both of each class.

    Empty where no run recorded its gradients.
    """
    panels = panels_of(comparison)
    if not panels:
        return []
    found = [_ratio_section(panels), _sums_section(panels), class_gradients_section(panels)]
    return [section for section in found if section is not None]


def _ratio_section(panels: Sequence[Panel]) -> Section:
    rows = [panel.one for panel in panels]
    ends, last = ratio_ends([panel.balance.groups for panel in panels]), last_epoch(rows)
    drawings = tuple(
        Drawing(f"gradients-{place}", panel.label, _ratio_alt(panel), _ratio_curves(panel, ends, last))
        for place, panel in enumerate(panels)
    )
    sentence = _ratio_sentence(panels) + seed_note(len(one.row.runs) for one in rows)
    return Section("gradients", "Gradients", sentence, side_by_side(len(panels)), tuple(group_legend(rows)), drawings)


def _sums_section(panels: Sequence[Panel]) -> Section:
    rows = [panel.one for panel in panels]
    ends = shared_ends([part for panel in panels for part in (panel.balance.raised, panel.balance.lowered)])
    drawings = tuple(
        Drawing(f"gradient-sums-{place}", panel.label, _sums_alt(panel), _sum_curves(panel, ends, last_epoch(rows)))
        for place, panel in enumerate(panels)
    )
    legend = (*group_legend(rows), Key("ink", "line", "Raised"), Key("ink", "dotted", "Lowered"))
    layout = side_by_side(len(panels))
    return Section("gradient-sums", "Raised and lowered", _sums_sentence(panels), layout, legend, drawings)


def _ratio_curves(panel: Panel, ends: Ends, last: int) -> go.Figure:
    """Ratio of raising to lowering gradient of each group over the epochs, on a logarithmic axis; 1 is marked."""
    figure = blank(300, left=58)
    add_group_lines(figure, panel.one.dynamics, panel.balance.groups, says="raised / lowered %{y:.3r}")
    return ratio_axis(shared_epochs(figure, [panel.one], last), ends)


def _sum_curves(panel: Panel, ends: Ends, last: int) -> go.Figure:
    """What raised a class of each group in an epoch, and what lowered it, on a logarithmic axis."""
    figure = blank(300, left=58)
    parts = {"raised": (panel.balance.raised, "solid"), "lowered": (panel.balance.lowered, "dot")}
    for word, (sums, dash) in parts.items():
        drawn = np.where(sums > 0, sums, np.nan)
        add_group_lines(figure, panel.one.dynamics, drawn, says=f"{word} by %{{y:.3g}}", dash=dash)
    figure.update_yaxes(title="Gradient on a class", type="log", dtick=1, range=list(ends), tickformat="~g")
    return shared_epochs(figure, [panel.one], last)


def _ratio_alt(panel: Panel) -> str:
    said = _from_to(panel, panel.balance.groups)
    return (
        f"Lines of raising over lowering gradient by group under {panel.label}, from the first to the last epoch of "
        f"stage 1: {said}."
    )


def _sums_alt(panel: Panel) -> str:
    raised, lowered = _from_to(panel, panel.balance.raised), _from_to(panel, panel.balance.lowered)
    return (
        f"Lines of the gradient on a class by group under {panel.label}, from the first to the last epoch of stage 1. "
        f"Raised: {raised}. Lowered: {lowered}."
    )


def _from_to(panel: Panel, values: FloatArray) -> str:
    """The first and the last number of each group, in words."""
    return "; ".join(
        f"{group_word(place)} from {ratio_text(values[0, place])} to {ratio_text(values[panel.end, place])}"
        for place, name in enumerate(GROUP_NAMES)
        if name in panel.one.run.group_of
    )


def _ratio_sentence(panels: Sequence[Panel]) -> str:
    """How the smallest group fares: in the first and last epoch of stage 1, there against the largest, and over it."""
    known = [part for panel in named_panels(panels) if (part := _against_head(panel))]
    text = (
        "Gradient that raises the logits of a group over gradient that lowers them; below 1 they were pushed down more "
        "than pulled up."
    )
    if not known:
        return text
    tails = [(panel, panel.head_and_tail[1]) for panel in named_panels(panels)]
    first = [f"{ratio_text(panel.balance.groups[0, tail])} under {panel.label}" for panel, tail in tails]
    whole = [f"{ratio_text(panel.balance.whole[tail])} under {panel.label}" for panel, tail in tails]
    return (
        f"{text} For {group_word(tails[0][1])} classes it is {listing(first)} in the first epoch, and {listing(whole)} "
        f"over all of stage 1. In its last epoch, {'; '.join(known)}.{_stage_2(tails)}"
    )


def _stage_2(tails: Sequence[tuple[Panel, int]]) -> str:
    """The ratios of the smallest and the largest group where a classifier is trained anew."""
    said = [
        f"{ratio_text(ratios[tail])} and {ratio_text(ratios[panel.head_and_tail[0]])} under {panel.label}"
        for panel, tail in tails
        if panel.end + 1 < len(panel.balance.groups)
        for ratios in [panel.balance.groups[panel.end + 1]]
    ]
    if not said:
        return ""
    heads, small = (group_word(place) for place in (tails[0][0].head_and_tail[0], tails[0][1]))
    return f" In the first epoch of stage 2 it is, for {small} and {heads} classes, {listing(said)}."


def _against_head(panel: Panel) -> str:
    if panel.contrast is None:
        return ""
    (first, second), (heads, tails) = panel.contrast, map(group_word, panel.head_and_tail)
    ratios = f"{ratio_text(first)} for {heads} and {ratio_text(second)} for {tails} classes"
    if are_alike(first, second):
        return f"there is no difference of {ALIKE:.0%} or more under {panel.label}: {ratios}"
    if not panel.is_clear:
        return f"there is no clear difference between the groups under {panel.label}: {ratios}"
    word = "lower" if second < first else "higher"
    return (
        f"it is {ratio_text(second)} for {tails} classes under {panel.label}, {word} than {ratio_text(first)} for "
        f"{heads} ones"
    )


def _sums_sentence(panels: Sequence[Panel]) -> str:
    """What acted on a class of the smallest and of the largest group in the last epoch of stage 1."""
    parts = []
    for panel in named_panels(panels):
        said = [
            f"a {group_word(place)} class by {_amount(panel.balance.raised[panel.end, place])} and "
            f"{_amount(panel.balance.lowered[panel.end, place])}"
            for place in dict.fromkeys(reversed(panel.head_and_tail))
        ]
        parts.append(f"{', '.join(said)} under {panel.label}")
    return (
        "The two sums of which that is the ratio: all gradient of an epoch that raised the logit of a class, and all "
        "that lowered it, mean over the classes of a group. Under cross-entropy an image can give 1 at most. "
        f"Raised and lowered were, in the last epoch of stage 1, {'; '.join(parts)}."
    )


def _amount(value: float) -> str:
    """Three digits, whatever the size."""
    if not np.isfinite(value) or value < 10:
        return ratio_text(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


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
        Drawing(
            f"gradient-classes-{place}", f"{panel.label}: ratio", _class_ratio_alt(panel), _ratio_points(panel, ends)
        )
        for place, panel in enumerate(panels)
    ]
    sums = [
        Drawing(
            f"gradient-class-sums-{place}", f"{panel.label}: sums", _class_sums_alt(panel), _sum_points(panel, reach)
        )
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


def _class_ratio_alt(panel: Panel) -> str:
    low, middle, high = np.nanquantile(panel.last, [0, 0.5, 1])
    return (
        f"Points of raising over lowering gradient against training images for each class under {panel.label}: from "
        f"{ratio_text(low)} to {ratio_text(high)}, median {ratio_text(middle)}."
    )


def _class_sums_alt(panel: Panel) -> str:
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


ALIKE = 0.02


"""Two ratios are called equal where one exceeds the other by less than this share."""


Ends = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """A run and its gradients."""

    one: Recorded
    balance: GradientBalance

    @property
    def label(self) -> str:
        """Name of the configuration."""
        return self.one.row.label

    @property
    def end(self) -> int:
        """The last epoch of stage 1, as an index."""
        return self.one.dynamics.end_of_stage_1

    @property
    def last(self) -> FloatArray:
        """Ratio of each class in the last epoch of stage 1, shape (C,)."""
        return np.asarray(self.balance.classes[self.end], dtype=np.float64)

    @property
    def sums(self) -> tuple[FloatArray, FloatArray]:
        """What raised and what lowered each class in that epoch, shape (C,) each; NaN where there is no ratio."""
        known = np.isfinite(self.last) & (self.last > 0)
        parts = (self.one.dynamics.positive[self.end], self.one.dynamics.negative[self.end])
        return np.where(known, parts[0], np.nan), np.where(known, parts[1], np.nan)

    @property
    def head_and_tail(self) -> tuple[int, int]:
        """The largest and the smallest group that the run has, as places in ``GROUP_NAMES``."""
        present = [place for place, name in enumerate(GROUP_NAMES) if name in self.one.run.group_of]
        return present[0], present[-1]

    @property
    def contrast(self) -> Ends | None:
        """Ratio of the largest and of the smallest group, in that epoch; None for one group and where one has none."""
        head, tail = self.head_and_tail
        ratios = self.balance.groups[self.end]
        known = head != tail and np.isfinite(ratios[[head, tail]]).all()
        return (float(ratios[head]), float(ratios[tail])) if known else None

    @property
    def is_clear(self) -> bool:
        """Whether classes of these two groups differ more than chance over classes allows, in their log ratios."""
        groups = np.array(self.one.run.group_of)
        sides = [
            np.log(self.last[(groups == GROUP_NAMES[place]) & (self.last > 0)]).tolist() for place in self.head_and_tail
        ]
        ends = welch_interval(*sides)
        return ends is not None and (ends[0] > 0 or ends[1] < 0)


def panels_of(comparison: Comparison) -> list[Panel]:
    """One for each configuration of which a run recorded its gradients."""
    return [
        Panel(one, gradient_balance(
            one.dynamics.positive, one.dynamics.negative, one.dynamics.images, one.run.group_of,
            together=one.dynamics.end_of_stage_1 + 1,
        ))
        for one in recorded_rows(comparison)
    ]  # fmt: skip


def named_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Those that a sentence speaks of."""
    return named(panels, lambda panel: panel.one.row)


def are_alike(first: float, second: float) -> bool:
    """Whether neither ratio exceeds the other by :data:`ALIKE` or more.

    Example:
        >>> are_alike(1.0, 1.01), are_alike(1.0, 1.03), are_alike(0.0, 0.1)
        (True, False, False)
    """
    return abs(float(np.log(max(second, 1e-9) / max(first, 1e-9)))) < float(np.log1p(ALIKE))


def ratio_text(value: float) -> str:
    """A ratio with as many digits as tell two apart that are not alike.

    Example:
        >>> ratio_text(1.0), ratio_text(0.034), ratio_text(float("nan"))
        ('1.00', '0.034', 'n/a')
    """
    return number(value, 2 if value >= 0.2 else 3)


def group_word(place: int) -> str:
    """A group as a sentence names it, by its place in ``GROUP_NAMES``.

    Example:
        >>> group_word(2)
        'few-shot'
    """
    return GROUP_LABELS[GROUP_NAMES[place]].lower()


def shared_ends(values: Sequence[FloatArray]) -> Ends:
    """Ends of a logarithmic axis, as powers of ten, that holds all positive values with some room.

    Example:
        >>> shared_ends([np.array([1.0, np.nan]), np.array([100.0])])
        (-0.16, 2.16)
    """
    known = np.concatenate([part[np.isfinite(part) & (part > 0)].ravel() for part in values])
    low, high = np.log10([known.min(), known.max()]) if known.size else (0.0, 1.0)
    room = max(0.08 * (high - low), 0.05)
    return float(low - room), float(high + room)
