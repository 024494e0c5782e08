"""The section on calibration: whether confidence equals accuracy in each shot group, and by how much it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.reliability import Reliability, reliability
from longtail.compare.differences import Counted, counted_between
from longtail.compare.seeds import mean_interval
from longtail.compare.table import Comparison, Row
from longtail.counts import FEW_IMAGES, GROUP_NAMES
from longtail.report.plots.canvas import blank
from longtail.report.plots.palette import GROUND, GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, MUTED
from longtail.report.section import Drawing, Key, Section
from longtail.report.select import (
    PARTS,
    Part,
    against_first,
    known_predictions,
    part_masks,
    predicted_rows,
    side_by_side,
)
from longtail.run.result import Predictions, RunResult
from longtail.text import interval_text, percent, signed

SMALLEST, LARGEST = 4.0, 19.0
"""Diameter of the points of a reliability diagram in pixels; their area grows with the number of images."""
Parts = Mapping[Part, Reliability]


@dataclass(frozen=True)
class CalibrationRow:
    """One line of the table: error and interval of each of ``PARTS``, the mean over seeds, as written in the page."""

    label: str
    cells: tuple[tuple[str, str], ...]


def reliability_section(comparison: Comparison) -> Section | None:
    """Reliability diagrams by group, and the calibration error with its interval; None without predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    measured = {run.folder: _parts(run, found) for row in rows for run, found in known_predictions(row)}
    means = [_averaged_parts([measured[run.folder] for run, _ in known_predictions(row)]) for row in rows]
    most = max(int(parts[name].count.max()) for parts in means for name in GROUP_NAMES)
    drawings = tuple(
        Drawing(f"reliability-{number}", row.label, _alt(row.label, parts), reliability_diagram(parts, most))
        for number, (row, parts) in enumerate(zip(rows, means, strict=True))
    )
    legend = [Key(name, GROUP_SYMBOLS[name], GROUP_LABELS[name]) for name in GROUP_NAMES if means[0][name].count.sum()]
    legend.append(Key("muted", "dotted", "Confidence equals accuracy"))
    units = {metrics.unit for row in rows for run in row.runs if (metrics := run.test) is not None} - {"image"}
    data: dict[str, object] = {
        "rows": [_table_row(row.label, parts) for row, parts in zip(rows, means, strict=True)],
        "heads": [("", "All"), *((name, GROUP_LABELS[name]) for name in GROUP_NAMES)],
        "units": sorted(units), "seeds": any(len(row.runs) > 1 for row in rows),
    }  # fmt: skip
    return Section(
        "calibration", "Calibration by group", _sentence(rows, measured, "test"), side_by_side(len(rows)),
        tuple(legend), drawings, "calibration.html.j2", data,
    )  # fmt: skip


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
        one = parts.get(name)
        if one is None or not one.count.sum():
            continue
        kept, colour = one.count > 0, GROUP_COLORS[name]
        joined = one.count >= FEW_IMAGES  # a line through bins of an image or two would draw chance
        line = {"color": colour, "width": 1.4}
        figure.add_scatter(x=one.confidence[joined], y=one.accuracy[joined], mode="lines", line=line, hoverinfo="skip")
        figure.add_scatter(
            x=one.confidence[kept], y=one.accuracy[kept], mode="markers", name=GROUP_LABELS[name],
            customdata=one.count[kept].astype(np.int32),
            marker={"color": colour, "symbol": GROUP_SYMBOLS[name], "line": {"color": GROUND, "width": 0.8},
                    "size": SMALLEST + (LARGEST - SMALLEST) * np.sqrt(one.count[kept] / most), "opacity": 0.9},
            hovertemplate="%{fullData.name}<br>confidence %{x:.1%}<br>right %{y:.1%}"
                          "<br>%{customdata:,} images<extra></extra>",
        )  # fmt: skip
    ticks = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1], "range": [-0.03, 1.03]}
    figure.update_xaxes(title="Confidence", **ticks)
    return figure.update_yaxes(title="Accuracy", **ticks)


def _parts(run: RunResult, found: Predictions) -> Parts:
    """The diagram of all images of a run and of each group."""
    right = found.label == found.prediction
    return {name: reliability(found.confidence[mask], right[mask]) for name, mask in part_masks(run, found).items()}


def _averaged_parts(seeds: Sequence[Parts]) -> Parts:
    return {part: _averaged([one[part] for one in seeds]) for part in PARTS}


def _averaged(seeds: Sequence[Reliability]) -> Reliability:
    """The diagram of the images of all seeds, with the mean of the seeds' errors.

    The error of the pooled images would be smaller than that of any seed, as gaps of opposite signs cancel.
    """
    counts = np.stack([one.count for one in seeds])
    count = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        confidence = (counts * np.nan_to_num(np.stack([one.confidence for one in seeds]))).sum(axis=0) / count
        accuracy = (counts * np.nan_to_num(np.stack([one.accuracy for one in seeds]))).sum(axis=0) / count
    return Reliability(
        count, confidence, accuracy, float(np.mean([one.ece for one in seeds])),
        mean_interval([one.interval for one in seeds]), float(np.mean([one.overconfidence for one in seeds])),
    )  # fmt: skip


def _table_row(label: str, parts: Parts) -> CalibrationRow:
    return CalibrationRow(label, tuple(_cell(parts[name]) for name in PARTS))


def _cell(one: Reliability) -> tuple[str, str]:
    return ("n/a", "") if np.isnan(one.ece) else (percent(one.ece, unit=False), interval_text(one.interval))


def _alt(label: str, parts: Parts) -> str:
    said = [
        f"{GROUP_LABELS[name].lower()} {percent(one.ece)}, "
        f"{'overconfident' if one.overconfidence > 0 else 'underconfident'} by {percent(abs(one.overconfidence))}"
        for name in GROUP_NAMES
        if (one := parts[name]).count.sum()
    ]
    return f"Points of accuracy against confidence by group under {label}. Calibration error: {'; '.join(said)}."


def _gaps(part: Part) -> Counted:
    """Of each test image its confidence less whether it is right; images of ``part`` count."""
    return lambda run, found: (found.confidence - (found.label == found.prediction), part_masks(run, found)[part])


def _sentence(rows: Sequence[Row], measured: Mapping[Path, Parts], split: str) -> str:
    """How far confidence lies above accuracy on the smallest classes, and how far apart the errors are."""
    tail = next(name for name in reversed(GROUP_NAMES) if any(parts[name].count.sum() for parts in measured.values()))

    def gap(run: RunResult, part: Part) -> float | None:
        found = measured[run.folder][part].overconfidence if run.folder in measured else math.nan
        return None if math.isnan(found) else found

    def said(part: Part) -> str:
        return against_first(rows, split, lambda run: gap(run, part), words=lambda value: f"{signed(value)} points",
                             between=counted_between(_gaps(part), most=2.0))  # fmt: skip

    text = (
        f"Mean confidence minus accuracy, above 0 where a model is too sure, on {GROUP_LABELS[tail].lower()} images: "
    )
    return f"{text}{said(tail)}. On all images: {said('all')}."
