"""The section on other test priors: accuracy of every configuration from a head-heavy to a tail-heavy test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.prior_shift import EXPONENTS, PriorShift, prior_shift
from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray, IntArray
from longtail.evaluation.intervals import LEVEL
from longtail.report.captions import spoken
from longtail.report.plots.bands import BAND_WORDS, add_band, banded
from longtail.report.plots.canvas import blank, clip
from longtail.report.plots.palette import MUTED, run_style
from longtail.report.section import Drawing, Section
from longtail.report.select import difference, run_keys
from longtail.run.result import RunResult
from longtail.text import MINUS, listing, percent

PLACES = {1.0: "as in training", 0.0: "balanced", -1.0: "the reverse of training"}
"""The exponents that the sentence names."""
Curves = Mapping[Path, PriorShift]
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def prior_section(comparison: Comparison) -> Section | None:
    """Accuracy against the assumed test prior; None where nothing was measured or all classes are of one size."""
    split = comparison.split
    runs = [run for row in comparison.final for run in row.runs]
    curves = {run.folder: curve for run in runs if split and (curve := _curve(run, split)) is not None}
    rows = [row for row in comparison.final if any(run.folder in curves for run in row.runs)]
    if split is None or not rows or rows[0].runs[0].counts.imbalance_ratio == 1:
        return None
    means = [_mean_curve(row, curves) for row in rows]
    labels, colours = [row.label for row in rows], [row.color for row in rows]
    said = [f"{label} {listing([percent(curve.at(place)) for place in PLACES])}"
            for label, curve in zip(labels, means, strict=True)]  # fmt: skip
    alt = f"Lines of accuracy for a test prior {listing(list(PLACES.values()))}: {'; '.join(said)}."
    drawing = Drawing("prior-shift", "", alt, prior_curves(labels, means, colours, bands=banded(rows)))
    sentence = _sentence(rows, means, curves, split) + (f" {BAND_WORDS}" if banded(rows) else "")
    return Section("prior", "Accuracy under other test priors", sentence, legend=run_keys(rows), drawings=(drawing,))


def prior_curves(
    labels: Sequence[str], curves: Sequence[PriorShift], colours: Sequence[int], *, bands: bool = False
) -> go.Figure:
    """One line a configuration, head-heavy test sets on the left, tail-heavy ones on the right.

    Args:
        labels: Name of each configuration.
        curves: From :func:`longtail.analysis.prior_shift.prior_shift`.
        colours: Number of each configuration's colour.
        bands: Whether each line has a band of its 95% interval.

    Example:
        >>> from longtail.counts import ClassCounts
        >>> curve = prior_shift([0.9, 0.1], [10, 10], ClassCounts([90, 10]))
        >>> [trace.name for trace in prior_curves(["ce"], [curve], [0]).data]
        ['ce']
    """
    figure = blank(380, left=58)
    styles = [run_style(number) for number in colours]
    for label, curve, (colour, dash) in zip(labels, curves, styles, strict=True):
        figure.add_scatter(
            x=curve.exponent.astype(np.float32), y=curve.accuracy.astype(np.float32), mode="lines", name=clip(label),
            line={"color": colour, "dash": dash, "width": 2}, customdata=(Z * curve.error).astype(np.float32),
            hovertemplate="%{fullData.name}<br>prior n^%{x:.2f}: %{y:.1%} ± %{customdata:.1%}<extra></extra>",
        )  # fmt: skip
    for curve, (colour, _) in zip(curves, styles, strict=True) if bands else ():
        reach = Z * curve.error
        low, high = np.maximum(curve.accuracy - reach, 0), np.minimum(curve.accuracy + reach, 1)
        add_band(figure, curve.exponent, low, high, colour=colour)
    figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_xaxes(
        title="Assumed test prior: class size to this power",
        range=[1.0, -1.0], tickvals=[1, 0.5, 0, -0.5, -1],
        ticktext=["1, as in training", "0.5", "0, balanced", f"{MINUS}0.5", f"{MINUS}1, reversed"],
    )  # fmt: skip
    figure.update_layout(margin={"r": 48})
    return figure.update_yaxes(title="Accuracy", tickformat=".0%", rangemode="tozero", nticks=7)


def _curve(run: RunResult, split: str) -> PriorShift | None:
    metrics = run.metrics(split)
    if metrics is None or not metrics.per_class:
        return None
    return prior_shift(metrics.recalls, [one.test_count for one in metrics.per_class], run.counts)


def _mean_curve(row: Row, curves: Curves) -> PriorShift:
    """The mean over seeds. They are tested on the same images, so the error is no smaller than that of one."""
    found = [curves[run.folder] for run in row.runs if run.folder in curves]
    accuracy = np.mean([one.accuracy for one in found], axis=0)
    return PriorShift(EXPONENTS, accuracy, np.mean([one.error for one in found], axis=0))


def _sentence(rows: Sequence[Row], means: Sequence[PriorShift], curves: Curves, split: str) -> str:
    by_name = {row.name: curve for row, curve in zip(rows, means, strict=True)}
    parts = [
        f"{row.label} reaches {listing([percent(by_name[row.name].at(place)) for place in PLACES])}"
        for row in spoken(rows)
    ]
    text = f"On test sets with classes {listing(list(PLACES.values()))}, {'; '.join(parts)}."
    for row in spoken(rows):
        if row is not rows[0]:
            chance = Z * np.hypot(by_name[row.name].error, by_name[rows[0].name].error)
            verdicts = [_verdict(row, rows[0], split, curves, t, float(chance[t])) for t in range(len(EXPONENTS))]
            text += f" {_lead_sentence(row.label, rows[0].label, np.array(verdicts))}"
    return f"{text} No model is told the prior."


def _verdict(row: Row, first: Row, split: str, curves: Curves, place: int, chance: float) -> int:
    """1 where a configuration is ahead of the first, -1 where behind, 0 where the difference is no evidence."""

    def accuracy(run: RunResult) -> float | None:
        return float(curves[run.folder].accuracy[place]) if run.folder in curves else None

    gap = difference(row, first, split, accuracy)
    if gap is None or not replace(gap, images=(gap.mean - chance, gap.mean + chance)).is_evidence:
        return 0
    return 1 if gap.mean > 0 else -1


def _lead_sentence(label: str, first: str, verdicts: IntArray) -> str:
    """For which priors one configuration is ahead of another by more than chance, and for which behind."""
    ahead, behind = verdicts > 0, verdicts < 0
    if not (ahead | behind).any():
        return f"Between {label} and {first} no prior makes a clear difference."
    parts = [f"ahead of {first} {_stretches(ahead)}"] if ahead.any() else []
    parts += [f"behind {'it' if parts else first} {_stretches(behind)}"] if behind.any() else []
    rest = "" if (ahead | behind).all() else "; elsewhere there is no clear difference"
    return f"{label} is {listing(parts)}{rest}."


def _stretches(chosen: npt.NDArray[np.bool_]) -> str:
    """All stretches of neighbouring priors in words."""
    ends = np.flatnonzero(np.diff(chosen)) + 1
    return listing([_stretch(EXPONENTS[part]) for part in np.split(np.arange(len(chosen)), ends) if chosen[part[0]]])


def _stretch(exponents: FloatArray) -> str:
    """The priors between two exponents in words."""
    high, low = float(exponents.max()), float(exponents.min())
    if high == EXPONENTS.max() and low == EXPONENTS.min():
        return "at every power"
    if high == EXPONENTS.max():
        return f"at powers of {_power(low)} and above"
    if low == EXPONENTS.min():
        return f"at powers of {_power(high)} and below"
    return f"at powers from {_power(low)} to {_power(high)}"


def _power(exponent: float) -> str:
    return f"{MINUS if exponent < -1e-9 else ''}{abs(round(exponent, 2)):g}"
