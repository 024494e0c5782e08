"""The section on margins: by how much the score of the true class leads the highest other one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.predictions import group_margins, margins_of_predictions, shared_edges
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.formatting import listing, number
from longtail.report.builders import Line, LineMeasure, LineSection
from longtail.report.configurations import Measured, smallest_group
from longtail.report.plots import DOTTED, GROUP_LABELS, GROUP_SYMBOLS, MUTED
from longtail.report.section import Table, read_aloud

SPLITS = {"test": "testing", "train": "training"}
NUMBERS = ("median", "below 0 in %")
HEADS = ("Configuration", "Images", *(f"{label}, {name}" for label in GROUP_LABELS.values() for name in NUMBERS))
Margins = tuple[FloatArray, IntArray]
"""The margins of some images and their labels, shape (N,) each."""


def group_densities(comparison: Comparison) -> list[Measured]:
    """The density of the margins of each shot group, median and share below 0, of the splits whose margins are known.

    All configurations are measured at the same places ``x``; those without predictions of test images are left out.
    """
    images = [(row, parts) for row in comparison.final if "test" in (parts := margins_of(row))]
    if comparison.split != "test" or not images:
        return []
    edges = shared_edges([margin for _, parts in images for margin, _ in parts.values()])
    shown = []
    for row, parts in images:
        values = {"x": (edges[1:] + edges[:-1]) / 2}
        for split, part in parts.items():
            groups = group_margins(*part, row.runs[0].group_of, edges).values()
            values[split] = np.stack([group.density for group in groups], axis=1)
            values[f"{split} median"] = np.array([group.median for group in groups])
            values[f"{split} negative"] = np.array([group.negative for group in groups])
        shown.append(Measured(row, row.runs[0], 1, values))
    return shown


def margins_of(row: Row) -> dict[str, Margins]:
    """The margins by split of the images of all seeds together: their density is the mean of the seeds' densities."""
    parts: dict[str, list[Margins]] = {"test": [], "train": []}
    for run in row.runs:
        seen, analysis = run.predictions, run.analysis
        if seen is not None and seen.second is not None and seen.probability_true is not None and seen.label.size:
            scores = (seen.confidence, seen.second, seen.probability_true)
            parts["test"].append((margins_of_predictions(seen.label, seen.prediction, *scores), seen.label))
        if analysis is not None and analysis.train is not None:
            trained = analysis.train.images
            parts["train"].append((trained.margin.astype(np.float64), trained.label.astype(np.int64)))
    return {
        split: (np.concatenate([margin for margin, _ in part]), np.concatenate([label for _, label in part]))
        for split, part in parts.items()
        if part
    }


class MarginSection(LineSection):
    """Lines over the margin, with the symbol of each group at its median."""

    place = "margin %{x:.1f}"
    symbols = True

    def numbers(self, each: Measured) -> str:
        """The median of the smallest shot group in words."""
        tail = GROUP_NAMES.index(smallest_group(each.run))
        medians = {word: each.values[f"{split} median"][tail] for split, word in SPLITS.items() if each.has(split)}
        words = [f"{number(median, '.1f')} in {word}" for word, median in medians.items()]
        return f"{listing(words)} under {each.label}"

    def table(self, shown: Sequence[Measured]) -> Table:
        """Median and share below 0 of each group."""
        rows = tuple(row for each in shown for row in _rows(each))
        return Table("Margins of each shot group.", HEADS, rows, labels=2)

    def finish(self, figure: go.Figure, lines: Sequence[Line], *_: object) -> str:
        """Mark the medians and 0, and return the text for screen readers."""
        x, symbols = lines[0].x, list(GROUP_SYMBOLS.values())
        for line in lines:
            # Color alone does not tell groups apart for everybody.
            place = np.abs(x - line.each.values[f"{line.key} median"][line.column]).argmin()
            marker = {"color": line.style["color"], "symbol": symbols[line.column], "size": 5 * line.style["width"]}
            figure.add_scatter(x=x[[place]], y=line.values[[place]], mode="markers", marker=marker, hoverinfo="skip")
        figure.add_vline(x=0, line=DOTTED)
        for text, anchor in (("wrong ", "right"), (" right", "left")):
            note = {"xanchor": anchor, "yanchor": "bottom", "font": {"size": 12, "color": MUTED}}
            figure.add_annotation(text=text, x=0, y=1, yref="paper", showarrow=False, **note)
        figure.update_layout(margin={"t": 26}).update_xaxes(title="Margin", range=[float(x[0]), float(x[-1])])
        return read_aloud("Lines of the density of margins by group", HEADS, _rows(lines[0].each), labels=2)


def _rows(each: Measured) -> list[tuple[str, ...]]:
    """The numbers of a configuration: median and share below 0 of each group, of each split."""
    rows = []
    for split, word in SPLITS.items():
        if each.has(split):
            pairs = zip(each.values[f"{split} median"], 100 * each.values[f"{split} negative"], strict=True)
            rows.append((each.label, word, *(number(value, ".1f") for value in chain(*pairs))))
    return rows


MARGINS = MarginSection(
    "margins",
    "Margins",
    "By how much the score of the true class leads the highest other. Below 0 another class scores higher: that share "
    "of a group, every class counting the same, is its error. The symbol of a group stands at its "
    "median, which for the smallest group is {numbers}.",
    group_densities,
    (LineMeasure({"Test images": "test", "Training images": "train"}, "margins", "Density", include=(0.0,)),),
)
