"""The section on the effective cloud: how far the noise of a loss moves the logit of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtail.analysis.norms import rank_trend
from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray
from longtail.report.plots.class_points import class_points
from longtail.report.section import Drawing, Section
from longtail.report.select import group_keys, side_by_side
from longtail.run.result import RunResult
from longtail.text import listing, number

Cloud = tuple[FloatArray, FloatArray]

CENTRED = 0.1
"""Noise whose mean is less than this share of its spread is judged by the spread."""


def cloud_section(comparison: Comparison) -> Section | None:
    """Mean and spread of the perturbation of each class; None where no analysed run was trained with noise."""
    found = [(row, run, cloud) for row in comparison.final for run, cloud in _clouds(row)[:1]]
    if not found:
        return None
    lowest = min(float(np.nanmin(mean - spread)) for _, _, (mean, spread) in found)
    highest = max(0.0, *(float(np.nanmax(mean + spread)) for _, _, (mean, spread) in found))
    room = 0.06 * (highest - lowest)
    drawings = []
    for place, (row, run, (mean, spread)) in enumerate(found):
        figure = class_points(run.counts, run.group_of, mean, says="cloud %{y:.3f}", spread=spread)
        figure.update_yaxes(title="Perturbation", range=[lowest - room, highest + room], nticks=6)
        drawings.append(Drawing(f"cloud-{place}", row.label, _alt(row, mean, spread), figure))
    sentence = _sentence([(row, run, *cloud) for row, run, cloud in found])
    return Section(
        "cloud", "The effective cloud", sentence, side_by_side(len(found)), group_keys(found[0][1]), tuple(drawings)
    )


def _clouds(row: Row) -> list[tuple[RunResult, Cloud]]:
    """The runs of a configuration whose loss adds noise, each with mean and spread of it."""
    found = []
    for run in row.runs:
        if run.analysis is None or run.analysis.train is None:
            continue
        classes = run.analysis.train.classes
        mean, spread = (np.asarray(one, dtype=np.float64) for one in (classes.cloud_mean, classes.cloud_spread))
        if np.isfinite(mean).any():
            found.append((run, (mean, spread)))
    return found


def _alt(row: Row, mean: FloatArray, spread: FloatArray) -> str:
    return (
        f"Points of the mean perturbation of each class against its training images under {row.label}, with a whisker "
        f"of one standard deviation: means from {number(np.nanmin(mean), 3)} to {number(np.nanmax(mean), 3)}, spreads "
        f"up to {number(np.nanmax(spread), 3)}."
    )


def _sentence(found: Sequence[tuple[Row, RunResult, FloatArray, FloatArray]]) -> str:
    parts = []
    for row, run, mean, spread in found:
        size = mean if np.nanmax(np.abs(mean)) > CENTRED * np.nanmax(spread) else -spread  # signed noise has no mean
        trend = rank_trend(size, run.counts.array)
        grows = "grows" if trend.rho > 0 and trend.is_evidence else "does not clearly grow"
        reach = (
            f"down to {number(np.nanmin(mean), 3)}" if size is mean else f"to a deviation of {number(-size.min(), 3)}"
        )
        parts.append(f"under {row.label} it {grows} towards the tail, {reach}")
    return (
        "What the noise of the loss adds to the logit of a class, mean and one standard deviation, in units of the "
        f"logits (cosines where the classifier is one): {listing(parts)}."
    )
