"""The section on the embedding: features in two dimensions by shot group, and numbers that need no projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.columns import AnalysedSplit
from longtail.compare.seeds import MeanStd
from longtail.compare.table import Comparison, Row
from longtail.counts import GroupName
from longtail.report.plots.canvas import blank
from longtail.report.plots.figures import CROWDED, MANY_POINTS, by_group
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, INK
from longtail.report.section import Drawing, Key, Section, in_rows
from longtail.report.select import Learned, group_keys, learned_rows, said_of, seed_note, side_by_side
from longtail.text import listing, number, percent

Points = npt.NDArray[np.float32]

METHODS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
"""The projections, in the order in which they are drawn; training images are drawn by the first one only."""
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


def embedding_section(comparison: Comparison) -> Section | None:
    """Scatters of the features and a table of what needs no projection; None where no run was analysed."""
    found = learned_rows(comparison)
    if not found:
        return None
    methods = drawn_methods(found)
    drawings = _drawings(found, methods)
    legend = group_keys(found[0].run) if drawings else ()
    if drawings and len(found[0].run.counts) <= CROWDED:
        legend += (Key("ink", "circle", "Larger, outlined: mean of a class"),)
    data = {"rows": _table(comparison.final), "heads": list(NUMBERS.values()),
            "seeds": any(one.seeds > 1 for one in found)}  # fmt: skip
    sentence = _sentence(found, methods) + _small_note(found)
    layout = side_by_side(len(found))
    return Section("embedding", "Embedding", sentence, layout, legend, drawings, "embedding.html.j2", data)


def drawn_methods(found: Sequence[Learned]) -> list[str]:
    """The projections that all analysed runs have."""
    return [name for name in METHODS if all(_has_places(one.split, name).any() for one in found)]


def scatter(
    points: Points, labels: npt.NDArray[np.int32], group_of: Sequence[GroupName], reach: float, *, height: int = 420
) -> go.Figure:
    """Images in two dimensions in the colour and symbol of the group of their class, and the means of the classes.

    Args:
        points: Shape (N, 2).
        labels: Class indices, shape (N,).
        group_of: Shot group of each class, length C.
        reach: Both axes go from ``-reach`` to it.
        height: Pixels.

    Example:
        >>> figure = scatter(np.zeros((3, 2), np.float32), np.array([0, 0, 1], np.int32), ["many", "few"], 1.0)
        >>> [(trace.name, len(trace.x)) for trace in figure.data]
        [('Many-shot', 2), ('Few-shot', 1), ('Many-shot, class means', 1), ('Few-shot, class means', 1)]
    """
    figure = blank(height, left=10)
    groups = np.array(group_of)
    kind = go.Scattergl if len(points) > MANY_POINTS else go.Scatter
    shared = {"mode": "markers", "meta": "class", "hovertemplate": "%{text}<extra></extra>"}
    for name, _ in by_group(group_of):
        rows = np.flatnonzero(groups[labels] == name)
        marker = {"color": GROUP_COLORS[name], "symbol": GROUP_SYMBOLS[name], "opacity": 0.4,
                  "size": 4.5 + 1.5 * (name == "few"), "line": {"width": 0}}  # fmt: skip
        figure.add_trace(
            kind(x=points[rows, 0], y=points[rows, 1], customdata=labels[rows], name=GROUP_LABELS[name], marker=marker,
                 **shared)
        )  # fmt: skip
    if len(group_of) <= CROWDED:
        _add_means(figure, points, labels, group_of, kind, shared)
    axis = {"range": [-reach, reach], "showgrid": False, "showline": False, "showticklabels": False}
    figure.update_layout(margin={"l": 4, "r": 4, "t": 4, "b": 4})
    figure.update_xaxes(**axis)
    return figure.update_yaxes(**axis, scaleanchor="x")


def _add_means(
    figure: go.Figure, points: Points, labels: npt.NDArray[np.int32], group_of: Sequence[GroupName], kind: Any,
    shared: Mapping[str, Any],
) -> None:  # fmt: skip
    images = np.bincount(labels, minlength=len(group_of))
    sums = [np.bincount(labels, weights=points[:, axis], minlength=len(group_of)) for axis in (0, 1)]
    size = 10 if len(group_of) <= FEW_MEANS else 7
    for name, classes in by_group(group_of):
        kept = classes[images[classes] > 0]
        x, y = ((one[kept] / images[kept]).astype(np.float32) for one in sums)
        marker = {"color": GROUP_COLORS[name], "symbol": GROUP_SYMBOLS[name], "size": size + 2 * (name == "few"),
                  "line": {"color": INK, "width": 1.2}}  # fmt: skip
        figure.add_trace(
            kind(x=x, y=y, customdata=kept.astype(np.int32), name=f"{GROUP_LABELS[name]}, class means", marker=marker,
                 **shared)
        )  # fmt: skip


def _drawings(found: Sequence[Learned], methods: Sequence[str]) -> tuple[Drawing, ...]:
    """A panel for each projection and configuration, and one of its training images where they were drawn too."""
    panels = [(one, one.name, one.split, method) for method in methods for one in found]
    panels += [
        (one, "train", split, method)
        for method in methods[:1]
        for one in found
        if one.name != "train" and (split := _train(one, method))
    ]
    places = [_places(split, method) for _, _, split, method in panels]
    ends = [(panel[-1], float(np.abs(points).max())) for panel, (points, _) in zip(panels, places, strict=True)]
    reach = {method: 1.04 * max(end for other, end in ends if other == method) for method in methods}
    height = 340 if len(found) > 2 else 420
    measures: dict[tuple[bool, str], list[Drawing]] = {}
    for index, ((one, name, split, method), (points, labels)) in enumerate(zip(panels, places, strict=True)):
        said = "training" if name == "train" else name
        alt = (
            f"Scatter of {len(points):,} {said} images by {METHODS[method]} of their features under "
            f"{one.row.label}, coloured by shot group; within-class over between-class variance is "
            f"{_said(_value(split.summary, 'within_between'))}."
        )
        figure = scatter(points, labels, one.run.group_of, reach[method], height=height)
        title = f"{one.row.label}, {said} images, {METHODS[method]}"
        drawing = Drawing(f"embedding-{index}", title, alt, figure)
        measures.setdefault((name == "train", method), []).append(drawing)
    return in_rows(*measures.values())


def _train(one: Learned, method: str) -> AnalysedSplit | None:
    train = one.run.analysis.train if one.run.analysis is not None else None
    return train if train is not None and _has_places(train, method).any() else None


def _places(split: AnalysedSplit, method: str) -> tuple[Points, npt.NDArray[np.int32]]:
    """Drawn images around their mean, in units of their own mean distance, so that panels can be compared."""
    images, kept = split.images, _has_places(split, method)
    points = np.stack([getattr(images, f"{method}_x"), getattr(images, f"{method}_y")], axis=1)[kept]
    points = points - points.mean(axis=0)
    size = float(np.sqrt((points**2).sum(axis=1).mean()))
    return (points / (size or 1.0)).astype(np.float32), images.label[kept]


def _has_places(split: AnalysedSplit, method: str) -> npt.NDArray[np.bool_]:
    place: Points = getattr(split.images, f"{method}_x")
    return np.isfinite(place)


def _table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line a configuration and split: the mean of each number over the seeds."""
    lines = []
    for row in rows:
        for name in ("train", "test"):
            known = [split for run in row.runs if run.analysis and (split := run.analysis.split(name))]
            if not known:
                continue
            cells = [_cell(MeanStd.of([_value(split.summary, key) for split in known])) for key in NUMBERS]
            lines.append({"label": row.label, "split": "training" if name == "train" else name, "cells": cells,
                          "images": len(known[0].images.label)})  # fmt: skip
    return lines


