"""The toy as a picture: each loss a disc, the regions that classes get in it, and where the test images end up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from longtail.compare.differences import difference_text
from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.counts import GROUP_NAMES, ClassCounts, GroupName
from longtail.evaluation.significance import ENOUGH_SEEDS, Difference, images_interval
from longtail.files import output_path, write_atomically
from longtail.formatting import listing, percent
from longtail.report.page import environment
from longtail.report.plots import GROUND, GROUP_LABELS, GROUP_SYMBOLS, INK, MUTED, RULE, THEME, blank, clip
from longtail.report.section import Drawing, Key
from toy.plane import Plane, group_mean, region_shares, regions, upright
from toy.train import ToyResult

HUES: dict[GroupName, tuple[str, str]] = {
    "many": ("many", "run5"),
    "medium": ("medium", "run4"),
    "few": ("few", "run3"),
}
"""Two colors a group: blues for large classes, greens for those between, reds for small ones."""
REACH = 1.16
"""The axes end here; the disc has radius 1, and the ticks of the classifier stand around it."""
COLUMNS, PANEL = 3, 330
BASELINE, ON_COSINES = "ce", "ce-cosine"


def toy_table(result: ToyResult) -> dict[str, dict[str, MeanStd]]:
    """Accuracy by group and the share of the disc that the small classes get, over seeds, by the name of the loss."""
    table = {}
    for name, planes in result.planes.items():
        rows: dict[str, list[float | None]] = {key: [] for key in (*GROUP_NAMES, "area")}
        for plane in planes:
            for key, value in _figures(plane, result.counts).items():
                rows[key].append(value)
        table[name] = {key: spread for key, values in rows.items() if (spread := MeanStd.of(values))}
    return table


def _figures(plane: Plane, counts: ClassCounts) -> dict[str, float]:
    accuracy: dict[str, float] = {group: group_mean(plane.recalls, counts, group) for group in GROUP_NAMES}
    shares = region_shares(upright(plane, counts))
    return accuracy | {"area": float(shares[counts.groups(by="thirds")["few"]].sum())}


def toy_drawings(result: ToyResult) -> list[Drawing]:
    """One drawing for each loss, of the first seed, all with the same axes."""
    table = toy_table(result)
    return [
        Drawing(f"toy-{name}", result.titles[name], _alt(result, name, table[name]), _panel(result, name, table[name]))
        for name in result.planes
    ]


def toy_picture(result: ToyResult) -> Drawing:
    """All of them in one figure, for a paper or a README."""
    table, names = toy_table(result), list(result.planes)
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    titles = [f"<b>{clip(result.titles[name], 40)}</b>" for name in names]
    figure = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.02, vertical_spacing=0.22 / rows)
    figure.update_layout(template=blank(PANEL, left=0).layout.template, height=rows * (PANEL + 70), showlegend=False)
    for index, name in enumerate(names):
        _draw(figure, result, name, table[name], index // columns + 1, index % columns + 1)
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 14})
    figure.update_layout(margin={"l": 4, "r": 4, "t": 28, "b": 50})
    return Drawing("toy", "", " ".join(toy_sentences(result)), figure)


def toy_legend(result: ToyResult) -> tuple[Key, ...]:
    """The classes, from the largest to the smallest."""
    counts = result.counts
    return tuple(
        Key(color, GROUP_SYMBOLS[group], f"{counts.names[index]}: {counts[index]:,} training images")
        for index, (color, group) in sorted(_looks(counts).items(), key=lambda item: -counts[item[0]])
    )


def _looks(counts: ClassCounts) -> dict[int, tuple[str, GroupName]]:
    """The color variable and the group of each class."""
    groups = counts.groups(by="thirds")
    looks: dict[int, tuple[str, GroupName]] = {}
    for group, members in groups.items():
        ordered = sorted(members.tolist(), key=lambda index: -counts[index])
        looks |= {index: (HUES[group][rank % 2], group) for rank, index in enumerate(ordered)}
    return looks


def _panel(result: ToyResult, name: str, numbers: Mapping[str, MeanStd]) -> go.Figure:
    figure = make_subplots(1, 1)
    figure.update_layout(template=blank(PANEL, left=0).layout.template, height=PANEL + 50, showlegend=False)
    _draw(figure, result, name, numbers, 1, 1)
    return figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 46})


def _draw(figure: go.Figure, result: ToyResult, name: str, numbers: Mapping[str, MeanStd], row: int, col: int) -> None:
    plane, counts = upright(result.planes[name][0], result.counts), result.counts
    looks = {index: (THEME[color][0], group) for index, (color, group) in _looks(counts).items()}
    for index, corners in enumerate(regions(plane)):
        figure.add_trace(_region(corners, looks[index][0]), row, col)
    for index, (color, group) in looks.items():
        points = plane.features[plane.labels == index].astype(np.float32)
        marker = {"color": color, "size": 5.5, "symbol": GROUP_SYMBOLS[group], "line": {"color": GROUND, "width": 0.4}}
        label = f"{clip(counts.names[index])}<br>{counts[index]:,} training images<extra></extra>"
        cloud = go.Scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="markers",
            marker=marker,
            hovertemplate=label,
            name=clip(counts.names[index]),
            opacity=0.85,
        )
        figure.add_trace(cloud, row, col)
    for index, (color, _) in looks.items():
        figure.add_trace(_weight(plane.weight[index], color), row, col)
    figure.add_trace(_means(plane, counts, [color for _, (color, _) in sorted(looks.items())]), row, col)
    axis = {"range": [-REACH, REACH], "visible": False, "fixedrange": True}
    figure.update_xaxes(**axis, row=row, col=col)
    subplot = figure.get_subplot(row, col)
    figure.update_yaxes(**axis, scaleanchor=subplot.yaxis.anchor, row=row, col=col)
    text = (
        f"many-shot <b>{mean_std_text(numbers['many'])}</b>, few-shot <b>{mean_std_text(numbers['few'])}</b>% right"
        f"<br>few-shot regions: <b>{mean_std_text(numbers['area'])}</b>% of the disc"
    )
    figure.add_annotation(
        text=text, x=0, y=-REACH, yanchor="top", showarrow=False, font={"size": 12, "color": MUTED}, row=row, col=col
    )


def _region(corners: np.ndarray[tuple[int, ...], np.dtype[np.float64]], color: str) -> go.Scatter:
    """A region in a muted tone of its class; its edge is the decision boundary."""
    closed = np.vstack([corners, corners[:1]]) if len(corners) else np.full((1, 2), np.nan)
    return go.Scatter(
        x=closed[:, 0].astype(np.float32),
        y=closed[:, 1].astype(np.float32),
        mode="lines",
        fill="toself",
        fillcolor=color,
        opacity=0.22,
        line={"color": RULE, "width": 0},
        hoverinfo="skip",
    )


def _weight(weight: np.ndarray[tuple[int, ...], np.dtype[np.float64]], color: str) -> go.Scatter:
    """A tick on the rim in the direction of a class's weight."""
    direction = weight / max(float(np.linalg.norm(weight)), 1e-12)
    points = np.stack([1.01 * direction, 1.1 * direction]).astype(np.float32)
    line = {"color": color, "width": 5}
    return go.Scatter(x=points[:, 0], y=points[:, 1], mode="lines", line=line, hoverinfo="skip")


