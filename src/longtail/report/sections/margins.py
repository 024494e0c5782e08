"""The section on margins: how far the score of the true class leads, by shot group, in training and in testing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.predictions import MarginDistribution, group_margins, margins_of_predictions, shared_edges
from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray, GroupName, IntArray
from longtail.formatting import listing, number, percent
from longtail.report.builders import value_text
from longtail.report.configurations import group_keys, named, side_by_side, smallest_group
from longtail.report.plots import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, MUTED, add_line, blank
from longtail.report.section import Drawing, Key, Section, Table
from longtail.run.result import RunResult

SPLITS = {"test": "testing", "train": "training"}
Margins = tuple[FloatArray, IntArray]
"""The margins of some images and their labels, shape (N,) each."""
Splits = Mapping[str, Mapping[GroupName, MarginDistribution]]
"""The distributions of the shot groups in ``"test"`` and possibly ``"train"``."""


def build(comparison: Comparison) -> Section | None:
    """Draw the margins of test images, and of training images of analyzed runs; None without predictions."""
    images = [(row, parts) for row in comparison.final if "test" in (parts := _by_split(row))]
    if comparison.split != "test" or not images:
        return None
    edges = shared_edges([margin for _, parts in images for margin, _ in parts.values()])
    panels: list[tuple[Row, Splits]] = [
        (row, {name: group_margins(*part, row.runs[0].group_of, edges) for name, part in parts.items()})
        for row, parts in images
    ]
    top = max(
        float(np.nanmax([group.density for group in groups.values() if group.images]))
        for _, splits in panels
        for groups in splits.values()
    )
    drawings, rows = [], []
    for place, (row, splits) in enumerate(panels):
        figure = margin_curves(splits, edges, top)
        lines = [(split, name, group) for split, groups in splits.items() for name, group in groups.items()]
        medians = [
            f"{GROUP_LABELS[name].lower()} {split} images {number(group.median, 1)}, {percent(group.negative)} below 0"
            for split, name, group in lines
            if group.images
        ]
        alt = f"Lines of the density of margins by group under {row.label}. Medians: {'; '.join(medians)}."
        drawings.append(Drawing(f"margins-{place}", row.label, alt, figure))
        for split, groups in splits.items():
            cells = [(number(group.median, 1), value_text(100 * group.negative, ".1f")) for group in groups.values()]
            rows.append((row.label, SPLITS[split], *chain.from_iterable(cells)))
    heads = [head for label in GROUP_LABELS.values() for head in (f"{label}, median", f"{label}, below 0 in %")]
    table = Table("Margins of each shot group.", ("Configuration", "Images", *heads), tuple(rows), labels=2)
    tail = smallest_group(panels[0][0].runs[0])
    medians = [
        f"{listing([f'{number(groups[tail].median, 1)} in {SPLITS[split]}' for split, groups in splits.items()])} "
        f"under {row.label}"
        for row, splits in named(panels, lambda panel: panel[0])
    ]
    sentence = (
        "By how much the score of the true class leads the highest other. Below 0 another class scores higher: that "
        "share of a group, every class counting the same, is its error. The median margin of "
        f"{GROUP_LABELS[tail].lower()} images is {'; '.join(medians)}."
    )
    legend = [Key(key.color, key.shape, f"{key.text}, at the median") for key in group_keys(panels[0][0].runs[0])]
    if any("train" in splits for _, splits in panels):
        legend.append(Key("muted", "dashed", "Training images, thin"))
    layout = side_by_side(len(panels))
    return Section("margins", "Margins", sentence, layout, tuple(legend), tuple(drawings), table=table)


def margin_curves(splits: Splits, edges: FloatArray, top: float) -> go.Figure:
    """Densities of the margins of each group: test images solid, training images thin and dashed.

    Args:
        splits: ``"test"`` and possibly ``"train"``, each with the distribution of every group.
        edges: Of the histograms, shape (B + 1,).
        top: Highest density of all panels, so that their axes are the same.

    Example:
        >>> groups = group_margins(np.array([1.0, -1.0]), np.array([0, 1]), ["many", "few"], np.array([-2.0, 0, 2]))
        >>> figure = margin_curves({"test": groups}, np.array([-2.0, 0, 2]), 0.5)
        >>> [trace.name for trace in figure.data if trace.mode == "lines"]
        ['Many-shot, test', 'Few-shot, test']
    """
    figure, middles = blank(300, left=52), (edges[1:] + edges[:-1]) / 2
    for split, groups in splits.items():
        style = {"width": 2.2} if split == "test" else {"width": 1.2, "dash": "dash"}
        for name, group in groups.items():
            if not group.images:
                continue
            color, label = GROUP_COLORS[name], f"{GROUP_LABELS[name]}, {split}"
            add_line(figure, middles, group.density, name=label, hover="margin %{x:.1f}", color=color, **style)
            # The group's symbol stands at the median: color alone does not tell groups apart for everybody.
            place = int(np.abs(middles - group.median).argmin())
            marker = {"color": color, "symbol": GROUP_SYMBOLS[name], "size": 10 if split == "test" else 6}
            point = {"x": [float(middles[place])], "y": [float(group.density[place])]}
            figure.add_scatter(**point, mode="markers", name=label, marker=marker, hoverinfo="skip")
    figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"})
    note = {"x": 0, "y": 1, "yref": "paper", "yanchor": "bottom", "font": {"size": 12, "color": MUTED}}
    figure.add_annotation(text="wrong", xanchor="right", xshift=-5, showarrow=False, **note)
    figure.add_annotation(text="right", xanchor="left", xshift=5, showarrow=False, **note)
    figure.update_layout(margin={"t": 26})
    figure.update_xaxes(title="Margin", range=[float(edges[0]), float(edges[-1])])
    return figure.update_yaxes(title="Density", range=[0, 1.05 * top], nticks=5)


def margins_of_run(run: RunResult) -> Margins | None:
    """The margins of the test images from the predictions; None without them or without second-best classes."""
    seen = run.predictions
    if seen is None or seen.second is None or seen.probability_true is None or not len(seen.label):
        return None
    margins = margins_of_predictions(seen.label, seen.prediction, seen.confidence, seen.second, seen.probability_true)
    return margins, seen.label


def _by_split(row: Row) -> dict[str, Margins]:
    """The images of all seeds together: a density of them is the mean of the seeds' densities."""
    trained = [run.analysis.train.images for run in row.runs if run.analysis and run.analysis.train]
    parts = {
        "test": [margins for run in row.runs if (margins := margins_of_run(run)) is not None],
        "train": [(images.margin.astype(np.float64), images.label.astype(np.int64)) for images in trained],
    }
    return {
        name: (np.concatenate([margin for margin, _ in part]), np.concatenate([label for _, label in part]))
        for name, part in parts.items()
        if part
    }
