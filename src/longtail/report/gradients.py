"""The sections on gradients: what raised the logits of each group against what lowered them, while it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.gradients import GradientBalance, gradient_balance
from longtail.analysis.norms import rank_trend
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.report.canvas import blank
from longtail.report.class_points import class_points
from longtail.report.compare import Comparison
from longtail.report.findings import spoken
from longtail.report.over_epochs import Recorded, add_group_lines, epoch_axis, group_legend, recorded_rows
from longtail.report.palette import GROUP_LABELS, GROUP_SYMBOLS, MUTED
from longtail.report.recorded import Dynamics
from longtail.report.section import Drawing, Key, Section
from longtail.report.text import MINUS, listing
from longtail.report.versus import seed_note, side_by_side

ALIKE = 0.02
"""Two ratios are called equal where one exceeds the other by less than this share."""
FARTHEST = 1e3
"""Ratios beyond this, or below its inverse, are of a class that was hardly drawn: the axis ends there."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """A run and its ratios."""

    one: Recorded
    balance: GradientBalance

    @property
    def last(self) -> FloatArray:
        """Ratio of each class in the last epoch of stage 1, shape (C,)."""
        return np.asarray(self.balance.classes[self.one.dynamics.end_of_stage_1], dtype=np.float64)


def gradients_section(comparison: Comparison) -> Section | None:
    """Raising against lowering gradient of each group over the epochs; None where no run recorded them."""
    panels = _panels(comparison)
    if not panels:
        return None
    ends = _ends([panel.balance.groups for panel in panels])
    last = max(len(panel.one.dynamics.stage) for panel in panels)
    drawings = tuple(
        Drawing(
            f"gradients-{number}", panel.one.row.label, _alt(panel),
            ratio_curves(panel.one.dynamics, panel.balance.groups, ends, last),
        )
        for number, panel in enumerate(panels)
    )  # fmt: skip
    rows = [panel.one for panel in panels]
    sentence = _group_sentence(panels) + seed_note(len(one.row.runs) for one in rows)
    return Section("gradients", "Gradients", sentence, side_by_side(len(panels)), tuple(group_legend(rows)), drawings)


def class_gradients_section(comparison: Comparison) -> Section | None:
    """The ratio of each class against its training images, at the end of stage 1; None where no run recorded it."""
    panels = [panel for panel in _panels(comparison) if np.isfinite(panel.last).any()]
    if not panels:
        return None
    ends = _ends([panel.last for panel in panels])
    drawings = tuple(
        Drawing(f"gradient-classes-{number}", panel.one.row.label, _class_alt(panel), ratio_points(panel, ends))
        for number, panel in enumerate(panels)
    )
    legend = tuple(Key(name, GROUP_SYMBOLS[name], GROUP_LABELS[name]) for name in GROUP_NAMES)
    layout = side_by_side(len(panels))
    return Section("gradient-classes", "Gradients of each class", _class_sentence(panels), layout, legend, drawings)


def ratio_curves(dynamics: Dynamics, groups: FloatArray, ends: Ends, last: int) -> go.Figure:
    """Ratio of raising to lowering gradient of each group over the epochs, on a logarithmic axis; 1 is marked.

    Args:
        dynamics: Which stage each epoch is of.
        groups: Shape (E, 3), in the order of ``GROUP_NAMES``.
        ends: Of the axis, the same in all panels.
        last: Epochs on the other axis, the same in all panels.
    """
    figure = blank(300, left=58)
    add_group_lines(figure, dynamics, groups, says="raised / lowered %{y:.3g}")
    epoch_axis(figure, [dynamics], last)
    return _ratio_axis(figure, ends)


def ratio_points(panel: Panel, ends: Ends) -> go.Figure:
    """Ratio of each class against its training images, in the last epoch of stage 1."""
    run = panel.one.run
    held = np.clip(panel.last, 1 / FARTHEST, FARTHEST)
    figure = class_points(run.counts, run.group_of, held, says="raised / lowered %{y:.3g}")
    return _ratio_axis(figure, ends)


def _panels(comparison: Comparison) -> list[Panel]:
    return [
        Panel(one, gradient_balance(
            one.dynamics.positive, one.dynamics.negative, one.dynamics.images, one.run.group_of
        ))
        for one in recorded_rows(comparison)
    ]  # fmt: skip


def _ends(ratios: Sequence[FloatArray]) -> Ends:
    """Ends of a logarithmic axis that holds all ratios and 1, with some room."""
    known = np.concatenate([ratio[np.isfinite(ratio) & (ratio > 0)].ravel() for ratio in ratios] + [np.ones(1)])
    low, high = np.log10(np.clip([known.min(), known.max()], 1 / FARTHEST, FARTHEST))
    room = max(0.08 * (high - low), 0.05)
    return float(low - room), float(high + room)


def _ratio_axis(figure: go.Figure, ends: Ends) -> go.Figure:
    figure.add_hline(y=1, line={"color": MUTED, "width": 1, "dash": "dot"})
    ticks = [step * 10.0**power for power in range(-3, 4) for step in ((1, 2, 5) if ends[1] - ends[0] < 2 else (1,))]
    if ends[1] - ends[0] < 0.5:
        ticks = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2]
    return figure.update_yaxes(
        title="Raised / lowered", type="log", range=list(ends), tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )


def _alt(panel: Panel) -> str:
    dynamics, names = panel.one.dynamics, panel.one.run.group_of
    ends = panel.balance.groups[[0, dynamics.end_of_stage_1]]
    said = [
        f"{GROUP_LABELS[name].lower()} from {_number(ends[0, number])} to {_number(ends[1, number])}"
        for number, name in enumerate(GROUP_NAMES)
        if name in names
    ]
    return (
        f"Lines of raising over lowering gradient by group under {panel.one.row.label}, from the first to the last "
        f"epoch of stage 1: {'; '.join(said)}."
    )


def _class_alt(panel: Panel) -> str:
    low, middle, high = np.nanquantile(panel.last, [0, 0.5, 1])
    return (
        f"Points of raising over lowering gradient against training images for each class under "
        f"{panel.one.row.label}: from {_number(low)} to {_number(high)}, median {_number(middle)}."
    )


def _named(panels: Sequence[Panel]) -> list[Panel]:
    named = {row.name for row in spoken([panel.one.row for panel in panels])}
    return [panel for panel in panels if panel.one.row.name in named]


def _group_sentence(panels: Sequence[Panel]) -> str:
    """How the smallest group fares against the largest, in the last epoch of stage 1 and over all of it."""
    parts = [_against_head(panel) for panel in _named(panels)]
    known = [part for part in parts if part]
    text = (
        "Gradient that raises the logits of a group over gradient that lowers them; below 1 they were pushed down more "
        "than pulled up."
    )
    if not known:
        return text
    whole = [f"{_number(_tail(panel))} under {panel.one.row.label}" for panel in _named(panels)]
    smallest = GROUP_LABELS[panels[0].one.tail].lower()
    return (
        f"{text} In the last epoch of stage 1, {'; '.join(known)}. Over all recorded epochs together it is "
        f"{listing(whole)} for {smallest} classes."
    )


def _tail(panel: Panel) -> float:
    return float(panel.balance.whole[GROUP_NAMES.index(panel.one.tail)])


def _against_head(panel: Panel) -> str:
    present = [number for number, name in enumerate(GROUP_NAMES) if name in panel.one.run.group_of]
    head, tail = present[0], present[-1]
    first, second = panel.balance.groups[panel.one.dynamics.end_of_stage_1][[head, tail]]
    label = panel.one.row.label
    if head == tail or not (np.isfinite(first) and np.isfinite(second)):
        return ""
    heads, tails = GROUP_LABELS[GROUP_NAMES[head]].lower(), GROUP_LABELS[GROUP_NAMES[tail]].lower()
    if abs(np.log(max(second, 1e-9) / max(first, 1e-9))) < ALIKE:
        return f"there is no difference under {label}: {_number(first)} for {heads} and {tails} classes alike"
    word = "lower" if second < first else "higher"
    return f"it is {_number(second)} for {tails} classes under {label}, {word} than {_number(first)} for {heads} ones"


def _class_sentence(panels: Sequence[Panel]) -> str:
    parts = []
    for panel in _named(panels):
        trend = rank_trend(panel.last, panel.one.run.counts.array)
        if not np.isfinite(trend.rho):
            continue
        size = f"{MINUS if trend.rho < 0 else ''}{abs(trend.rho):.2f}"
        what = "rises with the size of the class" if trend.rho > 0 else "falls with the size of the class"
        follows = what if trend.is_evidence else "does not clearly follow it"
        parts.append(f"{follows} under {panel.one.row.label} (rank correlation {size})")
    lead = "The ratio of each class in the last epoch of stage 1. "
    return f"{lead}It {listing(parts)}." if parts else f"{lead}Too few classes to see a trend."


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "n/a"
