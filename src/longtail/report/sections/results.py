"""Results: the verdict, the table of figures, the shot groups, and the curves of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.compare.differences import difference_text, figure_interval, figure_of
from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.compare.table import HEADINGS, Comparison, Row
from longtail.counts import GROUP_NAMES
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.formatting import figure_text
from longtail.report.configurations import JUDGED, absent_notes
from longtail.report.plots import GROUP_COLORS, GROUP_LABELS, INK, RULE, labeled_bars
from longtail.report.section import Drawing, Section
from longtail.run.result import Ends


def verdict(comparison: Comparison) -> str:
    """Name the configuration to use: the best on validation images; without these only the highest on test images."""
    rows, split = comparison.final, comparison.split
    if split is None:
        return "No run was evaluated yet."
    if len(rows) == 1:
        return f"{rows[0].label} reaches {_reached(rows[0], split)}."
    validated = {row.name: value for row in rows if (value := _on_validation(row))}
    if len(validated) == len(rows):
        best = max(rows, key=lambda row: validated[row.name][0].mean)
        text = f"Best on validation images: {best.label}, balanced accuracy {_figure(*validated[best.name])}."
        if split == "test":
            text += f" It reaches {_reached(best, split)}."
    else:
        best = max(rows, key=_judged)
        text = f"Highest on {split} images: {best.label} reaches {_reached(best, split)}."

    def difference(row: Row, key: str) -> str:
        change, is_picked_by_it = row.differences[key], split == "validation" or len(validated) < len(rows)
        return difference_text(change.to_the_best_of(len(rows)) if change and is_picked_by_it else change)

    if best is not rows[0]:
        few = best.values["few"] and rows[0].values["few"]
        text += f" Against {rows[0].label}: {difference(best, JUDGED)}"
        text += f"; on few-shot classes, {difference(best, 'few')}." if few else "."
    else:
        by_validation = len(validated) == len(rows)
        rival = max(rows[1:], key=lambda row: validated[row.name][0].mean if by_validation else _judged(row))
        text += f" Next is {rival.label}: {difference(rival, JUDGED)}."
    if len(validated) < len(rows):
        why = "" if split == "validation" else ", the highest on test images flatters itself"
        text += f" No verdict: without validation images of every run to choose by{why}."
    return text


def _judged(row: Row) -> float:
    value = row.values[JUDGED]
    return value.mean if value else -1.0


def _reached(row: Row, split: str) -> str:
    balanced = _figure(row.values[JUDGED], row.intervals.get(JUDGED))
    text = f"a balanced accuracy of {balanced} on {split} images"
    if row.values["few"] is None:
        return text
    return f"{text}, {_figure(row.values['few'], row.intervals.get('few'))} on few-shot classes"


def _figure(value: MeanStd | None, interval: Ends | None) -> str:
    """A figure in percent with its interval over images, or its deviation over seeds."""
    if value is None:
        return "n/a"
    if value.std is not None:
        return f"{mean_std_text(value)}%"
    return figure_text(value.mean, interval)


def _on_validation(row: Row) -> tuple[MeanStd, Ends | None] | None:
    """The figure that configurations are judged by on validation images; None unless every run has some."""
    value = MeanStd.of([figure_of(run, "validation", JUDGED) for run in row.runs])
    if value is None or value.n < len(row.runs):
        return None
    return value, figure_interval(row.runs, "validation", JUDGED)


def build(comparison: Comparison) -> Section:
    """The table of all figures, and what to know before trusting them."""
    rows = comparison.final
    data: dict[str, object] = {
        "comparison": comparison,
        "headings": HEADINGS,
        "best": {key: _best(rows, key) for key in HEADINGS},
        "folded": any(len(row.runs) > 1 for row in comparison.rows),
        "measured": any(any(row.intervals.values()) for row in comparison.rows),
        "groups": GROUP_NAMES,
        "notes": [*comparison.notes, *absent_notes(comparison)],
    }
    return Section("results", "Results", partial="results.html.j2", data=data)


def _best(rows: Sequence[Row], key: str) -> float | None:
    """The value to set in bold: the best of several, unless all are the same to the digit shown."""
    shown = {round(value.mean, 3) for row in rows if (value := row.values[key]) is not None}
    if len(shown) < 2:
        return None
    return min(shown) if key == "ece" else max(shown)


def groups(comparison: Comparison) -> Section | None:
    """Bars of accuracy on all images and on the classes of each shot group."""
    if comparison.split is None:
        return None
    rows, run = comparison.final, comparison.rows[0].runs[0]
    panels = [("accuracy", "All images", INK)]
    for name in GROUP_NAMES:
        if any(name in row.runs[0].group_of for row in rows):
            size = run.group_of.count(name)
            title = f"{GROUP_LABELS[name]}, {size:,} {'class' if size == 1 else 'classes'}"
            panels.append((name, title, GROUP_COLORS[name]))
    labels, drawings = [row.label for row in rows], []
    for key, title, color in panels:
        values, intervals = [row.values[key] for row in rows], [row.intervals.get(key) for row in rows]
        bars = [f"{row.label} {_figure(row.values[key], row.intervals.get(key))}" for row in rows]
        alt = f"Bars of accuracy, {title}: {', '.join(bars)}."
        drawings.append(Drawing(f"group-{key}", title, alt, group_bars(labels, values, color, intervals)))
    sentence = "Of a group: the mean over its classes, every class counting the same."
    if any(len(row.runs) == 1 and any(row.intervals.values()) for row in rows):
        sentence += f" Whiskers: the {LEVEL_TEXT} interval over {comparison.split} images"
        sentence += ", or one deviation over seeds." if any(len(row.runs) > 1 for row in rows) else "."
    return Section("groups", "Accuracy by group", sentence, "four", drawings=tuple(drawings))


def group_bars(
    labels: Sequence[str], values: Sequence[MeanStd | None], color: str, intervals: Sequence[Ends | None] | None = None
) -> go.Figure:
    """One bar per configuration on a common scale from 0 to 100%, name and value written above it.

    Args:
        labels: Name of each configuration.
        values: Its figure in [0, 1] with the deviation over seeds, None for "n/a".
        color: Fill of the bars.
        intervals: The 95% interval of each, drawn where there is no deviation over seeds.

    Example:
        >>> len(group_bars(["ce", "gcl"], [MeanStd(0.4, None, 1), None], INK).layout.annotations)
        4
    """
    means = np.array([value.mean if value else 0.0 for value in values])
    segments = [("accuracy", color, means), ("not right", RULE, 1.0 - means)]
    figure = labeled_bars(labels, [mean_std_text(value) for value in values], segments)
    reach = np.full((len(values), 2), np.nan)
    for index, (value, pair) in enumerate(zip(values, intervals or [None] * len(values), strict=True)):
        if value is not None and value.std is not None:
            reach[index] = value.std
        elif value is not None and pair is not None:
            reach[index] = max(value.mean - pair[0], 0.0), max(pair[1] - value.mean, 0.0)
    if np.isfinite(reach).any():
        whisker = {"symmetric": False, "color": INK, "thickness": 1.2, "width": 3}
        whisker |= {"arrayminus": reach[:, 0], "array": reach[:, 1]}
        # A trace of its own: the next segment of a stacked bar would cover the upper half of the whisker.
        rows = figure.data[0].y
        figure.add_scatter(x=means, y=rows, mode="markers", marker_opacity=0, error_x=whisker, hoverinfo="skip")
    return figure