def _means(plane: Plane, counts: ClassCounts, colors: Sequence[str]) -> go.Scatter:
    """The mean of each class, with its name in it."""
    means = plane.means.astype(np.float32)
    marker = {"size": 19, "color": GROUND, "line": {"color": list(colors), "width": 2.2}}
    return go.Scatter(
        x=means[:, 0],
        y=means[:, 1],
        mode="markers+text",
        marker=marker,
        text=[clip(name, 3) for name in counts.names],
        textfont={"size": 12, "color": INK},
        hoverinfo="skip",
    )


def _alt(result: ToyResult, name: str, numbers: Mapping[str, MeanStd]) -> str:
    shares = region_shares(upright(result.planes[name][0], result.counts))
    parts = [f"{label} {percent(float(share))}" for label, share in zip(result.counts.names, shares, strict=True)]
    groups = [f"{GROUP_LABELS[group].lower()} {mean_std_text(numbers[group])}%" for group in GROUP_NAMES]
    return (
        f"A disc of decision regions with the features of the test images under {result.titles[name]}. Share of the "
        f"disc by class: {', '.join(parts)}. Accuracy: {', '.join(groups)}."
    )


def toy_sentences(result: ToyResult) -> list[str]:
    """Compare the losses with plain cross-entropy, also on the same classifier, one measure a sentence."""
    others = [name for name in result.planes if name != BASELINE]
    cosine = [name for name, planes in result.planes.items() if planes[0].is_cosine and name != ON_COSINES]
    plain, same = "plain cross-entropy", "cross-entropy on the same cosine classifier"
    sentences = [
        _against(result, BASELINE, others, "area", f"Area of the few-shot regions, against {plain}"),
        _against(result, BASELINE, others, "few", f"Few-shot accuracy, against {plain}"),
        _against(result, BASELINE, others, "many", f"Many-shot accuracy, against {plain}"),
        _against(result, ON_COSINES, cosine, "area", f"Area of the few-shot regions, against {same}"),
        _against(result, ON_COSINES, cosine, "few", f"Few-shot accuracy, against {same}"),
    ]
    seeds = len(next(iter(result.planes.values())))
    if seeds < ENOUGH_SEEDS and any(sentences):
        number = "This is one seed" if seeds == 1 else f"These are {seeds} seeds"
        sentences.append(f"{number}: intervals are over the test images, and another seed may reverse a difference.")
    return [text for text in sentences if text]


