"""The sections on gradients: what raised the logits of each group against what lowered them, while it was trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.counts import GROUP_NAMES, FloatArray
from longtail.report.balance import (
    ALIKE,
    Ends,
    Panel,
    are_alike,
    group_word,
    named_panels,
    panels_of,
    ratio_text,
    shared_ends,
)
from longtail.report.canvas import blank
from longtail.report.class_gradients import class_gradients_section, ratio_axis, ratio_ends
from longtail.report.compare import Comparison
from longtail.report.over_epochs import add_group_lines, group_legend, last_epoch, shared_epochs
from longtail.report.section import Drawing, Key, Section
from longtail.report.text import listing
from longtail.report.versus import seed_note, side_by_side


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
