"""The section on saturated images: how many of a group are past a threshold, and the gradient that the loss leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.saturation import THRESHOLDS
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.evaluation.differences import Difference
from longtail.report.canvas import blank, clip
from longtail.report.evidence import difference_of_shares
from longtail.report.over_epochs import add_line, last_epoch, shared_epochs
from longtail.report.palette import GROUP_LABELS, run_style
from longtail.report.probabilities import Panel, named_panels, top_of
from longtail.report.section import Drawing, Section
from longtail.report.text import difference_text, listing, percent
from longtail.report.versus import run_keys

PAST = THRESHOLDS[0]


def saturated_section(panels: Sequence[Panel]) -> Section:
    """Saturated images and the gradient that is left, by group, all runs in one panel."""
    drawings = []
    for threshold in THRESHOLDS:
        shares, name = [panel.past(threshold) for panel in panels], f"past-{threshold:g}".replace(".", "-")
        drawings += _drawings(panels, shares, name, f"p_y past {threshold:g}", share=True)
    drawings += _drawings(panels, [panel.gradient for panel in panels], "gradient", "gradient size", share=False)
    legend = run_keys([panel.one.row for panel in panels])
    layout = "three" if len(drawings) == (len(THRESHOLDS) + 1) * len(GROUP_NAMES) else "two"
    return Section("saturated", "Saturated images", _sentence(panels), layout, legend, tuple(drawings))


def _drawings(
    panels: Sequence[Panel], values: Sequence[FloatArray], name: str, title: str, *, share: bool
) -> list[Drawing]:
    """A panel for each group, all with the same axes; ``values`` has shape (E, 3) for each run."""
    top, found = top_of(values, least=0.1), []
    for group in sorted({group for panel in panels for group in panel.present}):
        lines = [value[:, group] for value in values]
        heading = f"{GROUP_LABELS[GROUP_NAMES[group]]}: {title}"
        figure = _run_lines(panels, lines, top=top, share=share)
        found.append(Drawing(f"saturation-{name}-{GROUP_NAMES[group]}", heading, _alt(heading, panels, lines), figure))
    return found


def _run_lines(panels: Sequence[Panel], lines: Sequence[FloatArray], *, top: float, share: bool) -> go.Figure:
    """A number of each epoch for each run, shape (E,) each; shares are written as percentages."""
    figure, rows = blank(240, left=52), [panel.one for panel in panels]
    for panel, line in zip(panels, lines, strict=True):
        colour, dash = run_style(panel.one.row.colour)
        says = "%{y:.1%}" if share else "%{y:.3f}"
        add_line(figure, panel.one.dynamics.steps, line, name=clip(panel.label), says=says, color=colour, dash=dash)
    figure.update_yaxes(range=[-0.02 * top, 1.04 * top], nticks=6)
    if share:
        figure.update_yaxes(title="Share of images", tickformat=".0%" if top > 0.15 else ".1%")
    else:
        figure.update_yaxes(title="Gradient on the own logit")
    return shared_epochs(figure, rows, last_epoch(rows))


def _alt(title: str, panels: Sequence[Panel], lines: Sequence[FloatArray]) -> str:
    said = [f"{panel.label} {line[0]:.3f} to {line[panel.end]:.3f}" for panel, line in zip(panels, lines, strict=True)]
    return f"Lines over epochs, {title}, first to last epoch of stage 1: {', '.join(said)}."


def _sentence(panels: Sequence[Panel]) -> str:
    """How many images of the smallest group are saturated, run against the first run."""
    tail = panels[0].one.tail
    group = GROUP_NAMES.index(tail)
    parts = []
    for panel in named_panels(panels):
        shares = [float(panel.past(threshold)[panel.end, group]) for threshold in THRESHOLDS]
        text = f"{listing([percent(share if np.isfinite(share) else None) for share in shares])} under {panel.label}"
        gap = _against(panel, panels[0], group)
        if panel is not panels[0] and np.isfinite(gap.mean):
            text += f", past {PAST:g} {difference_text(gap)}"
        parts.append(text)
    thresholds = listing([f"{threshold:g}" for threshold in THRESHOLDS])
    sizes = [f"{panel.gradient[panel.end, group]:.3f} under {panel.label}" for panel in named_panels(panels)]
    return (
        f"Of the {GROUP_LABELS[tail].lower()} images, p_y is past {thresholds} in the last epoch of stage 1 for "
        f"{'; '.join(parts)}. The gradient on the own logit is 1 − p_y of what the loss sees, with its noise and "
        f"margins, times its scales where it gives classes scales of their own (KPS): there, its mean size is "
        f"{listing(sizes)}.{_mixing_note(panels)}"
    )


def _against(panel: Panel, first: Panel, group: int) -> Difference:
    """By how much a run has more images of a group past the first threshold than another."""
    known = [(one.past(PAST)[one.end, group], one.histograms[one.end, group].sum()) for one in (panel, first)]
    return difference_of_shares(*map(float, (*known[0], *known[1])))


def _mixing_note(panels: Sequence[Panel]) -> str:
    """Say which runs mix images: their gradient ends at the larger share, not at 1."""
    tables = [(panel.label, panel.one.run.config.get("stage1")) for panel in panels]
    mixed = [name for name, stage in tables if isinstance(stage, dict) and stage.get("mixing", "none") != "none"]
    if not mixed:
        return ""
    return f" Images are mixed under {listing(mixed)}: there it is the larger share of an image less p_y."
