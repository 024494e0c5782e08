"""The section on other test priors: accuracy of every configuration from a head-heavy to a tail-heavy test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.predictions import EXPONENTS, PriorShift, prior_shift
from longtail.compare.differences import Between, Measure, Runs, difference_between
from longtail.compare.table import Comparison, Row
from longtail.evaluation.intervals import LEVEL
from longtail.formatting import MINUS, interval_text, percent, signed
from longtail.report.configurations import BAND_SENTENCE, against_first, has_bands, run_keys
from longtail.report.plots import MUTED, add_line, blank, run_style
from longtail.report.section import Cell, Drawing, Section, Table
from longtail.run.result import Ends, RunResult

PLACES = {1.0: "as in training", 0.0: "balanced", -1.0: "the reverse of training"}
"""The exponents in the table."""
Curves = Mapping[Path, PriorShift]
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def build(comparison: Comparison) -> Section | None:
    """Draw accuracy against the test prior; None where nothing was measured or all classes are of one size."""
    split = comparison.split
    runs = [run for row in comparison.final for run in row.runs]
    curves = {run.folder: curve for run in runs if split and (curve := _curve(run, split)) is not None}
    rows = [row for row in comparison.final if any(run.folder in curves for run in row.runs)]
    if split is None or not rows or rows[0].runs[0].counts.imbalance_ratio == 1:
        return None
    means = [(row, _mean_curve(row.runs, curves)) for row in rows]
    lines = [f"{row.label} {', '.join(percent(curve.at(place)) for place in PLACES)}" for row, curve in means]
    alt = f"Lines of accuracy for a test prior {', '.join(PLACES.values())}: {'; '.join(lines)}."
    drawing = Drawing("prior-shift", "", alt, prior_curves(means, bands=has_bands(rows)))

    tail_heavy = against_first(rows, split, _accuracy(curves, -1.0), between=_between(curves, -1.0))
    sentence = (
        "Accuracy on test sets that hold the classes in other proportions, from those of training over balanced to "
        f"their reverse; no model is told the prior. On the reverse: {tail_heavy}."
    )
    sentence += f" {BAND_SENTENCE}" if has_bands(rows) else ""
    table = _table(means, curves, split)
    return Section(
        "prior", "Accuracy under other test priors", sentence, legend=run_keys(rows), drawings=(drawing,), table=table
    )


def prior_curves(curves: Sequence[tuple[Row, PriorShift]], *, bands: bool = False) -> go.Figure:
    """One line a configuration, head-heavy test sets on the left, tail-heavy ones on the right.

    Args:
        curves: Configurations, each with the result of :func:`longtail.analysis.predictions.prior_shift`.
        bands: Whether each line has a band of its 95% interval.
    """
    figure = blank(380, left=58)
    for row, curve in curves:
        color, dash = run_style(row.color)
        half = Z * curve.error
        band = (np.maximum(curve.accuracy - half, 0), np.minimum(curve.accuracy + half, 1)) if bands else None
        add_line(
            figure,
            curve.exponent,
            curve.accuracy,
            name=row.label,
            color=color,
            dash=dash,
            band=band,
            hover="prior n^%{x:.2f}: %{y:.1%} ± %{customdata:.1%}",
            customdata=half.astype(np.float32),
        )
    figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"})
    names = ["1, as in training", "0.5", "0, balanced", f"{MINUS}0.5", f"{MINUS}1, reversed"]
    figure.update_xaxes(title="Assumed test prior: class size to this power", range=[1.0, -1.0])
    figure.update_xaxes(tickvals=[1, 0.5, 0, -0.5, -1], ticktext=names)
    figure.update_layout(margin={"r": 48})
    return figure.update_yaxes(title="Accuracy", tickformat=".0%", rangemode="tozero", nticks=7)


def _curve(run: RunResult, split: str) -> PriorShift | None:
    metrics = run.metrics(split)
    if metrics is None or not metrics.per_class:
        return None
    return prior_shift(metrics.recalls, [each.test_count for each in metrics.per_class], run.counts)


def _mean_curve(runs: Runs, curves: Curves) -> PriorShift:
    """The mean over seeds. They are tested on the same images, so the error is no smaller than that of one."""
    known = [curves[run.folder] for run in runs if run.folder in curves]
    accuracy, error = (np.mean([getattr(each, name) for each in known], axis=0) for name in ("accuracy", "error"))
    return PriorShift(EXPONENTS, accuracy, error)


def _accuracy(curves: Curves, place: float) -> Measure:
    """The accuracy of a run at a prior."""
    return lambda run: curves[run.folder].at(place) if run.folder in curves else None


def _between(curves: Curves, place: float) -> Between:
    """The interval over images of a difference at a prior, from the error of each side."""

    def between(mine: Runs, base: Runs) -> Ends | None:
        first, second = _mean_curve(mine, curves), _mean_curve(base, curves)
        at = int(np.abs(EXPONENTS - place).argmin())
        half = Z * float(np.hypot(first.error[at], second.error[at]))
        gap = first.at(place) - second.at(place)
        return gap - half, gap + half

    return between


def _table(means: Sequence[tuple[Row, PriorShift]], curves: Curves, split: str) -> Table:
    """The accuracy at each of ``PLACES``, and by how much it exceeds that of the first configuration."""
    first, heads = means[0][0], ["Configuration"]
    cells: list[list[Cell]] = [[row.label] for row, _ in means]
    for place, name in PLACES.items():
        heads += [name.capitalize(), f"Against {first.label}"][: len(means)]
        for line, (row, curve) in zip(cells, means, strict=True):
            half = Z * float(curve.error[np.abs(EXPONENTS - place).argmin()])
            reached = curve.at(place)
            line.append((percent(reached, unit=False), interval_text((reached - half, reached + half))))
            accuracy, between = _accuracy(curves, place), _between(curves, place)
            gap = difference_between(row.runs, first.runs, split, accuracy, between)
            if gap and gap.interval and row is not first:
                low, high = gap.interval
                line.append(f"{signed(gap.mean)} ({signed(low)} to {signed(high)})")
            elif len(means) > 1:
                line.append("")
    caption = "Accuracy in % under other test priors, and differences in points, with 95% intervals."
    return Table(caption, tuple(heads), tuple(map(tuple, cells)))
