"""The sections on saturation: how sure the network is of its training images, and how much gradient they still give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.saturation import (
    QUANTILES,
    THRESHOLDS,
    group_histograms,
    group_means,
    histogram_quantiles,
    share_past,
)
from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.report.canvas import blank, clip
from longtail.report.compare import Comparison
from longtail.report.evidence import difference_of_shares
from longtail.report.findings import spoken
from longtail.report.over_epochs import (
    Recorded,
    add_group_lines,
    add_line,
    epoch_axis,
    group_legend,
    recorded_rows,
)
from longtail.report.palette import GROUP_COLOURS, GROUP_LABELS, run_style
from longtail.report.section import Drawing, Key, Section
from longtail.report.text import Spread, difference_text, listing, percent
from longtail.report.versus import seed_note, side_by_side

LOW, MIDDLE, HIGH = (QUANTILES.index(value) for value in (0.25, 0.5, 0.75))
PAST = THRESHOLDS[0]


@dataclass(frozen=True)
class Panel:
    """A run, with p_y of its groups.

    Attributes:
        one: The run.
        histograms: Images per group and bin, shape (E, 3, BINS).
        gradient: Mean size of the gradient on the own logit, shape (E, 3).
    """

    one: Recorded
    histograms: IntArray
    gradient: FloatArray

    @property
    def past(self) -> FloatArray:
        """Share of the images whose p_y is past the first threshold, shape (E, 3)."""
        return share_past(self.histograms, PAST)


def saturation_section(comparison: Comparison) -> Section | None:
    """The median and the middle half of p_y of each group over the epochs; None where no run recorded them."""
    panels = _panels(comparison)
    if not panels:
        return None
    last, top = _last(panels), _top([histogram_quantiles(panel.histograms)[..., HIGH] for panel in panels], least=0.25)
    drawings = tuple(
        Drawing(f"saturation-{number}", panel.one.row.label, _alt(panel), probability_bands(panel, last, top))
        for number, panel in enumerate(panels)
    )
    rows = [panel.one for panel in panels]
    sentence = _sentence(panels) + seed_note(len(one.row.runs) for one in rows)
    return Section("saturation", "Saturation", sentence, side_by_side(len(panels)), tuple(group_legend(rows)), drawings)


def shares_section(comparison: Comparison) -> Section | None:
    """Saturated images and the gradient that is left, by group, all runs in one panel; None without recordings."""
    panels = _panels(comparison)
    if not panels:
        return None
    present = [name for name in GROUP_NAMES if any(name in panel.one.run.group_of for panel in panels)]
    tops = {
        "past": _top([panel.past for panel in panels], least=0.1),
        "gradient": _top([panel.gradient for panel in panels], least=0.1),
    }
    drawings = []
    for measure, title in (("past", f"p_y past {PAST:g}"), ("gradient", "gradient size")):
        for name in present:
            number = GROUP_NAMES.index(name)
            lines = [getattr(panel, measure)[:, number] for panel in panels]
            figure = run_lines(panels, lines, top=tops[measure], share=measure == "past")
            heading = f"{GROUP_LABELS[name]}: {title}"
            drawings.append(Drawing(f"saturation-{measure}-{name}", heading, _line_alt(heading, panels, lines), figure))
    legend = tuple(
        Key(f"run{panel.one.row.colour % 8}", ("line", "dotted", "dashdot")[panel.one.row.colour // 8 % 3],
            panel.one.row.label)
        for panel in panels
    )  # fmt: skip
    layout = "three" if len(present) == 3 else "two"
    return Section("saturated", "Saturated images", _share_sentence(panels), layout, legend, tuple(drawings))


def probability_bands(panel: Panel, last: int, top: float = 1.0) -> go.Figure:
    """The median of p_y of each group over the epochs, and the middle half of its images as a band.

    Args:
        panel: The run.
        last: Epochs on the axis, the same in all panels.
        top: End of the axis of p_y, likewise.
    """
    figure = blank(300, left=52)
    dynamics = panel.one.dynamics
    found = histogram_quantiles(panel.histograms)
    for number, name in enumerate(GROUP_NAMES):
        known = np.isfinite(found[:, number, MIDDLE])
        steps = dynamics.steps[known].astype(np.int32)
        for place, fill in ((LOW, None), (HIGH, "tonexty")):
            figure.add_scatter(
                x=steps, y=found[known, number, place].astype(np.float32), mode="lines", hoverinfo="skip",
                line={"color": GROUP_COLOURS[name], "width": 0.6}, fill=fill, opacity=0.4,
            )  # fmt: skip
    add_group_lines(figure, dynamics, found[..., MIDDLE], says="median p_y %{y:.3f}")
    epoch_axis(figure, [dynamics], last)
    return figure.update_yaxes(title="p<sub>y</sub>", range=[-0.02 * top, 1.04 * top], nticks=6)


def run_lines(panels: Sequence[Panel], lines: Sequence[FloatArray], *, top: float, share: bool) -> go.Figure:
    """A number of each epoch for each run, shape (E,) each.

    Args:
        panels: The runs.
        lines: One for each.
        top: End of the axis, the same for all groups.
        share: Whether the numbers are shares, written as percentages.
    """
    figure = blank(260, left=52)
    for panel, line in zip(panels, lines, strict=True):
        colour, dash = run_style(panel.one.row.colour)
        says = "%{y:.1%}" if share else "%{y:.3f}"
        add_line(figure, panel.one.dynamics.steps, line, name=clip(panel.one.row.label), says=says, color=colour,
                 dash=dash)  # fmt: skip
    epoch_axis(figure, [panel.one.dynamics for panel in panels], _last(panels))
    figure.update_yaxes(range=[-0.02 * top, 1.04 * top], nticks=6)
    return (
        figure.update_yaxes(title="Share of images", tickformat=".0%")
        if share
        else figure.update_yaxes(title="Gradient on the own logit")
    )


def _panels(comparison: Comparison) -> list[Panel]:
    return [
        Panel(
            one,
            group_histograms(one.dynamics.histogram, one.run.group_of),
            group_means(one.dynamics.gradient, one.dynamics.images, one.run.group_of),
        )
        for one in recorded_rows(comparison)
    ]


def _top(values: Sequence[FloatArray], *, least: float) -> float:
    """The largest of all numbers, for an axis that all panels share."""
    return max(least, *(float(np.nanmax(value)) for value in values))


def _last(panels: Sequence[Panel]) -> int:
    return max(len(panel.one.dynamics.stage) for panel in panels)


def _end(panel: Panel) -> int:
    return panel.one.dynamics.end_of_stage_1


def _alt(panel: Panel) -> str:
    median = histogram_quantiles(panel.histograms)[_end(panel), :, MIDDLE]
    said = [
        f"{GROUP_LABELS[name].lower()} {median[number]:.2f}"
        for number, name in enumerate(GROUP_NAMES)
        if name in panel.one.run.group_of
    ]
    return (
        f"Lines of the median probability of the true class by group under {panel.one.row.label}, with the middle half "
        f"of the images as a band. At the end of stage 1: {', '.join(said)}."
    )


def _line_alt(title: str, panels: Sequence[Panel], lines: Sequence[FloatArray]) -> str:
    said = [
        f"{panel.one.row.label} {line[0]:.3f} to {line[_end(panel)]:.3f}"
        for panel, line in zip(panels, lines, strict=True)
    ]
    return f"Lines over epochs, {title}, first to last epoch of stage 1: {', '.join(said)}."


def _named(panels: Sequence[Panel]) -> list[Panel]:
    named = {row.name for row in spoken([panel.one.row for panel in panels])}
    return [panel for panel in panels if panel.one.row.name in named]


def _sentence(panels: Sequence[Panel]) -> str:
    """How sure the network is of the smallest group at the end of stage 1, against the largest."""
    parts = []
    for panel in _named(panels):
        median = histogram_quantiles(panel.histograms)[_end(panel), :, MIDDLE]
        present = [number for number, name in enumerate(GROUP_NAMES) if name in panel.one.run.group_of]
        words = [f"{median[n]:.2f} for {GROUP_LABELS[GROUP_NAMES[n]].lower()}" for n in (present[0], present[-1])]
        parts.append(f"{listing(list(dict.fromkeys(words)))} images under {panel.one.row.label}")
    return (
        "Probability p_y of the true class of the images as they were trained on: median, and the middle half as a "
        f"band. At the end of stage 1 the median is {'; '.join(parts)}."
    )


def _share_sentence(panels: Sequence[Panel]) -> str:
    """How many images of the smallest group are saturated, run against the first run."""
    tail = panels[0].one.tail
    number = GROUP_NAMES.index(tail)
    first = panels[0].past[_end(panels[0]), number]
    parts = []
    for panel in _named(panels):
        shares = [share_past(panel.histograms, threshold)[_end(panel), number] for threshold in THRESHOLDS]
        text = f"{listing([percent(_known(share)) for share in shares])} under {panel.one.row.label}"
        if panel is not panels[0] and np.isfinite([first, shares[0]]).all():
            text += f", past {PAST:g} {difference_text(_against(panel, panels[0], number))}"
        parts.append(text)
    thresholds = listing([f"{threshold:g}" for threshold in THRESHOLDS])
    return (
        f"Of the {GROUP_LABELS[tail].lower()} images, p_y is past {thresholds} in the last epoch of stage 1 for "
        f"{'; '.join(parts)}. The gradient on the own logit is 1 − p_y of what the loss sees, with its noise and "
        f"margins, times its scales where it gives classes scales of their own (KPS): "
        f"{_gradient_words(panels, number)}.{_mixing_note(panels)}"
    )


def _against(panel: Panel, first: Panel, number: int) -> Spread:
    """By how much a run has more images of a group past the first threshold than another."""
    known = [(one.past[_end(one), number], one.histograms[_end(one), number].sum()) for one in (panel, first)]
    return difference_of_shares(*map(float, (*known[0], *known[1])))


def _gradient_words(panels: Sequence[Panel], number: int) -> str:
    said = [f"{panel.gradient[_end(panel), number]:.3f} under {panel.one.row.label}" for panel in _named(panels)]
    return f"there, its mean size is {listing(said)}"


def _mixing_note(panels: Sequence[Panel]) -> str:
    """Say which runs mix images: their gradient ends at the larger share, not at 1."""
    tables = [(panel.one.row.label, panel.one.run.config.get("stage1")) for panel in panels]
    mixed = [name for name, stage in tables if isinstance(stage, dict) and stage.get("mixing", "none") != "none"]
    if not mixed:
        return ""
    return f" Images are mixed under {listing(mixed)}: there it is the larger share of an image less p_y."


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
