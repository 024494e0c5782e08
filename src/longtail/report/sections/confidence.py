"""The sections on confidence: whether it equals accuracy, and how many answers are right where a model is surest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.predictions import Reliability, accuracy_at_coverage, reliability
from longtail.compare.differences import Counted, counted_between
from longtail.compare.seeds import mean_interval
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.evaluation.intervals import wilson
from longtail.evaluation.metrics import Mask, class_weights
from longtail.evaluation.selective import coverage_curve, threshold_for_coverage
from longtail.formatting import interval_text, percent, signed
from longtail.report.configurations import (
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
    side_by_side,
    smallest_group,
)
from longtail.report.plots import GROUND, GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, MUTED, add_line, blank, run_style
from longtail.report.section import Cell, Drawing, Key, Section, Table
from longtail.run.result import RunResult
from longtail.run.tables import Predictions

SMALLEST, LARGEST = 4.0, 19.0
"""Diameter of the points of a reliability diagram in pixels; their area grows with the number of images."""
Parts = Mapping[Part, Reliability]


def calibration(comparison: Comparison) -> Section | None:
    """Draw reliability diagrams by group, and list the calibration errors; None without predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    measured = {run.folder: _parts(run, predictions) for row in rows for run, predictions in known_predictions(row)}
    means = [_mean_parts([measured[run.folder] for run, _ in known_predictions(row)]) for row in rows]
    most = max(int(parts[name].count.max()) for parts in means for name in GROUP_NAMES)
    drawings = tuple(
        Drawing(
            f"reliability-{number}", row.label, _calibration_alt(row.label, parts), reliability_diagram(parts, most)
        )
        for number, (row, parts) in enumerate(zip(rows, means, strict=True))
    )
    legend = [Key(name, GROUP_SYMBOLS[name], GROUP_LABELS[name]) for name in GROUP_NAMES if means[0][name].count.sum()]
    legend.append(Key("muted", "dotted", "Confidence equals accuracy"))
    units = {metrics.unit for row in rows for run in row.runs if (metrics := run.test) is not None} - {"image"}
    seeds = ", the mean over seeds" if any(len(row.runs) > 1 for row in rows) else ""
    caption = (
        f"Expected calibration error in %, 0 is best{seeds}. "
        "Small: its 95% interval, from the test images drawn anew; chance makes the error itself larger, the more so "
        "the fewer images."
    )
    for unit in sorted(units):
        caption += f" Images of one {unit} count as independent here, which makes the intervals too narrow."
    cells = [(row.label, *(_cell(parts[part]) for part in PARTS)) for row, parts in zip(rows, means, strict=True)]
    table = Table(caption, ("Configuration", *PART_LABELS.values()), tuple(cells), folded="")

    def gaps(part: Part) -> str:
        def gap(run: RunResult) -> float | None:
            value = measured[run.folder][part].overconfidence if run.folder in measured else math.nan
            return None if math.isnan(value) else value

        points, between = (lambda value: f"{signed(value)} points"), counted_between(_gap_of_images(part), most=2.0)
        return against_first(rows, "test", gap, words=points, between=between)

    tail = smallest_group(rows[0].runs[0])
    sentence = (
        "Mean confidence minus accuracy, above 0 where a model is too sure, every image counting the same. On "
        f"{GROUP_LABELS[tail].lower()} images: {gaps(tail)}. On all images: {gaps('all')}."
    )
    layout = side_by_side(len(rows))
    return Section("calibration", "Calibration by group", sentence, layout, tuple(legend), drawings, table=table)


