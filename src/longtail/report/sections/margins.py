"""The section on margins: how far the score of the true class leads, by shot group, in training and in testing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.margins import MarginDistribution, group_margins, margins_of_predictions, shared_edges
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.report.captions import named
from longtail.report.plots.canvas import blank
from longtail.report.plots.palette import GROUND, GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, MUTED
from longtail.report.section import Drawing, Key, Section, Table
from longtail.report.select import side_by_side, smallest_group
from longtail.run.folder import PREDICTIONS_FILE
from longtail.run.read import read_parquet
from longtail.run.result import RunResult
from longtail.text import listing, number, percent

COLUMNS = ("label", "prediction", "confidence", "probability_true", "top5_probabilities")
Groups = dict[GroupName, MarginDistribution]


@dataclass(frozen=True)
class Margins:
    """The margins of some images and their labels, shape (N,) each."""

    margin: FloatArray
    label: IntArray


@dataclass(frozen=True)
class Panel:
    """One configuration, all seeds together: the distributions of its groups in each split that is known."""

    row: Row
    splits: dict[str, Groups]


def build(comparison: Comparison) -> Section | None:
    """Draw the margins of test images, and of training images of analyzed runs; None without predictions."""
    if comparison.split != "test":
        return None
    margins = [(row, splits) for row in comparison.final if "test" in (splits := _by_split(row))]
    if not margins:
        return None
    edges = shared_edges([images.margin for _, splits in margins for images in splits.values()])
    panels = [
        Panel(
            row,
            {
                name: group_margins(part.margin, part.label, row.runs[0].group_of, edges)
                for name, part in splits.items()
            },
        )
        for row, splits in margins
    ]
    known = [group for panel in panels for groups in panel.splits.values() for group in groups.values() if group.images]
    top = max(float(group.density.max()) for group in known)
    drawings = tuple(
        Drawing(f"margins-{place}", panel.row.label, _alt(panel), margin_curves(panel.splits, edges, top))
        for place, panel in enumerate(panels)
    )
    legend = [
        Key(name, GROUP_SYMBOLS[name], f"{GROUP_LABELS[name]}, at the median")
        for name in GROUP_NAMES
        if panels[0].splits["test"][name].images
    ]
    if any("train" in panel.splits for panel in panels):
        legend.append(Key("muted", "dashed", "Training images, thin"))
    tail = smallest_group(panels[0].row.runs[0])
    medians = [_median_text(panel, tail) for panel in named(panels, lambda panel: panel.row)]
    sentence = (
        "By how much the score of the true class leads the highest other. Below 0 another class scores higher: that "
        "share of a group, every class counting the same, is its error. The median margin of "
        f"{GROUP_LABELS[tail].lower()} images is {'; '.join(medians)}."
    )
    layout, table = side_by_side(len(panels)), _table(panels)
    return Section("margins", "Margins", sentence, layout, tuple(legend), drawings, table=table)


def margin_curves(splits: dict[str, Groups], edges: FloatArray, top: float) -> go.Figure:
    """Densities of the margins of each group: test images solid, training images thin and dashed.

    Args:
        splits: ``"test"`` and possibly ``"train"``, each with the distribution of every group.
        edges: Of the histograms, shape (B + 1,).
        top: Highest density of all panels, so that their axes are the same.

    Example:
        >>> groups = group_margins(np.array([1.0, -1.0]), np.array([0, 1]), ["many", "few"], np.array([-2.0, 0, 2]))
        >>> [trace.name for trace in margin_curves({"test": groups}, np.array([-2.0, 0, 2]), 0.5).data]
        ['Many-shot, test', 'Few-shot, test']
    """
    figure = blank(300, left=52)
    middles = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    for split, groups in splits.items():
        tested = split == "test"
        for name, group in groups.items():
            if not group.images:
                continue
            line = {"color": GROUP_COLORS[name], "shape": "spline", "smoothing": 0.5}
            line |= {"width": 2.2} if tested else {"width": 1.2, "dash": "dash"}
            # The group's symbol stands at the median: color alone does not tell groups apart for everybody.
            size = np.zeros(len(middles))
            size[np.abs(middles - group.median).argmin()] = 10 if tested else 6
            outline = {"color": GROUND, "width": 0.8 * (size > 0)}
            symbol = {"color": GROUP_COLORS[name], "symbol": GROUP_SYMBOLS[name], "opacity": 1}
            figure.add_scatter(
                x=middles,
                y=group.density.astype(np.float32),
                mode="lines+markers",
                name=f"{GROUP_LABELS[name]}, {split}",
                line=line,
                marker=symbol | {"size": size, "line": outline},
                hovertemplate="%{fullData.name}<br>margin %{x:.1f}<extra></extra>",
            )
    figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"})
    place = {"x": 0, "y": 1, "yref": "paper", "yanchor": "bottom", "font": {"size": 12, "color": MUTED}}
    figure.add_annotation(text="wrong", xanchor="right", xshift=-5, showarrow=False, **place)
    figure.add_annotation(text="right", xanchor="left", xshift=5, showarrow=False, **place)
    figure.update_layout(margin={"t": 26})
    figure.update_xaxes(title="Margin", range=[float(edges[0]), float(edges[-1])])
    return figure.update_yaxes(title="Density", range=[0, 1.05 * top], nticks=5)


def margins_of_run(run: RunResult) -> Margins | None:
    """The margins of the test images from the predictions; None without them or without second-best classes."""
    table = read_parquet(run.folder / PREDICTIONS_FILE, COLUMNS)
    if table is None or not len(table):
        return None
    ranked: npt.NDArray[np.float32] = table["top5_probabilities"].combine_chunks().flatten().to_numpy()
    each = len(ranked) // len(table)
    if each < 2:
        return None
    label, prediction, confidence, true = (table[name].to_numpy() for name in COLUMNS[:4])
    second = ranked.reshape(len(table), each)[:, 1]
    return Margins(margins_of_predictions(label, prediction, confidence, second, true), label)


def _by_split(row: Row) -> dict[str, Margins]:
    """The images of all seeds together: a density of them is the mean of the seeds' densities."""
    trained = [
        run.analysis.train.images for run in row.runs if run.analysis is not None and run.analysis.train is not None
    ]
    parts = {
        "test": [margins for run in row.runs if (margins := margins_of_run(run)) is not None],
        "train": [Margins(part.margin.astype(np.float64), part.label.astype(np.int64)) for part in trained],
    }
    return {
        name: Margins(np.concatenate([each.margin for each in part]), np.concatenate([each.label for each in part]))
        for name, part in parts.items()
        if part
    }


def _median_text(panel: Panel, tail: GroupName) -> str:
    parts = [
        f"{number(groups[tail].median, 1)} in {'testing' if split == 'test' else 'training'}"
        for split, groups in panel.splits.items()
    ]
    return f"{listing(parts)} under {panel.row.label}"


def _alt(panel: Panel) -> str:
    medians = [
        f"{GROUP_LABELS[name].lower()} {split} images {number(group.median, 1)}, {percent(group.negative)} below 0"
        for split, groups in panel.splits.items()
        for name, group in groups.items()
        if group.images
    ]
    return f"Lines of the density of margins by group under {panel.row.label}. Medians: {'; '.join(medians)}."


def _table(panels: list[Panel]) -> Table:
    heads = [head for label in GROUP_LABELS.values() for head in (f"{label}, median", f"{label}, below 0 in %")]
    rows = []
    for panel in panels:
        for split, groups in panel.splits.items():
            cells = [panel.row.label, "training" if split == "train" else split]
            for group in groups.values():
                below = percent(group.negative, unit=False) if group.images else "n/a"
                cells += [number(group.median, 1), below]
            rows.append(tuple(cells))
    return Table("Margins of each shot group.", ("Configuration", "Images", *heads), tuple(rows), labels=2)
