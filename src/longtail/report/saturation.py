"""The section on saturation: how sure the network is of its training images, and how much gradient they still give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.saturation import EDGES, QUANTILES
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.report.bands import add_band
from longtail.report.canvas import blank
from longtail.report.compare import Comparison
from longtail.report.over_epochs import add_group_lines, group_legend, last_epoch, shared_epochs
from longtail.report.palette import GROUP_COLOURS, GROUP_LABELS
from longtail.report.probabilities import Panel, named_panels, panels_of, top_of
from longtail.report.saturated import saturated_section
from longtail.report.section import Drawing, Section, in_rows
from longtail.report.text import listing
from longtail.report.versus import seed_note, side_by_side

LOW, MIDDLE, HIGH = (QUANTILES.index(value) for value in (0.25, 0.5, 0.75))
FLOOR = 1 - EDGES[-2]
"""What the histograms cannot tell from zero: the width of their last bin."""


def saturation_sections(comparison: Comparison) -> list[Section]:
    """The distribution of p_y and of 1 - p_y of each group over the epochs, and the share of saturated images.

    Empty where no run recorded them.
    """
    panels = panels_of(comparison)
    return [_distribution_section(panels), saturated_section(panels)] if panels else []


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
        add_band(figure, dynamics.steps[known], low, high, colour=GROUP_COLOURS[name], edges=True)
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
