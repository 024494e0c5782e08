"""The section on coverage: how many answers are right when a model answers only the images it is surest of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.reliability import accuracy_at_coverage
from longtail.compare.differences import Counted, counted_between
from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray
from longtail.evaluation.groups import Mask, class_weights
from longtail.evaluation.intervals import wilson
from longtail.evaluation.selective import coverage_curve, threshold_for_coverage
from longtail.report.plots.canvas import blank
from longtail.report.plots.palette import GROUP_LABELS, run_style
from longtail.report.plots.traces import add_line
from longtail.report.section import Drawing, Section, Table
from longtail.report.select import (
    BAND_SENTENCE,
    PART_LABELS,
    PARTS,
    Part,
    against_first,
    has_bands,
    known_predictions,
    part_masks,
    predicted_rows,
    run_keys,
    smallest_group,
)
from longtail.run.result import Predictions, RunResult
from longtail.text import percent

COVERAGE: FloatArray = np.linspace(0.02, 1.0, 50)
SHOWN = (0.25, 0.5, 0.75, 1.0)
"""The coverages in the table."""
HALF = 0.5
"""The coverage that the sentence names."""


def build(comparison: Comparison) -> Section | None:
    """Draw the accuracy of the surest images against their share, all and by group; None without predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    bands, drawings, lines = has_bands(rows), [], []
    for part in PARTS:
        curves = [(row, curve) for row in rows if (curve := mean_curve(row, part)) is not None]
        if not curves:
            continue
        title = PART_LABELS[part]
        half = [f"{row.label} {percent(at(curve, HALF))}" for row, curve in curves]
        alt = f"Lines of accuracy against coverage, {title.lower()}. Of the surest half, right: {', '.join(half)}."
        drawings.append(Drawing(f"coverage-{part}", title, alt, coverage_figure(curves, part, bands=bands)))
        lines += [
            (row.label, title, *(percent(at(curve, share), unit=False) for share in SHOWN)) for row, curve in curves
        ]
    heads = ("Configuration", "Images", *(f"Surest {share:.0%}" for share in SHOWN))
    table = Table("Accuracy in % of the surest images.", heads, tuple(lines), labels=2)
    sentence = _sentence(rows) + (f" {BAND_SENTENCE}" if bands else "")
    return Section(
        "coverage", "Answering only when sure", sentence, "four", run_keys(rows), tuple(drawings), table=table
    )


def coverage_figure(curves: Sequence[tuple[Row, FloatArray]], part: Part, *, bands: bool) -> go.Figure:
    """Accuracy of the surest images against the share of all that they are, one line a configuration.

    Args:
        curves: Configurations with their accuracy at ``COVERAGE``.
        part: Whose images these are.
        bands: Whether each line has a band of Wilson's intervals around it.
    """
    figure = blank(280, left=52)
    for row, curve in curves:
        color, dash = run_style(row.color)
        # Seeds are tested on the same images, so that several say no more of them than one.
        count = max(int(part_masks(run, predictions)[part].sum()) for run, predictions in known_predictions(row))
        ends = wilson(curve * COVERAGE * count, COVERAGE * count)
        band = (ends[:, 0], ends[:, 1]) if bands else None
        hover = "the surest %{x:.0%}: %{y:.1%} right"
        add_line(figure, COVERAGE, curve, name=row.label, hover=hover, color=color, dash=dash, band=band)
    ticks = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    figure.update_xaxes(title="Coverage", range=[0, 1], **ticks)
    figure.update_layout(margin={"r": 18})
    return figure.update_yaxes(title="Accuracy", range=[0, 1.03], **ticks)


def mean_curve(row: Row, part: Part) -> FloatArray | None:
    """The mean of the seeds' curves at ``COVERAGE``, None without images; in a group every class counts the same."""
    curves = []
    for run, predictions in known_predictions(row):
        mask = part_masks(run, predictions)[part]
        if mask.any():
            right = predictions.label == predictions.prediction
            weight = None if part == "all" else class_weights(predictions.label)[mask]
            curves.append(accuracy_at_coverage(predictions.confidence[mask], right[mask], COVERAGE, weight))
    return np.asarray(np.mean(curves, axis=0), dtype=np.float64) if curves else None


def at(curve: FloatArray, coverage: float) -> float:
    """The accuracy at a coverage."""
    return float(curve[np.abs(COVERAGE - coverage).argmin()])


def _sentence(rows: Sequence[Row]) -> str:
    """What is right of the surest half, and how much of the smallest classes that half holds."""

    def compared(count: Counted) -> str:
        shares = {}
        for row in rows:
            for run, predictions in known_predictions(row):
                number, counts = map(np.asarray, count(run, predictions))
                if counts.any():
                    shares[run.folder] = float(number[counts].mean())
        return against_first(rows, "test", lambda run: shares.get(run.folder), between=counted_between(count))

    right, tail = compared(_right), compared(_tail)
    group = GROUP_LABELS[smallest_group(rows[0].runs[0])].lower()
    text = f"Of the surest half of all images, this share is right: {right}."
    return text + (f" That half holds this share of the {group} images: {tail}." if tail else "")


def _kept(predictions: Predictions) -> Mask:
    """Which images are answered when half of all are; of equal confidences all are."""
    curve = coverage_curve(predictions.confidence, predictions.label == predictions.prediction)
    return predictions.confidence >= threshold_for_coverage(curve, HALF)


def _right(_: RunResult, predictions: Predictions) -> tuple[Mask, Mask]:
    """Of each test image whether it is right; the answered ones count. The threshold is taken as given."""
    return predictions.label == predictions.prediction, _kept(predictions)


def _tail(run: RunResult, predictions: Predictions) -> tuple[Mask, Mask]:
    """Of each test image whether it is answered; those of the smallest group count."""
    return _kept(predictions), part_masks(run, predictions)[smallest_group(run)]
