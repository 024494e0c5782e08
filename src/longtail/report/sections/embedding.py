"""The section on the embedding: features in two dimensions, and numbers that need no projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.columns import AnalyzedSplit
from longtail.compare.seeds import MeanStd
from longtail.compare.table import Comparison, Row
from longtail.counts import GroupName
from longtail.formatting import listing, number, percent
from longtail.report import plots
from longtail.report.configurations import FirstRun, analyzed_splits, group_keys, named, seed_note, side_by_side
from longtail.report.section import Drawing, Key, Section, Table, in_rows

Points = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

METHODS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
"""The projections, as they are drawn; training images and the coloring by class are drawn by the first one only."""
NUMBERS = {
    "uniformity": "Uniformity",
    "alignment": "Alignment",
    "within_between": "Within / between",
    "nc1": "NC1",
    "equinorm": "Equinorm",
    "equiangularity": "Equiangularity",
    "simplex_deviation": "From simplex",
    "duality": "Duality",
}
SMALL = 10
"""The mean of fewer images than this is uncertain enough to say so."""
FEW_MEANS = 40
"""The means of more classes than this are drawn smaller."""
NAMED = 24
"""Up to this number of classes their names stand at their means."""
CLASS_SYMBOLS = ("circle", "diamond", "triangle-up", "square", "cross", "star", "hexagon", "triangle-down")
"""Class colors repeat after eight classes, with the next symbol."""

Look = tuple[str, str, str, npt.NDArray[np.int64]]
"""A name, a color, a symbol, and the classes that are drawn in them."""


@dataclass(frozen=True, eq=False)
class Panel:
    """A figure: the images of a split of a run by one projection, colored by shot group or by class."""

    each: FirstRun[AnalyzedSplit]
    method: str
    by_class: bool = False

    @property
    def title(self) -> str:
        """Return the title above the panel."""
        images = "training" if self.each.split == "train" else self.each.split
        return f"{self.each.label}, {images} images, {METHODS[self.method]}{', by class' if self.by_class else ''}"

    @cached_property
    def drawn(self) -> npt.NDArray[np.bool_]:
        """Return which images have a place, shape (N,)."""
        return np.asarray(np.isfinite(getattr(self.each.content.images, f"{self.method}_x")), dtype=bool)

    @cached_property
    def points(self) -> Points:
        """Drawn images around their mean, in units of their own mean distance, so that panels can be compared."""
        images = self.each.content.images
        points = np.stack([getattr(images, f"{self.method}_{axis}") for axis in "xy"], axis=1)[self.drawn]
        points = points - points.mean(axis=0)
        size = float(np.sqrt((points**2).sum(axis=1).mean()))
        return np.asarray(points / (size or 1.0), dtype=np.float32)

    def draw(self, name: str, reach: float, height: int) -> Drawing:
        """Draw images and class means on axes from ``-reach`` to it."""
        run, labels = self.each.run, self.each.content.images.label[self.drawn]
        looks = class_looks(len(run.counts)) if self.by_class else group_looks(run.group_of)
        figure = scatter(self.points, labels, looks, run.counts.names if self.by_class else ())
        axis = {"range": [-reach, reach], "showgrid": False, "showline": False, "showticklabels": False}
        figure.update_layout(height=height, margin={"l": 4, "r": 4, "t": 4, "b": 4})
        figure.update_xaxes(axis).update_yaxes(axis, scaleanchor="x")
        colored = "class" if self.by_class else "shot group"
        alt = f"Scatter of {len(self.points):,} images, {self.title}, colored by {colored}."
        return Drawing(name, self.title, alt, figure)


def build(comparison: Comparison) -> Section | None:
    """Draw the features, and list what needs no projection; None where no run was analyzed."""
    shown = analyzed_splits(comparison)
    if not shown:
        return None
    first, rows = shown[0], [[Panel(each, method) for each in shown] for method in METHODS]
    rows = [row for row in rows if all(panel.drawn.any() for panel in row)]
    legend, sentence = group_keys(first.run) if rows else (), ""
    if rows:
        drawn = rows[0][0].drawn
        if len(first.run.counts) <= plots.CROWDED:
            legend += (Key("ink", "circle", "Larger, outlined: mean of a class"),)
        which = f"{len(drawn):,}" if drawn.all() else f"{drawn.sum():,} of {len(drawn):,}"
        sentence = (
            f"Features of {which} {first.split} images. t-SNE and UMAP keep who is near to whom: the size of a cloud "
            "and the space between mean nothing. By class, colors and symbols repeat where there are many. "
        )
        if rows[-1][0].method == "pca":
            shares = [
                f"{percent(sum(each.content.summary.get('explained_variance') or [np.nan]), 0)} under {each.label}"
                for each in named(shown, lambda each: each.row)
            ]
            sentence += f"The two axes of PCA hold {listing(shares)} of the variance. "
        rows += [[replace(panel, by_class=True) for panel in rows[0]], _trained(rows[0])]
    images = np.array([each.content.classes.images for each in shown])
    small = int(((images > 0) & (images < SMALL)).sum(axis=1).max())
    if small:
        sentence += (
            f"{small:,} {'class has' if small == 1 else 'classes have'} fewer than {SMALL} images: means of so few lie "
            "too far apart. Within / between allows for that; NC1 comes out too low, and the other measures of class "
            "means are blurred."
        )
    sentence = sentence.strip() + seed_note(each.seeds for each in shown)
    seeds = ", the mean over seeds" if any(each.seeds > 1 for each in shown) else ""
    caption = (
        f"What does not depend on a projection{seeds}. Under a cosine classifier, features count by their direction. "
        "Each is one number a run, and nothing says how far it may be off."
    )
    heads = ("Configuration", "Split", "Images", *NUMBERS.values())
    table = Table(caption, heads, tuple(_numbers(comparison.final)), labels=2, folded="")
    layout, drawings = side_by_side(len(shown)), _drawings(rows, height=340 if len(shown) > 2 else 420)
    return Section("embedding", "Embedding", sentence.strip(), layout, legend, drawings, table=table)


def _trained(row: Sequence[Panel]) -> list[Panel]:
    """The training images of the same runs, where those of another split are drawn first."""
    trained = [
        replace(panel, each=replace(panel.each, content=analysis.train, split="train"))
        for panel in row
        if panel.each.split != "train" and (analysis := panel.each.run.analysis) and analysis.train
    ]
    return [panel for panel in trained if panel.drawn.any()]


def _drawings(rows: Sequence[Sequence[Panel]], *, height: int) -> tuple[Drawing, ...]:
    """The figures of rows of panels, those of a projection with the same axes."""
    reach, numbers = dict.fromkeys(METHODS, 0.0), count()
    for panel in chain.from_iterable(rows):
        reach[panel.method] = max(reach[panel.method], 1.04 * float(np.abs(panel.points).max()))
    return in_rows(
        *([panel.draw(f"embedding-{next(numbers)}", reach[panel.method], height) for panel in row] for row in rows)
    )


def scatter(points: Points, labels: Labels, looks: Sequence[Look], names: Sequence[str] = ()) -> go.Figure:
    """Images in two dimensions in the looks of their classes, and class means unless there are too many.

    Args:
        points: Shape (N, 2).
        labels: Class indices, shape (N,).
        looks: Together they hold every class once.
        names: Of all classes, to stand at their means if there are few; empty where they do not.

    Example:
        >>> points, labels = np.zeros((3, 2), np.float32), np.array([0, 0, 1], np.int32)
        >>> [(trace.name, len(trace.x)) for trace in scatter(points, labels, group_looks(["many", "few"])).data]
        [('Many-shot', 2), ('Few-shot', 1), ('Many-shot, class means', 1), ('Few-shot, class means', 1)]
    """
    figure, size = plots.blank(420, left=10), sum(len(classes) for *_, classes in looks)
    kind = go.Scattergl if len(points) > plots.MANY_POINTS else go.Scatter
    shared = {"mode": "markers", "meta": "class", "hovertemplate": "%{text}<extra></extra>"}
    for name, color, symbol, classes in looks:
        members = np.isin(labels, classes)
        marker = {"color": color, "symbol": symbol, "opacity": 0.4, "line": {"width": 0}}
        marker["size"] = 6 if symbol == "triangle-up" else 4.5
        x, y = points[members].T
        if members.any():
            figure.add_trace(kind(x=x, y=y, customdata=labels[members], name=name, marker=marker, **shared))
    if size > plots.CROWDED:
        return figure
    images = np.bincount(labels, minlength=size)
    sums = [np.bincount(labels, weights=axis, minlength=size) for axis in points.T]
    for name, color, symbol, classes in looks:
        seen = classes[images[classes] > 0]
        x, y = ((axis[seen] / images[seen]).astype(np.float32) for axis in sums)
        marker = {"color": color, "symbol": symbol, "size": 10 if size <= FEW_MEANS else 7}
        marker["line"] = {"color": plots.INK, "width": 1.2}
        options = {"customdata": seen.astype(np.int32), "name": f"{name}, class means", "marker": marker}
        figure.add_trace(kind(x=x, y=y, **options, **shared))
        for position, index in enumerate(seen if 0 < len(names) <= NAMED else ()):
            words = {"text": plots.clip(names[index], 16), "showarrow": False, "yshift": 12}
            figure.add_annotation(
                x=float(x[position]), y=float(y[position]), font={"size": 11, "color": plots.INK}, **words
            )
    return figure


def group_looks(group_of: Sequence[GroupName]) -> list[Look]:
    """One for each shot group that has classes."""
    return [
        (plots.GROUP_LABELS[name], plots.GROUP_COLORS[name], plots.GROUP_SYMBOLS[name], classes)
        for name, classes in plots.by_group(group_of)
    ]


def class_looks(classes: int) -> list[Look]:
    """One for each class while they last; further classes share them in turn."""
    colors, size = len(plots.RUN_COLORS), len(plots.RUN_COLORS) * len(CLASS_SYMBOLS)
    return [
        ("Classes", plots.RUN_COLORS[first % colors], CLASS_SYMBOLS[first // colors], np.arange(first, classes, size))
        for first in range(min(classes, size))
    ]


def _numbers(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line a configuration and split: the mean of each number over the seeds."""
    lines = []
    for row in rows:
        for name, label in {"train": "training", "test": "test"}.items():
            splits = [split for run in row.runs if run.analysis and (split := run.analysis.split(name))]
            summaries = [{**split.summary, **split.summary.get("neural_collapse", {})} for split in splits]
            values = [MeanStd.of([summary.get(key) for summary in summaries]) for key in NUMBERS]
            cells = [
                "n/a" if value is None else number(value.mean) + ("" if value.std is None else f" ± {value.std:.2f}")
                for value in values
            ]
            if splits:
                lines.append((row.label, label, f"{len(splits[0].images.label):,}", *cells))
    return lines