def reliability_diagram(parts: Parts, most: int) -> go.Figure:
    """Accuracy against confidence by group, one point a bin, its area the number of images.

    Args:
        parts: The diagram of each group; ``"all"`` is not drawn.
        most: Images in the fullest bin of all panels, which gets the largest point.

    Example:
        >>> parts = {"few": reliability([0.2, 0.9], [False, True])}
        >>> reliability_diagram(parts, 1).data[1].y.tolist()
        [0.0, 1.0]
    """
    figure = blank(340, left=52)
    line = {"color": MUTED, "width": 1.2, "dash": "dot"}
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line=line, layer="below")
    for name in GROUP_NAMES:
        diagram = parts.get(name)
        if diagram is None or not diagram.count.sum():
            continue
        filled = diagram.count > 0
        x, y, images = diagram.confidence[filled], diagram.accuracy[filled], diagram.count[filled]
        figure.add_scatter(x=x, y=y, mode="lines", line={"color": GROUP_COLORS[name], "width": 1.4}, hoverinfo="skip")
        size = SMALLEST + (LARGEST - SMALLEST) * np.sqrt(images / most)
        marker = {"color": GROUP_COLORS[name], "symbol": GROUP_SYMBOLS[name], "size": size, "opacity": 0.9}
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            name=GROUP_LABELS[name],
            customdata=images.astype(np.int32),
            marker=marker | {"line": {"color": GROUND, "width": 0.8}},
            hovertemplate="%{fullData.name}<br>confidence %{x:.1%}<br>right %{y:.1%}<br>%{customdata:,} images"
            "<extra></extra>",
        )
    ticks = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1], "range": [-0.03, 1.03]}
    figure.update_xaxes(title="Confidence", **ticks)
    return figure.update_yaxes(title="Accuracy", **ticks)


def _parts(run: RunResult, predictions: Predictions) -> Parts:
    """The diagram of all images of a run and of each group."""
    right, sure = predictions.label == predictions.prediction, predictions.confidence
    return {part: reliability(sure[mask], right[mask]) for part, mask in part_masks(run, predictions).items()}


def _mean_parts(seeds: Sequence[Parts]) -> Parts:
    return {part: _mean_diagram([each[part] for each in seeds]) for part in PARTS}


def _mean_diagram(seeds: Sequence[Reliability]) -> Reliability:
    """The diagram of the images of all seeds, with the mean of the seeds' errors.

    The error of the pooled images would be smaller than that of any seed, as gaps of opposite signs cancel.
    """
    counts = np.stack([each.count for each in seeds])
    count = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        confidence = (counts * np.nan_to_num(np.stack([each.confidence for each in seeds]))).sum(axis=0) / count
        accuracy = (counts * np.nan_to_num(np.stack([each.accuracy for each in seeds]))).sum(axis=0) / count
    error, gap = (float(np.mean([getattr(each, name) for each in seeds])) for name in ("ece", "overconfidence"))
    return Reliability(count, confidence, accuracy, error, mean_interval([each.interval for each in seeds]), gap)


def _cell(diagram: Reliability) -> Cell:
    if np.isnan(diagram.ece):
        return "n/a"
    return percent(diagram.ece, unit=False), interval_text(diagram.interval)


def _calibration_alt(label: str, parts: Parts) -> str:
    errors = [
        f"{GROUP_LABELS[name].lower()} {percent(diagram.ece)}, "
        f"confidence minus accuracy {signed(diagram.overconfidence)} points"
        for name in GROUP_NAMES
        if (diagram := parts[name]).count.sum()
    ]
    return f"Points of accuracy against confidence by group under {label}. Calibration error: {'; '.join(errors)}."


def _gap_of_images(part: Part) -> Counted:
    """Of each test image its confidence less whether it is right; images of ``part`` count."""
    return lambda run, predictions: (
        predictions.confidence - (predictions.label == predictions.prediction),
        part_masks(run, predictions)[part],
    )


COVERAGE: FloatArray = np.linspace(0.02, 1.0, 50)
SHOWN = (0.25, 0.5, 0.75, 1.0)
"""The coverages in the table."""
HALF = 0.5
"""The coverage that the sentence names."""


def coverage(comparison: Comparison) -> Section | None:
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
    heads = ("Configuration", "Images", *(f"Surest {percent(share, 0)}" for share in SHOWN))
    table = Table("Accuracy in % of the surest images.", heads, tuple(lines), labels=2)
    sentence = _coverage_sentence(rows) + (f" {BAND_SENTENCE}" if bands else "")
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


def at(curve: FloatArray, share: float) -> float:
    """The accuracy of the surest share of the images."""
    return float(curve[np.abs(COVERAGE - share).argmin()])


def _coverage_sentence(rows: Sequence[Row]) -> str:
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