def _cell(value: MeanStd | None) -> str:
    if value is None:
        return "n/a"
    return number(value.mean) + ("" if value.std is None else f" ± {value.std:.2f}")


def _value(summary: Mapping[str, Any], key: str) -> float | None:
    found = {**summary, **summary.get("neural_collapse", {})}.get(key)
    return None if found is None else float(found)


def _said(value: float | None) -> str:
    return "n/a" if value is None else number(value)


def _sentence(found: Sequence[Learned], methods: Sequence[str]) -> str:
    text = ""
    if methods:
        drawn = int(_has_places(found[0].split, methods[0]).sum())
        total = len(found[0].split.images.label)
        which = f"{drawn:,} of {total:,}" if drawn < total else f"{total:,}"
        text = f"Features of {which} {found[0].name} images by {listing([METHODS[name] for name in methods])}. "
    near = [METHODS[name] for name in methods if name != "pca"]
    if near:
        keep = "keeps" if len(near) == 1 else "keep"
        text += f"{listing(near)} {keep} who is near to whom: the size of a cloud and the space between mean nothing. "
    if "pca" in methods:
        text += f"The two axes of PCA hold {listing([_explained(one) for one in said_of(found)])} of the variance. "
    return text + _description(said_of(found)) + seed_note(one.seeds for one in found)


def _explained(one: Learned) -> str:
    shares = one.split.summary.get("explained_variance") or [float("nan")]
    return f"{percent(sum(shares), 0)} under {one.row.label}"


def _description(found: Sequence[Learned]) -> str:
    """The ratio of variances, without a verdict: it is one number a run, and nothing says how far it may be off."""
    known = [(one.row.label, value) for one in found
             if (value := _value(one.split.summary, "within_between")) is not None]  # fmt: skip
    if not known:
        return "Classes with two images are too few to measure how they scatter."
    said = listing([f"{number(value)} under {label}" for label, value in known])
    text = f"On {found[0].name} images the variance within classes, by that between them, is {said}"
    if len(known) > 1:
        text += "; that describes these runs, and the next section compares them class by class"
    return f"{text}."


def _small_note(found: Sequence[Learned]) -> str:
    """What few images of a class do to the measures that nothing corrects for."""
    small = max(int(((one.split.classes.images > 0) & (one.split.classes.images < SMALL)).sum()) for one in found)
    if not small:
        return ""
    have = "class has" if small == 1 else "classes have"
    return (
        f" {small:,} {have} fewer than {SMALL} {found[0].name} images: means of so few lie too far apart. Within / "
        "between allows for that; NC1 comes out too low, and the other measures of class means are blurred."
    )
