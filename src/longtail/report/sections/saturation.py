"""The section on saturation: how sure the network is of its training images, and how much gradient they still give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.saturation import (
    EDGES,
    QUANTILES,
    THRESHOLDS,
    group_histograms,
    group_means,
    histogram_quantiles,
    share_past,
)
from longtail.compare.differences import difference_of_shares, difference_text
from longtail.compare.table import Comparison
from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.evaluation.significance import Difference
from longtail.report.captions import named
from longtail.report.plots.bands import add_band
from longtail.report.plots.canvas import blank, clip
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS, run_style
from longtail.report.section import Drawing, Section, in_rows
from longtail.report.select import (
    Recorded,
    add_group_lines,
    add_line,
    group_legend,
    last_epoch,
    recorded_rows,
    run_keys,
    seed_note,
    shared_epochs,
    side_by_side,
)
from longtail.text import listing, percent

LOW, MIDDLE, HIGH = (QUANTILES.index(value) for value in (0.25, 0.5, 0.75))


FLOOR = 1 - EDGES[-2]


"""What the histograms cannot tell from zero: the width of their last bin."""


def distribution(comparison: Comparison) -> Section | None:
    """The distribution of p_y and of 1 - p_y of each group over the epochs; None where no run recorded them."""
    panels = panels_of(comparison)
    return _distribution_section(panels) if panels else None


def saturated(comparison: Comparison) -> Section | None:
    """The share of saturated images; None where no run recorded them."""
    panels = panels_of(comparison)
    return saturated_section(panels) if panels else None


def _distribution_section(panels: Sequence[Panel]) -> Section:
    rows = [panel.one for panel in panels]
    last, top = last_epoch(rows), top_of([panel.quantiles[..., HIGH] for panel in panels], least=0.25)
    least = min(float(np.nanmin(_left(panel)[..., 0])) for panel in panels)
    sure = [
        Drawing(f"saturation-{place}", f"{panel.label}: probability p_y", _alt(panel), _probability(panel, last, top))
        for place, panel in enumerate(panels)
    ]
    left = [
        Drawing(f"gradient-size-{place}", f"{panel.label}: gradient 1 − p_y", _left_alt(panel),
                _gradient_left(panel, last, least))
        for place, panel in enumerate(panels)
    ]  # fmt: skip
    sentence = _sentence(panels) + seed_note(len(one.row.runs) for one in rows)
    layout = "two" if len(panels) == 1 else side_by_side(len(panels))
    return Section("saturation", "Saturation", sentence, layout, tuple(group_legend(rows)), in_rows(sure, left))


def _left(panel: Panel) -> FloatArray:
    """Lower end of the middle half, median and upper end of 1 - p_y, shape (E, 3, 3); at least :data:`FLOOR`."""
    return np.asarray(np.maximum(1 - panel.quantiles[..., [HIGH, MIDDLE, LOW]], FLOOR), dtype=np.float64)


def _probability(panel: Panel, last: int, top: float) -> go.Figure:
    """The median of p_y of each group over the epochs, and the middle half of its images as a band."""
    figure = _bands(panel, panel.quantiles[..., [LOW, MIDDLE, HIGH]], last, "median p_y %{y:.3f}")
    return figure.update_yaxes(title="p<sub>y</sub>", range=[-0.02 * top, 1.04 * top], nticks=6)


def _gradient_left(panel: Panel, last: int, least: float) -> go.Figure:
    """The same of 1 - p_y, on a logarithmic axis, where images that are learned do not fall together."""
    figure = _bands(panel, _left(panel), last, "median 1 − p_y %{y:.3g}")
    ticks = [step * 10.0**-power for power in range(5) for step in ((1,) if least < 0.05 else (1, 2, 5))]
    words = [f"≤ {tick:g}" if np.isclose(tick, FLOOR) else f"{tick:g}" for tick in ticks]
    return figure.update_yaxes(
        title="1 − p<sub>y</sub> (logarithmic)", type="log", range=[np.log10(least) - 0.05, 0.05],
        tickvals=ticks, ticktext=words,
    )  # fmt: skip


def _bands(panel: Panel, ends: FloatArray, last: int, says: str) -> go.Figure:
    """A line and a band of each group; ``ends`` are lower end, line and upper end, shape (E, 3, 3)."""
    figure = blank(300, left=58)
    dynamics = panel.one.dynamics
    for group, name in enumerate(GROUP_NAMES):
        known = np.isfinite(ends[:, group, 1])
        low, high = ends[known, group, 0], ends[known, group, 2]
        add_band(figure, dynamics.steps[known], low, high, colour=GROUP_COLORS[name], edges=True)
    add_group_lines(figure, dynamics, ends[..., 1], says=says)
    return shared_epochs(figure, [panel.one], last)


def _alt(panel: Panel) -> str:
    return (
        f"Lines of the median probability of the true class by group under {panel.label}, with the middle half of the "
        f"images as a band. At the end of stage 1: {_medians(panel, panel.quantiles[panel.end, :, MIDDLE], '.2f')}."
    )


def _left_alt(panel: Panel) -> str:
    return (
        f"Lines of the median of one minus that probability by group under {panel.label}, with the middle half of the "
        f"images as a band, on a logarithmic axis. At the end of stage 1: "
        f"{_medians(panel, _left(panel)[panel.end, :, 1], '.2g')}."
    )


def _medians(panel: Panel, median: FloatArray, digits: str) -> str:
    return ", ".join(
        f"{GROUP_LABELS[GROUP_NAMES[group]].lower()} {format(median[group], digits)}" for group in panel.present
    )


def _sentence(panels: Sequence[Panel]) -> str:
    """How sure the network is of the smallest group at the end of stage 1, against the largest."""
    parts, spreads = [], []
    for panel in named_panels(panels):
        median, left = panel.quantiles[panel.end, :, MIDDLE], _left(panel)[panel.end]
        ends = dict.fromkeys((panel.present[0], panel.present[-1]))
        words = [f"{median[group]:.2f} for {GROUP_LABELS[GROUP_NAMES[group]].lower()}" for group in ends]
        parts.append(f"{listing(words)} images under {panel.label}")
        low, high = left[panel.present[-1], [0, 2]]
        spreads.append(f"from {low:.2g} to {high:.2g} under {panel.label}")
    tail = GROUP_LABELS[GROUP_NAMES[panels[0].present[-1]]].lower()
    return (
        "Probability p_y of the true class of the images as they were trained on, without noise and margins of the "
        "loss, and the gradient 1 − p_y that cross-entropy would leave on its logit: median, and the middle half as a "
        f"band. At the end of stage 1 the median p_y is {'; '.join(parts)}. Of half of the {tail} images 1 − p_y then "
        f"lies {listing(spreads)}."
    )


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
    return Section("saturated", "Saturated images", _saturated_sentence(panels), layout, legend, tuple(drawings))


def _drawings(
    panels: Sequence[Panel], values: Sequence[FloatArray], name: str, title: str, *, share: bool
) -> list[Drawing]:
    """A panel for each group, all with the same axes; ``values`` has shape (E, 3) for each run."""
    top, found = top_of(values, least=0.1), []
    for group in sorted({group for panel in panels for group in panel.present}):
        lines = [value[:, group] for value in values]
        heading = f"{GROUP_LABELS[GROUP_NAMES[group]]}: {title}"
        figure = _run_lines(panels, lines, top=top, share=share)
        found.append(
            Drawing(f"saturation-{name}-{GROUP_NAMES[group]}", heading, _saturated_alt(heading, panels, lines), figure)
        )
    return found


def _run_lines(panels: Sequence[Panel], lines: Sequence[FloatArray], *, top: float, share: bool) -> go.Figure:
    """A number of each epoch for each run, shape (E,) each; shares are written as percentages."""
    figure, rows = blank(240, left=52), [panel.one for panel in panels]
    for panel, line in zip(panels, lines, strict=True):
        colour, dash = run_style(panel.one.row.color)
        says = "%{y:.1%}" if share else "%{y:.3f}"
        add_line(figure, panel.one.dynamics.steps, line, name=clip(panel.label), says=says, color=colour, dash=dash)
    figure.update_yaxes(range=[-0.02 * top, 1.04 * top], nticks=6)
    if share:
        figure.update_yaxes(title="Share of images", tickformat=".0%" if top > 0.15 else ".1%")
    else:
        figure.update_yaxes(title="Gradient on the own logit")
    return shared_epochs(figure, rows, last_epoch(rows))


def _saturated_alt(title: str, panels: Sequence[Panel], lines: Sequence[FloatArray]) -> str:
    said = [f"{panel.label} {line[0]:.3f} to {line[panel.end]:.3f}" for panel, line in zip(panels, lines, strict=True)]
    return f"Lines over epochs, {title}, first to last epoch of stage 1: {', '.join(said)}."


def _saturated_sentence(panels: Sequence[Panel]) -> str:
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
    def label(self) -> str:
        """Name of the configuration."""
        return self.one.row.label

    @property
    def end(self) -> int:
        """The last epoch of stage 1, as an index."""
        return self.one.dynamics.end_of_stage_1

    @property
    def present(self) -> list[int]:
        """The groups that the run has, as places in ``GROUP_NAMES``."""
        return [place for place, name in enumerate(GROUP_NAMES) if name in self.one.run.group_of]

    @cached_property
    def quantiles(self) -> FloatArray:
        """The quantiles of p_y of :data:`longtail.analysis.saturation.QUANTILES`, shape (E, 3, 5)."""
        return histogram_quantiles(self.histograms)

    def past(self, threshold: float) -> FloatArray:
        """Share of the images whose p_y is at least a threshold, shape (E, 3)."""
        return share_past(self.histograms, threshold)


def panels_of(comparison: Comparison) -> list[Panel]:
    """One for each configuration of which a run recorded its gradients."""
    return [
        Panel(
            one,
            group_histograms(one.dynamics.histogram, one.run.group_of),
            group_means(one.dynamics.gradient, one.dynamics.images, one.run.group_of),
        )
        for one in recorded_rows(comparison)
    ]


def named_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Those that a sentence speaks of."""
    return named(panels, lambda panel: panel.one.row)


def top_of(values: Sequence[FloatArray], *, least: float) -> float:
    """The largest of all numbers, for an axis that all panels share.

    Example:
        >>> top_of([np.array([0.2, np.nan]), np.array([0.4])], least=0.1)
        0.4
    """
    return max(least, *(float(np.nanmax(value)) for value in values))
