"""The section on margins: how far the score of the true class leads, by shot group, in training and in testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.margins import MarginDistribution, group_margins, margins_of_predictions, shared_edges
from longtail.compare.differences import Counted, counted_between
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.groups import group_masks
from longtail.report.captions import named
from longtail.report.plots.canvas import blank
from longtail.report.plots.palette import GROUND, GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, MUTED
from longtail.report.section import Drawing, Key, Section
from longtail.report.select import against_first, side_by_side
from longtail.run.folder import PREDICTIONS_FILE
from longtail.run.read import read_parquet
from longtail.run.result import RunResult
from longtail.text import listing, number, percent

SPLITS = ("test", "train")
COLUMNS = ("label", "prediction", "confidence", "probability_true", "top5_probabilities")
Groups = dict[GroupName, MarginDistribution]


@dataclass(frozen=True)
class Margins:
    """The margins of some images and their labels, shape (N,) each."""

    margin: FloatArray
    label: IntArray


Tested = Mapping[Path, Margins]
"""By folder of the run, those of its test images."""


@dataclass(frozen=True)
class Panel:
    """One configuration, all seeds together: the distributions of its groups in each split that is known."""

    row: Row
    splits: dict[str, Groups]


def margins_section(comparison: Comparison) -> Section | None:
    """The margins of test images, and of training images where the run was analysed; None without predictions."""
    if comparison.split != "test":
        return None
    runs = [run for row in comparison.final for run in row.runs]
    tested = {run.folder: margins for run in runs if (margins := margins_of_run(run)) is not None}
    found = {row.name: _by_split(row, tested) for row in comparison.final}
    rows = [row for row in comparison.final if "test" in found[row.name]]
    if not rows:
        return None
    edges = shared_edges([one.margin for row in rows for one in found[row.name].values()])
    panels = [
        Panel(row, {name: group_margins(one.margin, one.label, row.runs[0].group_of, edges)
                    for name, one in found[row.name].items()})
        for row in rows
    ]  # fmt: skip
    top = max(float(np.nanmax(one.density)) for panel in panels for groups in panel.splits.values()
              for one in groups.values() if one.images)  # fmt: skip
    drawings = tuple(
        Drawing(f"margins-{number}", panel.row.label, _alt(panel), margin_curves(panel.splits, edges, top))
        for number, panel in enumerate(panels)
    )
    legend = [
        Key(name, GROUP_SYMBOLS[name], f"{GROUP_LABELS[name]}, at the median")
        for name in GROUP_NAMES
        if panels[0].splits["test"][name].images
    ]
    if any("train" in panel.splits for panel in panels):
        legend.append(Key("muted", "dashed", "Training images, thin"))
    layout = side_by_side(len(panels))
    return Section("margins", "Margins", _sentence(panels, comparison.split, tested), layout, tuple(legend), drawings)


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
    for split in SPLITS:
        for name, one in splits.get(split, {}).items():
            if not one.images:
                continue
            colour, tested = GROUP_COLORS[name], split == "test"
            line = {"color": colour, "width": 2.2 if tested else 1.2, "shape": "spline", "smoothing": 0.5}
            # The group's symbol stands at the median: colour alone does not tell groups apart for everybody.
            size = np.where(np.arange(len(middles)) == np.abs(middles - one.median).argmin(), 10 if tested else 6, 0)
            figure.add_scatter(
                x=middles, y=one.density.astype(np.float32), mode="lines+markers",
                name=f"{GROUP_LABELS[name]}, {split}",
                line=line if tested else line | {"dash": "dash"},
                marker={"color": colour, "symbol": GROUP_SYMBOLS[name], "size": size, "opacity": 1,
                        "line": {"color": GROUND, "width": 0.8 * (size > 0)}},
                hovertemplate="%{fullData.name}<br>margin %{x:.1f}<extra></extra>",
            )  # fmt: skip
    figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"})
    place = {
        "x": 0,
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": MUTED},
    }
    figure.add_annotation(text="wrong", xanchor="right", xshift=-5, **place)
    figure.add_annotation(text="right", xanchor="left", xshift=5, **place)
    figure.update_layout(margin={"t": 26})
    figure.update_xaxes(title="Margin", range=[float(edges[0]), float(edges[-1])])
    return figure.update_yaxes(title="Density", range=[0, 1.05 * top], nticks=5)


def margins_of_run(run: RunResult) -> Margins | None:
    """The margins of the test images from ``predictions.parquet``; None without it or without second-best classes."""
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


def _by_split(row: Row, tested: Tested) -> dict[str, Margins]:
    """The images of all seeds together: a density of them is the mean of the seeds' densities."""
    test = [tested[run.folder] for run in row.runs if run.folder in tested]
    seen = [
        run.analysis.train.images for run in row.runs if run.analysis is not None and run.analysis.train is not None
    ]
    train = [Margins(one.margin.astype(np.float64), one.label.astype(np.int64)) for one in seen]
    parts = {"test": test, "train": train}
    return {
        name: Margins(np.concatenate([one.margin for one in part]), np.concatenate([one.label for one in part]))
        for name, part in parts.items()
        if part
    }


def _alt(panel: Panel) -> str:
    said = [
        f"{GROUP_LABELS[name].lower()} {split} images {number(one.median, 1)}, {percent(one.negative)} below 0"
        for split, groups in panel.splits.items()
        for name, one in groups.items()
        if one.images
    ]
    return f"Lines of the density of margins by group under {panel.row.label}. Medians: {'; '.join(said)}."


def _sentence(panels: Sequence[Panel], split: str, tested: Tested) -> str:
    groups = panels[0].splits["test"]
    tail = next(name for name in reversed(GROUP_NAMES) if groups[name].images)
    rows = [panel.row for panel in panels]
    negative = {run.folder: _negative(run, tested.get(run.folder), tail) for row in rows for run in row.runs}
    said = against_first(rows, split, lambda run: negative[run.folder], between=counted_between(_errors_on(tail)))
    what = GROUP_LABELS[tail].lower()
    return (
        f"Another class scores higher than the true one, a margin below 0, for this share of {what} test images: "
        f"{said}. Their median margin {_medians(panels, tail)}."
    )


def _medians(panels: Sequence[Panel], tail: GroupName) -> str:
    """From training to testing where any run was analysed, else in testing alone."""
    shown = named(panels, lambda panel: panel.row)
    parts = []
    for panel in shown:
        test, train = panel.splits["test"][tail], panel.splits.get("train", {}).get(tail)
        before = f"{number(train.median, 1)} in training and " if train and train.images else ""
        parts.append(f"{before}{number(test.median, 1)}{' in testing' if before else ''} under {panel.row.label}")
    trained = any("train" in panel.splits for panel in shown)
    return f"is {'; '.join(parts) if trained else listing(parts)}"


def _errors_on(tail: GroupName) -> Counted:
    """Of each test image whether another class scores higher than the true one; images of ``tail`` count."""
    return lambda run, found: (found.label != found.prediction, group_masks(found.label, run.group_of)[tail])


def _negative(run: RunResult, found: Margins | None, tail: GroupName) -> float | None:
    """The share of a run's test images of a group whose margin is below 0."""
    if found is None:
        return None
    mine = found.margin[np.array([name == tail for name in run.group_of])[found.label]]
    return float((mine < 0).mean()) if mine.size else None