def _against(result: ToyResult, baseline: str, names: Sequence[str], key: str, measure: str) -> str:
    if baseline not in result.planes or not names:
        return ""
    base = [_figures(plane, result.counts)[key] for plane in result.planes[baseline]]
    parts = []
    for name in names:
        values = [_figures(plane, result.counts)[key] for plane in result.planes[name]]
        images = None if key == "area" else _images_interval(result, name, baseline, key)
        gap = Difference.of([mine - other for mine, other in zip(values, base, strict=True)], images)
        parts.append(f"{result.titles[name]} {difference_text(gap)}")
    return f"{measure}: {'; '.join(parts)}."


def _images_interval(result: ToyResult, name: str, baseline: str, group: str) -> tuple[float, float] | None:
    """The interval over the test images of a group, which are the same for every loss and seed."""
    first = result.planes[name][0]
    in_group = np.isin(first.labels, result.counts.groups(by="thirds")[cast("GroupName", group)])
    label = first.labels[in_group]
    right = [
        [plane.predict(plane.features[in_group]) == label for plane in result.planes[loss]] for loss in (name, baseline)
    ]
    return images_interval(right[0], right[1], label)


def toy_lead(result: ToyResult) -> str:
    """Describe the training in a sentence."""
    counts, seeds = result.counts, len(next(iter(result.planes.values())))
    images = listing([f"{count:,}" for count in counts])
    return (
        f"One small network with two features, trained on {images} images of the digits {listing(list(counts.names))} "
        "with one loss after another: the same images, initial weights and batches, "
        f"{result.epochs} epochs{f', {seeds} seeds' if seeds > 1 else ''}."
    )


def write_toy(result: ToyResult, out: str | Path) -> Path:
    """Write the toy as one self-contained page.

    Args:
        result: From :func:`toy.train.train_toy`.
        out: The HTML file; its folder is made, and the file appears complete or not at all.

    Raises:
        LongtailError: The file cannot be written.
    """
    target = output_path(out)
    write_atomically(target, render_toy(result).encode())
    return target


def render_toy(result: ToyResult) -> str:
    """The page as text."""
    page = environment(Path(__file__).parent).get_template("toy.html.j2")
    return page.render(
        lead=toy_lead(result),
        sentences=toy_sentences(result),
        drawings=toy_drawings(result),
        legend=toy_legend(result),
        table=toy_table(result),
        titles=result.titles,
        seeds=len(next(iter(result.planes.values()))),
        recolor={light: f"--{name}" for name, (light, _) in THEME.items()},
        plotly=get_plotlyjs(),
    )
