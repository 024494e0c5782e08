"""The sections on what predictions show: calibration, answering only when sure, and other test priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from longtail.analysis import predictions
from longtail.compare.differences import (
    Between,
    Counted,
    Measure,
    Runs,
    are_independent,
    counted_between,
    difference_between,
    prior_between,
    were_tested_alike,
)
from longtail.compare.seeds import mean_interval
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.evaluation.intervals import effective_sample_size, wilson
from longtail.evaluation.metrics import Mask, class_weights
from longtail.evaluation.selective import coverage_curve, threshold_for_coverage
from longtail.evaluation.significance import ENOUGH_SEEDS, unpaired_interval
from longtail.formatting import MINUS, interval_text, percent, signed
from longtail.report import configurations
from longtail.report.plots import GROUND, GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, MUTED, add_line, blank, run_style
from longtail.report.section import Cell, Drawing, Key, Section, Table, read_aloud
from longtail.run.result import Ends, RunResult
from longtail.run.tables import Predictions

Band = tuple[FloatArray, FloatArray]
QUARTERS = [0, 0.25, 0.5, 0.75, 1]


def compared(rows: Sequence[Row], counted: Counted, words: Callable[[float], str] = percent, most: float = 1.0) -> str:
    """The mean of a number over some test images under each configuration, with its difference to the first.

    Args:
        rows: The configurations.
        counted: Gives the number of each test image of a run, and whether the image counts.
        words: Format of the mean.
        most: The largest possible difference.
    """

    def mean(run: RunResult) -> float | None:
        if run.predictions is None or not run.predictions.label.size:
            return None
        values, counts = map(np.asarray, counted(run, run.predictions))
        return float(values[counts].mean()) if counts.any() else None

    return configurations.against_first(rows, "test", mean, words=words, between=counted_between(counted, most=most))


SMALLEST, LARGEST = 4.0, 19.0
"""Diameter of the points of a reliability diagram in pixels; their area grows with the number of images."""


def calibration(comparison: Comparison) -> Section | None:
    """Draw reliability diagrams by group, and list the calibration errors; None without predictions."""
    rows = configurations.predicted_rows(comparison)
    if not rows:
        return None
    diagrams = [{part: mean_diagram(row, part) for part in configurations.PARTS} for row in rows]
    most = max(int(parts[name].count.max()) for parts in diagrams for name in GROUP_NAMES)
    heads, drawings, lines = ("Configuration", *configurations.PART_LABELS.values()), [], []
    for index, (row, parts) in enumerate(zip(rows, diagrams, strict=True)):
        cells = [
            (percent(each.ece, unit=False), interval_text(each.interval)) if each.count.any() else "n/a"
            for each in parts.values()
        ]
        lines.append((row.label, *cells))
        alt = read_aloud("Points of accuracy against confidence by group; calibration error in %", heads, lines[-1:])
        drawings.append(Drawing(f"reliability-{index}", row.label, alt, reliability_diagram(parts, most)))
    seeds = ", the mean over seeds" if any(len(row.runs) > 1 for row in rows) else ""
    caption = (
        f"Expected calibration error in %, 0 is best{seeds}. "
        "Small: its 95% interval, from the test images drawn anew; chance makes the error itself larger, the more so "
        "the fewer images."
    )

    def gaps(part: configurations.Part) -> str:
        return compared(
            rows,
            lambda run, each: (
                each.confidence - (each.label == each.prediction),
                configurations.part_masks(run, each)[part],
            ),
            lambda value: f"{signed(value)} points",
            most=2.0,
        )

    tail = configurations.smallest_group(rows[0].runs[0])
    sentence = (
        "Mean confidence minus accuracy, above 0 where a model is too sure, every image counting the same. On "
        f"{GROUP_LABELS[tail].lower()} images: {gaps(tail) or 'none'}. On all images: {gaps('all')}."
    )
    legend = (*configurations.group_keys(rows[0].runs[0]), Key("muted", "dotted", "Confidence equals accuracy"))
    table, layout = Table(caption, heads, tuple(lines), folded=""), configurations.side_by_side(len(rows))
    return Section("calibration", "Calibration by group", sentence, layout, legend, tuple(drawings), table=table)


def mean_diagram(row: Row, part: configurations.Part) -> predictions.Reliability:
    """The diagram of the images of all seeds, with the mean of the seeds' errors.

    The error of the pooled images would be smaller than that of any seed, as gaps of opposite signs cancel.
    """
    seeds, units = [], []
    for run, each in configurations.known_predictions(row):
        mask = configurations.part_masks(run, each)[part]
        seeds.append((each.confidence[mask], (each.label == each.prediction)[mask]))
        units.append(None if run.clusters is None else run.clusters[mask])
    diagrams = [predictions.reliability(*seed, unit=unit) for seed, unit in zip(seeds, units, strict=True)]
    pooled = predictions.reliability(*map(np.concatenate, zip(*seeds, strict=True)), draws=0)
    error, interval = np.mean([each.ece for each in diagrams]), mean_interval([each.interval for each in diagrams])
    return replace(pooled, ece=float(error), interval=interval)


def reliability_diagram(parts: Mapping[configurations.Part, predictions.Reliability], most: int) -> go.Figure:
    """Accuracy against confidence by group, one point a bin, its area the number of images.

    Args:
        parts: The diagram of each group; ``"all"`` is not drawn.
        most: Images in the fullest bin of all panels, which gets the largest point.

    Example:
        >>> parts = {"few": predictions.reliability([0.2, 0.9], [False, True])}
        >>> reliability_diagram(parts, 1).data[1].y.tolist()
        [0.0, 1.0]
    """
    figure = blank(340, left=52)
    line = {"color": MUTED, "width": 1.2, "dash": "dot"}
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line=line, layer="below")
    for name in GROUP_NAMES:
        diagram = parts.get(name)
        if diagram is None or not diagram.count.any():
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
    axis = {"tickformat": ".0%", "tickvals": QUARTERS, "range": [-0.03, 1.03]}
    return figure.update_xaxes(axis, title="Confidence").update_yaxes(axis, title="Accuracy")


def accuracy_lines(
    lines: Sequence[tuple[Row, FloatArray, Band]], x: FloatArray, *, hover: str, height: int, bands: bool
) -> go.Figure:
    """Accuracy against something, one line a configuration.

    Args:
        lines: Configurations, each with its accuracy and the ends of its 95% interval, shape (N,) each.
        x: Horizontal coordinates, shape (N,).
        hover: Hover text of a point; ``%{customdata}`` is half the length of the interval.
        height: Pixels.
        bands: Whether the intervals are drawn.
    """
    figure = blank(height, left=54)
    for row, accuracy, interval in lines:
        color, dash = run_style(row.color)
        band = interval if bands else None
        half = (interval[1] - interval[0]) / 2
        add_line(figure, x, accuracy, name=row.label, hover=hover, color=color, dash=dash, band=band, customdata=half)
    return figure.update_yaxes(title="Accuracy", tickformat=".0%", rangemode="tozero", nticks=7)


COVERAGE: FloatArray = np.linspace(0.01, 1.0, 100)
SHOWN = {share: int(np.abs(COVERAGE - share).argmin()) for share in (0.25, 0.5, 0.75, 1.0)}
"""The coverages in the table, and their places."""
HALF = 0.5
"""The coverage that the sentence names."""


def coverage(comparison: Comparison) -> Section | None:
    """Draw the accuracy of the surest images against their share, all and by group; None without predictions."""
    rows = configurations.predicted_rows(comparison)
    if not rows:
        return None
    bands, drawings, cells = configurations.has_bands(rows), [], []
    heads = ("Configuration", "Images", *(f"Surest {percent(share, 0)}" for share in SHOWN))
    for part, title in configurations.PART_LABELS.items():
        lines = [line for row in rows if (line := coverage_line(row, part)) is not None]
        if not lines:
            continue
        figure = accuracy_lines(lines, COVERAGE, hover="the surest %{x:.0%}: %{y:.1%} right", height=280, bands=bands)
        figure.update_xaxes(title="Coverage", range=[0, 1], tickformat=".0%", tickvals=QUARTERS)
        figure.update_yaxes(range=[0, 1.03], tickvals=QUARTERS).update_layout(margin={"r": 18})
        shown = [
            (row.label, title, *(percent(accuracy[index], unit=False) for index in SHOWN.values()))
            for row, accuracy, _ in lines
        ]
        alt = read_aloud("Lines of accuracy in % against coverage", heads, shown, labels=2)
        drawings.append(Drawing(f"coverage-{part}", title, alt, figure))
        cells += shown
    table = Table("Accuracy in % of the surest images.", heads, tuple(cells), labels=2)
    # The threshold of each run is taken as given.
    right = compared(rows, lambda _, each: (each.label == each.prediction, _answered(each)))
    tail = compared(
        rows,
        lambda run, each: (_answered(each), configurations.part_masks(run, each)[configurations.smallest_group(run)]),
    )
    sentence = f"Of the surest half of all images, this share is right: {right}."
    if tail:
        group = GROUP_LABELS[configurations.smallest_group(rows[0].runs[0])].lower()
        sentence += f" That half holds this share of the {group} images: {tail}."
    sentence += f" {configurations.BAND_SENTENCE}" if bands else ""
    legend, title = configurations.run_keys(rows), "Answering only when sure"
    return Section("coverage", title, sentence, "four", legend, tuple(drawings), table=table)


def coverage_line(row: Row, part: configurations.Part) -> tuple[Row, FloatArray, Band] | None:
    """The mean of the seeds' curves at ``COVERAGE`` with Wilson's intervals; in a group every class counts the same."""
    curves, images = [], []
    for run, each in configurations.known_predictions(row):
        mask = configurations.part_masks(run, each)[part]
        if mask.any():
            right = each.label == each.prediction
            weight = None if part == "all" else class_weights(each.label)[mask]
            curves.append(predictions.accuracy_at_coverage(each.confidence[mask], right[mask], COVERAGE, weight))
            images.append(predictions.effective_images(each.confidence[mask], COVERAGE, weight))
    if not curves:
        return None
    accuracy = np.asarray(np.mean(curves, axis=0), dtype=np.float64)
    # Seeds are tested on the same images, so that several say no more of them than one.
    answered = np.mean(images, axis=0)
    low, high = wilson(accuracy * answered, answered).T
    return row, accuracy, (low, high)


def _answered(each: Predictions) -> Mask:
    """Select the images that are answered when half of all are; of equal confidences all are."""
    curve = coverage_curve(each.confidence, each.label == each.prediction)
    return each.confidence >= threshold_for_coverage(curve, HALF)


PRIORS = {0: "As in training", 20: "Balanced", 40: "The reverse of training"}
"""The test priors in the table, by their place among ``EXPONENTS``."""
Curves = Mapping[Path, predictions.PriorShift]
"""Accuracy against the test prior, by the folder of a run."""


def priors(comparison: Comparison) -> Section | None:
    """Draw accuracy against the test prior; None where nothing was measured or all classes are of one size."""
    split, curves = comparison.split, {}
    for run in (run for row in comparison.final for run in row.runs):
        if (metrics := run.metrics(split)) is not None and metrics.per_class:
            images = [each.test_count for each in metrics.per_class]
            effective = _effective_sizes(run) if split == "test" else None
            curves[run.folder] = predictions.prior_shift(metrics.recalls, images, run.counts, effective=effective)
    rows = [row for row in comparison.final if any(run.folder in curves for run in row.runs)]
    if not rows or rows[0].runs[0].counts.imbalance_ratio == 1:
        return None
    means, bands = [(row, mean_prior_shift(curves, row.runs)) for row in rows], configurations.has_bands(rows)
    lines = [(row, mean.accuracy, tuple(np.clip(mean.ends, 0, 1))) for row, mean in means]
    hover = "prior n^%{x:.2f}: %{y:.1%} ± %{customdata:.1%}"
    figure = accuracy_lines(lines, predictions.EXPONENTS, hover=hover, height=380, bands=bands)
    figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"})
    names = ["1, as in training", "0.5", "0, balanced", f"{MINUS}0.5", f"{MINUS}1, reversed"]
    figure.update_xaxes(title="Assumed test prior: class size to this power", range=[1.0, -1.0])
    figure.update_xaxes(tickvals=[1, 0.5, 0, -0.5, -1], ticktext=names).update_layout(margin={"r": 48})
    against = [f"Against {rows[0].label}"][: len(rows) - 1]
    heads = ("Configuration", *(head for name in PRIORS.values() for head in (name, *against)))
    cells = _priors_rows(means, curves, split)
    alt = read_aloud("Lines of accuracy in % against the test prior", heads, cells)
    value, between = _at(curves, split, max(PRIORS))
    reverse = configurations.against_first(rows, split, value, between=between)
    sentence = (
        "Accuracy on test sets that hold the classes in other proportions, from those of training over balanced to "
        f"their reverse; no model is told the prior. On the reverse: {reverse}."
    )
    sentence += f" {configurations.BAND_SENTENCE}" if bands else ""
    caption = "Accuracy in % under other test priors, and differences in points, with 95% intervals."
    table, drawing = Table(caption, heads, tuple(cells)), Drawing("prior-shift", "", alt, figure)
    title, legend = "Accuracy under other test priors", configurations.run_keys(rows)
    return Section("prior", title, sentence, legend=legend, drawings=(drawing,), table=table)


def _effective_sizes(run: RunResult) -> FloatArray | None:
    """The effective sample size of each class, where test images form clusters that were kept; else None."""
    each, clusters = run.predictions, run.clusters
    if each is None or clusters is None:
        return None
    return effective_sample_size(each.label, each.prediction, clusters, len(run.counts), unit="cluster").images


def mean_prior_shift(curves: Curves, runs: Runs) -> predictions.PriorShift:
    """The mean over seeds. They are tested on the same images, so the error is no smaller than that of one."""
    measured = [curves[run.folder] for run in runs if run.folder in curves]
    accuracy, error = (np.mean([getattr(each, name) for each in measured], axis=0) for name in ("accuracy", "error"))
    return predictions.PriorShift(predictions.EXPONENTS, accuracy, error)


def _at(curves: Curves, split: str | None, index: int) -> tuple[Measure, Between]:
    """The accuracy of a run at a prior, and the interval over images of a difference, matched by image if it can be."""

    def figure(runs: Runs) -> tuple[float, Ends]:
        mean = mean_prior_shift(curves, runs)
        low, high = mean.ends
        return float(mean.accuracy[index]), (float(low[index]), float(high[index]))

    def between(mine: Runs, base: Runs) -> Ends | None:
        # Under the prior of training, runs with other counts are asked about other mixtures of the classes.
        exponent = float(predictions.EXPONENTS[index])
        asked = [predictions.shifted_prior(run.counts, exponent) for run in (*mine, *base)]
        is_one = all(np.array_equal(prior, asked[0]) for prior in asked)
        if split == "test" and is_one and (matched := prior_between(asked[0])(mine, base)):
            return matched
        # As in the table of results, which says why.
        by_seeds = min(len(mine), len(base)) >= ENOUGH_SEEDS and are_independent(mine) and are_independent(base)
        if by_seeds and were_tested_alike(mine, base, split):
            return None
        return unpaired_interval(*figure(mine), *figure(base))

    return lambda run: float(curves[run.folder].accuracy[index]) if run.folder in curves else None, between


def _priors_rows(
    means: Sequence[tuple[Row, predictions.PriorShift]], curves: Curves, split: str | None
) -> list[tuple[Cell, ...]]:
    """The accuracy at each of ``PRIORS``, and by how much it exceeds that of the first configuration."""
    lines = []
    for row, mean in means:
        cells: list[Cell] = [row.label]
        for index in PRIORS:
            low, high = np.clip(mean.ends[:, index], 0, 1)
            cells.append((percent(mean.accuracy[index], unit=False), interval_text((low, high))))
            change, text = difference_between(row.runs, means[0][0].runs, split, *_at(curves, split, index)), ""
            if row is not means[0][0] and change and change.interval:
                text = f"{signed(change.mean)} ({' to '.join(map(signed, change.interval))})"
            cells += [text][: len(means) - 1]
        lines.append(tuple(cells))
    return lines
