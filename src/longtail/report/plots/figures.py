"""The figures of the report: pure functions from counts, recalls and histories to plotly figures.

Colours are those of the light theme; the page exchanges them for the reader's. Every trace of classes carries the class
indices in ``customdata`` and ``meta="class"``: the page writes what it says of a class from its own table, and finds a
class again in each figure. With ``meta="class:1"`` it adds the accuracy under the second configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.counts import GROUP_NAMES, ClassCounts, GroupName
from longtail.report.plots.canvas import blank, clip
from longtail.report.plots.palette import GROUND, GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, INK, RULE
from longtail.run.result import Ends

MANY_POINTS = 2_000
"""Above this number of classes points are drawn by WebGL and bars become one filled line a group."""
CROWDED = 400
"""Above this number of classes points are smaller and bars touch."""
WIDE_DECADES = 2.2
"""A wider count axis has ticks at powers of ten only."""
FEW_POINTS = 12
"""With fewer classes than this a smoothed mean would only join the points."""
WEIGHT_FLOOR = 0.01
JITTER = 0.02
"""How far a point may be drawn from its height in a crowded figure."""
TREND = "smoothed mean"
NAMED_BARS = 12
"""Up to this number of classes the histogram writes their names under the bars."""


def class_histogram(counts: ClassCounts, group_of: Sequence[GroupName], *, run: int | None = None) -> go.Figure:
    """Training images per class, largest class first, coloured by shot group.

    Args:
        counts: Training images per class, shape (C,).
        group_of: Shot group of each class, length C.
        run: The place in the class table of a configuration with these counts, where they are not those of the first.

    Example:
        >>> figure = class_histogram(ClassCounts([300, 50, 5]), ["many", "medium", "few"])
        >>> [trace.name for trace in figure.data]
        ['Many-shot', 'Medium-shot', 'Few-shot']
    """
    order = np.argsort(-counts.array, kind="stable")
    figure = blank(300, left=48)
    for group, rank in by_group([group_of[index] for index in order]):
        classes = order[rank]
        options = {
            "x": rank.astype(np.int32),
            "y": counts.array[classes],
            "name": GROUP_LABELS[group],
            "customdata": classes.astype(np.int32),
            "meta": "class" if run is None else f"class:{run}",
            "hovertemplate": "%{text}<extra></extra>",
        }
        colour = GROUP_COLORS[group]
        if len(counts) > MANY_POINTS:
            figure.add_scatter(
                **options, mode="lines", line={"color": colour, "width": 1, "shape": "hv"}, fill="tozeroy"
            )
        else:
            figure.add_bar(**options, marker={"color": colour, "line": {"width": 0}}, textposition="none")
    named = len(counts) <= NAMED_BARS
    margin = {"b": 34 if named else 30}
    figure.update_layout(bargap=0.18 if len(counts) <= CROWDED else 0, barmode="overlay", margin=margin)
    figure.update_xaxes(
        title=None if named else "Classes, from the largest to the smallest",
        range=[-0.75, len(counts) - 0.25],
        showticklabels=named,
        tickvals=list(range(len(counts))) if named else [],
        ticktext=[clip(counts.names[index], 14) for index in order] if named else [],
    )
    figure.update_yaxes(title="Training images", rangemode="tozero", nticks=6, tickformat=",")
    return figure


def class_accuracy(
    counts: ClassCounts,
    group_of: Sequence[GroupName],
    recalls: npt.NDArray[np.float64],
    *,
    height: int = 320,
    run: int = 0,
) -> go.Figure:
    """Accuracy of each class against its number of training images (logarithmic), with a smoothed mean.

    Args:
        counts: Training images per class, shape (C,).
        group_of: Shot group of each class, length C.
        recalls: Recall per class in [0, 1], shape (C,); NaN for a class that was not tested, which is left out.
        height: Pixels.
        run: Whose accuracy with its interval the page writes where one points at a class: the place of the
            configuration in the class table.

    Example:
        >>> figure = class_accuracy(ClassCounts([300, 5]), ["many", "few"], np.array([0.9, np.nan]))
        >>> [len(trace.x) for trace in figure.data]
        [1]
    """
    figure = blank(height, left=52)
    places = np.where(counts.array > 0, counts.array, 0.5)
    crowded = len(counts) > CROWDED
    # Thousands of classes with three test images each share four heights: shifted a little, they show how many.
    heights = recalls
    if crowded:
        heights = (recalls + np.random.default_rng(0).uniform(-JITTER, JITTER, len(counts))).astype(np.float32)
    for group, classes in by_group(group_of):
        kept = classes[~np.isnan(recalls[classes])]
        if not kept.size:
            continue
        figure.add_trace(
            (go.Scattergl if len(counts) > MANY_POINTS else go.Scatter)(
                x=places[kept],
                y=heights[kept],
                mode="markers",
                name=GROUP_LABELS[group],
                marker=class_marker(group, len(counts)),
                customdata=kept.astype(np.int32),
                meta=f"class:{run}",
                hovertemplate="%{text}<extra></extra>",
            )
        )
    _add_trend(figure, places, recalls)
    count_axis(figure, places)
    figure.update_yaxes(title="Accuracy", range=[-0.03, 1.03], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure


def group_bars(
    labels: Sequence[str], values: Sequence[MeanStd | None], colour: str, ends: Sequence[Ends | None] | None = None
) -> go.Figure:
    """One bar per configuration on a common scale from 0 to 100%, name and value written above it.

    Args:
        labels: Name of each configuration.
        values: Its figure in [0, 1] with the deviation over seeds, None for "n/a".
        colour: Fill of the bars.
        ends: The 95% interval of each, drawn where there is no deviation over seeds.

    Example:
        >>> len(group_bars(["ce", "gcl"], [MeanStd(0.4, None, 1), None], INK).layout.annotations)
        4
    """
    figure = blank(50 * len(labels) + 4, left=2)
    places = [-index for index in range(len(labels))]
    means = [value.mean if value else 0.0 for value in values]
    shared = {"y": places, "orientation": "h", "width": 0.2}
    figure.add_bar(x=[1.0] * len(labels), marker={"color": RULE}, opacity=0.55, hoverinfo="skip", **shared)
    figure.add_bar(
        x=means,
        marker={"color": colour},
        text=[f"{clip(label)}: {mean_std_text(value)}" for label, value in zip(labels, values, strict=True)],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        **shared,
    )
    known = [
        (value.mean, reach, place)
        for value, pair, place in zip(values, ends or [None] * len(values), places, strict=True)
        if value and (reach := _reach(value, pair))
    ]
    if known:
        whisker = {
            "symmetric": False, "arrayminus": [reach[0] for _, reach, _ in known],
            "array": [reach[1] for _, reach, _ in known], "color": INK, "thickness": 1.2, "width": 3,
        }  # fmt: skip
        x, y = [mean for mean, _, _ in known], [place for _, _, place in known]
        figure.add_scatter(x=x, y=y, mode="markers", marker={"opacity": 0}, error_x=whisker, hoverinfo="skip")
    for label, value, place in zip(labels, values, places, strict=True):
        text = {"y": place, "yshift": 15, "showarrow": False, "font": {"size": 13}}
        figure.add_annotation(x=0, xanchor="left", xshift=-2, text=clip(label, 26), **text)
        figure.add_annotation(x=1, xanchor="right", xshift=2, text=f"<b>{mean_std_text(value)}</b>", **text)
    figure.update_layout(barmode="overlay", margin={"t": 0, "r": 2, "b": 4})
    figure.update_xaxes(visible=False, range=[0, 1], fixedrange=True)
    figure.update_yaxes(visible=False, range=[places[-1] - 0.3, 0.7], fixedrange=True)
    return figure


def _reach(value: MeanStd, ends: Ends | None) -> Ends | None:
    """How far a whisker goes down and up: the deviation over seeds, else the interval."""
    if value.std is not None:
        return value.std, value.std
    return None if ends is None else (max(value.mean - ends[0], 0.0), max(ends[1] - value.mean, 0.0))


def class_marker(group: GroupName, classes: int) -> dict[str, object]:
    """How the point of a class looks among so many: smaller and paler where they crowd.

    Example:
        >>> class_marker("few", 100)["symbol"], class_marker("few", 100)["size"], class_marker("few", 8142)["size"]
        ('triangle-up', 10.5, 6.5)
    """
    crowded = classes > CROWDED
    return {
        "color": GROUP_COLORS[group],
        "symbol": GROUP_SYMBOLS[group],
        "size": (5 if crowded else 9) + 1.5 * (group == "few"),  # a triangle of the same width has less area
        "opacity": 0.45 if crowded else 0.85,
        "line": {"color": GROUND, "width": 0 if crowded else 0.8},
    }


def _add_trend(figure: go.Figure, places: npt.NDArray[np.float64], recalls: npt.NDArray[np.float64]) -> None:
    """Draw the mean over classes weighted by nearness in the logarithm of size (Nadaraya-Watson, Gaussian)."""
    known = np.flatnonzero(~np.isnan(recalls))
    sizes = np.log10(places[known])
    if known.size < FEW_POINTS or np.ptp(sizes) == 0:
        return
    grid = np.linspace(sizes.min(), sizes.max(), 48)
    weight = np.exp(-0.5 * ((grid[:, None] - sizes) / (0.07 * np.ptp(sizes))) ** 2)
    level = (weight @ recalls[known]) / np.maximum(weight.sum(axis=1), 1e-12)
    # Far from every class (a step profile) the weights vanish and a mean would be invented: the line breaks there.
    level[weight.max(axis=1) < WEIGHT_FLOOR] = np.nan
    line = {"color": INK, "width": 1.8}
    figure.add_scatter(x=10**grid, y=level, mode="lines", line=line, name=TREND, hoverinfo="skip")


def count_axis(figure: go.Figure, places: npt.NDArray[np.float64]) -> None:
    """Make the horizontal axis one of training images, logarithmic, for points at ``places``; 0.5 stands for none."""
    low, high = np.log10(places.min()), np.log10(places.max())
    steps = (1, 2, 5) if high - low <= WIDE_DECADES else (1,)
    ticks = [step * 10**power for power in range(8) for step in steps]
    shown = [tick for tick in ticks if places.min() * 0.8 <= tick <= places.max() * 1.25]
    zero = [0.5] if places.min() < 1 else []
    pad = max(0.06, 0.04 * (high - low))
    figure.update_xaxes(
        title="Training images (logarithmic)",
        type="log",
        range=[low - pad, high + pad],
        tickvals=zero + shown,
        ticktext=["0"] * len(zero) + [f"{tick:,}" for tick in shown],
    )


def by_group(group_of: Sequence[GroupName]) -> list[tuple[GroupName, npt.NDArray[np.int64]]]:
    """Groups that have members, with the positions of these."""
    groups = np.array(group_of)
    return [(name, np.flatnonzero(groups == name)) for name in GROUP_NAMES if name in group_of]
