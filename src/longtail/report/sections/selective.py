"""The section on coverage: how many answers are right when a model answers only the images it is surest of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.reliability import coverage_on
from longtail.compare.differences import counted_between
from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray
from longtail.evaluation.groups import Mask
from longtail.evaluation.intervals import wilson
from longtail.evaluation.selective import coverage_at, coverage_curve, threshold_for_coverage
from longtail.report.plots.bands import BAND_WORDS, add_band, banded
from longtail.report.plots.canvas import blank, clip
from longtail.report.plots.palette import GROUP_LABELS, run_style
from longtail.report.section import Drawing, Section
from longtail.report.select import (
    PART_LABELS,
    PARTS,
    Part,
    against_first,
    known_predictions,
    part_masks,
    predicted_rows,
    run_keys,
    smallest_group,
)
from longtail.run.result import Predictions, RunResult
from longtail.text import percent

COVERAGE: FloatArray = np.linspace(0.02, 1.0, 50)
HALF = 0.5
"""The coverage that the sentence names."""
Masks = Mapping[Path, Mapping[Part, Mask]]


@dataclass(frozen=True)
class Half:
    """What is answered of the images when the surer half of them is: how much is right, and how many of the tail."""

    accuracy: float | None
    tail: float | None


def coverage_section(comparison: Comparison) -> Section | None:
    """Accuracy of the surest images against their share, all and by group; None without predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    drawings, labels, colours = [], [row.label for row in rows], [row.color for row in rows]
    masks = {run.folder: part_masks(run, found) for row in rows for run, found in known_predictions(row)}
    for part in PARTS:
        curves = [_mean_coverage(row, part, masks) for row in rows]
        if any(curve is not None for curve in curves):
            title = PART_LABELS[part]
            images = [_images(row, part, masks) for row in rows] if banded(rows) else None
            figure = coverage_figure(labels, curves, colours, images)
            said = [f"{row.label} {percent(_at_half(curve))}" for row, curve in zip(rows, curves, strict=True)]
            alt = f"Lines of accuracy against coverage, {title.lower()}. Of the surest half, right: {', '.join(said)}."
            drawings.append(Drawing(f"coverage-{part}", title, alt, figure))
    sentence = _coverage_sentence(rows, "test", masks) + (f" {BAND_WORDS}" if banded(rows) else "")
    return Section("coverage", "Answering only when sure", sentence, "four", run_keys(rows), tuple(drawings))


def coverage_figure(
    labels: Sequence[str],
    curves: Sequence[FloatArray | None],
    colours: Sequence[int],
    images: Sequence[int] | None = None,
) -> go.Figure:
    """Accuracy of the surest images against the share of all that they are, one line a configuration.

    Args:
        labels: Name of each configuration.
        curves: Accuracy at ``COVERAGE`` of each; None where it was not measured.
        colours: Number of each configuration's colour.
        images: How many images each curve rests on, for a band of Wilson's intervals around it; None for no bands.

    Example:
        >>> [trace.name for trace in coverage_figure(["ce", "gcl"], [COVERAGE, None], [0, 1]).data]
        ['ce']
        >>> band = coverage_figure(["ce"], [COVERAGE], [0], [100]).data[1]
        >>> [f"{end:.3f}" for end in band.y[[49, 50]]]  # where all are answered, 100 of 100 are right
        ['0.963', '1.000']
    """
    figure = blank(280, left=52)
    styles = [run_style(number) for number in colours]
    for label, curve, (colour, dash) in zip(labels, curves, styles, strict=True):
        if curve is None:
            continue
        figure.add_scatter(
            x=COVERAGE.astype(np.float32), y=curve.astype(np.float32), mode="lines", name=clip(label),
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate="%{fullData.name}<br>the surest %{x:.0%}: %{y:.1%} right<extra></extra>",
        )  # fmt: skip
    for curve, (colour, _), count in zip(curves, styles, images or (), strict=False):
        if curve is not None:
            ends = wilson(curve * COVERAGE * count, COVERAGE * count)
            add_band(figure, COVERAGE, ends[:, 0], ends[:, 1], colour=colour)
    ticks = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    figure.update_xaxes(title="Coverage", range=[0, 1], **ticks)
    figure.update_layout(margin={"r": 18})
    return figure.update_yaxes(title="Accuracy", range=[0, 1.03], **ticks)


def _images(row: Row, part: Part, masks: Masks) -> int:
    """Images of a part; seeds are tested on the same ones, so that several say no more of them than one."""
    return max(int(masks[run.folder][part].sum()) for run, _ in known_predictions(row))


def _mean_coverage(row: Row, part: Part, masks: Masks) -> FloatArray | None:
    """The mean of the seeds' curves; None where the part has no images."""
    curves = [
        coverage_on(coverage_curve(found.confidence[mask], (found.label == found.prediction)[mask]), COVERAGE)
        for run, found in known_predictions(row)
        if (mask := masks[run.folder][part]).any()
    ]
    return np.asarray(np.mean(curves, axis=0), dtype=np.float64) if curves else None


def _at_half(curve: FloatArray | None) -> float | None:
    return None if curve is None else float(curve[np.abs(COVERAGE - HALF).argmin()])


def _coverage_sentence(rows: Sequence[Row], split: str, masks: Masks) -> str:
    """What is right of the surest half, and whom of the smallest classes that half leaves out."""
    kept = {run.folder: _kept(run, found, masks) for row in rows for run, found in known_predictions(row)}

    def right(run: RunResult) -> float | None:
        return kept[run.folder].accuracy if run.folder in kept else None

    def tail(run: RunResult) -> float | None:
        return kept[run.folder].tail if run.folder in kept else None

    said = against_first(rows, split, right, between=counted_between(_right))
    text = f"Of the surest half of all images, this share is right: {said}."
    shares = against_first(rows, split, tail, between=counted_between(_tail))
    what = GROUP_LABELS[smallest_group(rows[0].runs[0])].lower()
    return text + (f" That half holds this share of the {what} images: {shares}." if shares else "")


def _threshold(found: Predictions) -> float:
    """The confidence from which half of all images are answered; of equal confidences all are."""
    return threshold_for_coverage(coverage_curve(found.confidence, found.label == found.prediction), HALF)


def _right(_: RunResult, found: Predictions) -> tuple[Mask, Mask]:
    """Of each test image whether it is right; the answered ones count. The threshold is taken as given."""
    return found.label == found.prediction, found.confidence >= _threshold(found)


def _tail(run: RunResult, found: Predictions) -> tuple[Mask, Mask]:
    """Of each test image whether it is answered; those of the smallest group count."""
    return found.confidence >= _threshold(found), part_masks(run, found)[smallest_group(run)]


def _kept(run: RunResult, found: Predictions, masks: Masks) -> Half:
    """What answering half of all images leaves of the smallest classes; of equal confidences all are answered."""
    threshold = _threshold(found)
    mask = masks[run.folder][smallest_group(run)]
    share = float((found.confidence[mask] >= threshold).mean()) if mask.any() else None
    return Half(coverage_at(found.confidence, found.label == found.prediction, threshold)["accuracy"], share)
