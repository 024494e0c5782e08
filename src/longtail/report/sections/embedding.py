"""The section on the embedding: features in two dimensions, and numbers that need no projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.columns import AnalyzedSplit
from longtail.compare.seeds import MeanStd
from longtail.compare.table import Comparison, Row
from longtail.counts import ClassCounts, GroupName
from longtail.formatting import listing, number, percent
from longtail.report.configurations import FirstRun, analyzed_splits, group_keys, named, seed_note, side_by_side
from longtail.report.plots import (
    CROWDED,
    GROUP_COLORS,
    GROUP_LABELS,
    GROUP_SYMBOLS,
    INK,
    MANY_POINTS,
    RUN_COLORS,
    blank,
    by_group,
    clip,
)
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


Analyzed = FirstRun[AnalyzedSplit]


@dataclass(frozen=True)
class Panel:
    """A figure: the images of a split of a run by one projection, colored by shot group or by class."""

    each: Analyzed
    method: str
    by_class: bool = False

    @property
    def title(self) -> str:
        """What stands above it."""
        images = "training" if self.each.split == "train" else self.each.split
        color = ", by class" if self.by_class else ""
        return f"{self.each.label}, {images} images, {METHODS[self.method]}{color}"


def build(comparison: Comparison) -> Section | None:
    """Draw the features, and list what needs no projection; None where no run was analyzed."""
    shown = analyzed_splits(comparison)
    if not shown:
        return None
    methods = [name for name in METHODS if all(_is_drawn(each.content, name).any() for each in shown)]
    drawings = _drawings(shown, methods)
    first = shown[0]
    legend = group_keys(first.run) if drawings else ()
    if drawings and len(first.run.counts) <= CROWDED:
        legend += (Key("ink", "circle", "Larger, outlined: mean of a class"),)
    sentence = ""
    if methods:
        drawn, total = int(_is_drawn(first.content, methods[0]).sum()), len(first.content.images.label)
        which = f"{drawn:,} of {total:,}" if drawn < total else f"{total:,}"
        sentence = (
            f"Features of {which} {first.split} images. t-SNE and UMAP keep who is near to whom: the size of a cloud "
            "and the space between mean nothing. By class, colors and symbols repeat where there are many. "
        )
    if "pca" in methods:
        shares = [f"{_explained(each.content)} under {each.label}" for each in named(shown, lambda each: each.row)]
        sentence += f"The two axes of PCA hold {listing(shares)} of the variance. "
    sentence += _small_note(shown) + seed_note(each.seeds for each in shown)
    seeds = ", the mean over seeds" if any(each.seeds > 1 for each in shown) else ""
    caption = (
        f"What does not depend on a projection{seeds}. Under a cosine classifier, features count by their direction. "
        "Each is one number a run, and nothing says how far it may be off."
    )
    heads = ("Configuration", "Split", "Images", *NUMBERS.values())
    table = Table(caption, heads, tuple(_numbers(comparison.final)), labels=2, folded="")
    return Section("embedding", "Embedding", sentence.strip(), side_by_side(len(shown)), legend, drawings, table=table)


def scatter(
    points: Points,
    labels: Labels,
    counts: ClassCounts,
    group_of: Sequence[GroupName],
    reach: float,
    *,
    by_class: bool = False,
    height: int = 420,
) -> go.Figure:
    """Images in two dimensions in the color and symbol of the group of their class or of the class, and class means.

    Args:
        points: Shape (N, 2).
        labels: Class indices, shape (N,).
        counts: Has the names of the classes.
        group_of: Shot group of each class, length C.
        reach: Both axes go from ``-reach`` to it.
        by_class: A color and symbol for each class, as far as they go, in place of those of its group.
        height: Pixels.

    Example:
        >>> points, labels, counts = np.zeros((3, 2), np.float32), np.array([0, 0, 1], np.int32), ClassCounts([90, 5])
        >>> figure = scatter(points, labels, counts, ["many", "few"], 1.0)
        >>> [(trace.name, len(trace.x)) for trace in figure.data]
        [('Many-shot', 2), ('Few-shot', 1), ('Many-shot, class means', 1), ('Few-shot, class means', 1)]
    """
    figure = blank(height, left=10)
    kind = go.Scattergl if len(points) > MANY_POINTS else go.Scatter
    shared = {"mode": "markers", "meta": "class", "hovertemplate": "%{text}<extra></extra>"}
    looks = _class_looks(len(counts)) if by_class else _group_looks(group_of)
    for name, color, symbol, classes in looks:
        kept = np.isin(labels, classes)
        marker = {"color": color, "symbol": symbol, "opacity": 0.4, "line": {"width": 0}}
        marker["size"] = 6 if symbol == "triangle-up" else 4.5
        x, y = points[kept].T
        if kept.any():
            figure.add_trace(kind(x=x, y=y, customdata=labels[kept], name=name, marker=marker, **shared))
    if len(counts) <= CROWDED:
        images = np.bincount(labels, minlength=len(counts))
        sums = [np.bincount(labels, weights=points[:, axis], minlength=len(counts)) for axis in (0, 1)]
        size = 10 if len(counts) <= FEW_MEANS else 7
        for name, color, symbol, classes in looks:
            seen = classes[images[classes] > 0]
            x, y = ((part[seen] / images[seen]).astype(np.float32) for part in sums)
            marker = {"color": color, "symbol": symbol, "size": size, "line": {"color": INK, "width": 1.2}}
            options = {"customdata": seen.astype(np.int32), "name": f"{name}, class means", "marker": marker}
            figure.add_trace(kind(x=x, y=y, **options, **shared))
            for place, index in enumerate(seen if by_class and len(counts) <= NAMED else ()):
                words = {"text": clip(counts.names[index], 16), "showarrow": False, "yshift": 12}
                figure.add_annotation(x=float(x[place]), y=float(y[place]), font={"size": 11, "color": INK}, **words)
    axis = {"range": [-reach, reach], "showgrid": False, "showline": False, "showticklabels": False}
    figure.update_layout(margin={"l": 4, "r": 4, "t": 4, "b": 4})
    figure.update_xaxes(**axis)
    return figure.update_yaxes(**axis, scaleanchor="x")


Look = tuple[str, str, str, npt.NDArray[np.int64]]
"""A name, a color, a symbol, and the classes that are drawn in them."""


def _group_looks(group_of: Sequence[GroupName]) -> list[Look]:
    return [
        (GROUP_LABELS[name], GROUP_COLORS[name], GROUP_SYMBOLS[name], classes) for name, classes in by_group(group_of)
    ]


def _class_looks(classes: int) -> list[Look]:
    """One for each class while they last; further classes share them in turn."""
    colors, size = len(RUN_COLORS), len(RUN_COLORS) * len(CLASS_SYMBOLS)
    return [
        ("Classes", RUN_COLORS[first % colors], CLASS_SYMBOLS[first // colors], np.arange(first, classes, size))
        for first in range(min(classes, size))
    ]


def _drawings(shown: Sequence[Analyzed], methods: Sequence[str]) -> tuple[Drawing, ...]:
    """A row of panels for each projection, one by class, and one of training images where they were drawn too."""
    rows = [[Panel(each, method) for each in shown] for method in methods]
    for method in methods[:1]:
        rows.append([Panel(each, method, by_class=True) for each in shown])
        rows.append([Panel(each, method) for each in _trained(shown) if _is_drawn(each.content, method).any()])
    places = [[(panel, *_places(panel.each.content, panel.method)) for panel in row] for row in rows]
    reach = dict.fromkeys(methods, 0.0)
    for panel, points, _ in chain.from_iterable(places):
        reach[panel.method] = max(reach[panel.method], 1.04 * float(np.abs(points).max()))
    first, measures = 0, []
    for row in places:
        drawings = []
        for place, (panel, points, labels) in enumerate(row, start=first):
            figure = scatter(
                points,
                labels,
                panel.each.run.counts,
                panel.each.run.group_of,
                reach[panel.method],
                by_class=panel.by_class,
                height=340 if len(shown) > 2 else 420,
            )
            ratio = _value(panel.each.content.summary, "within_between")
            alt = (
                f"Scatter of {len(points):,} images, {panel.title}, colored by "
                f"{'class' if panel.by_class else 'shot group'}; within-class over between-class variance is "
                f"{'n/a' if ratio is None else number(ratio)}."
            )
            drawings.append(Drawing(f"embedding-{place}", panel.title, alt, figure))
        first += len(row)
        measures.append(drawings)
    return in_rows(*measures)


def _trained(shown: Sequence[Analyzed]) -> list[Analyzed]:
    """The training images of the same runs, where those of another split are drawn first."""
    return [
        replace(each, content=each.run.analysis.train, split="train")
        for each in shown
        if each.split != "train" and each.run.analysis is not None and each.run.analysis.train is not None
    ]


def _places(split: AnalyzedSplit, method: str) -> tuple[Points, Labels]:
    """Drawn images around their mean, in units of their own mean distance, so that panels can be compared."""
    images, drawn = split.images, _is_drawn(split, method)
    points = np.stack([getattr(images, f"{method}_x"), getattr(images, f"{method}_y")], axis=1)[drawn]
    points = points - points.mean(axis=0)
    size = float(np.sqrt((points**2).sum(axis=1).mean()))
    return (points / (size or 1.0)).astype(np.float32), images.label[drawn]


def _is_drawn(split: AnalyzedSplit, method: str) -> npt.NDArray[np.bool_]:
    place: Points = getattr(split.images, f"{method}_x")
    return np.isfinite(place)


def _numbers(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line a configuration and split: the mean of each number over the seeds."""
    lines = []
    for row in rows:
        for name in ("train", "test"):
            splits = [split for run in row.runs if run.analysis and (split := run.analysis.split(name))]
            if not splits:
                continue
            values = [MeanStd.of([_value(split.summary, key) for split in splits]) for key in NUMBERS]
            cells = ["n/a" if value is None else number(value.mean) for value in values]
            cells = [
                cell if value is None or value.std is None else f"{cell} ± {value.std:.2f}"
                for cell, value in zip(cells, values, strict=True)
            ]
            images = f"{len(splits[0].images.label):,}"
            lines.append((row.label, "training" if name == "train" else name, images, *cells))
    return lines


def _value(summary: Mapping[str, Any], key: str) -> float | None:
    value = {**summary, **summary.get("neural_collapse", {})}.get(key)
    return None if value is None else float(value)


def _explained(images: AnalyzedSplit) -> str:
    return percent(sum(images.summary.get("explained_variance") or [float("nan")]), 0)


def _small_note(shown: Sequence[Analyzed]) -> str:
    """What few images of a class do to the measures that nothing corrects for."""
    images = [each.content.classes.images for each in shown]
    small = max(int(((count > 0) & (count < SMALL)).sum()) for count in images)
    if not small:
        return ""
    have = "class has" if small == 1 else "classes have"
    return (
        f"{small:,} {have} fewer than {SMALL} images: means of so few lie too far apart. Within / between allows for "
        "that; NC1 comes out too low, and the other measures of class means are blurred."
    )
