"""The drawing tools of all figures: the palette, axes, points of classes, lines and bars.

Colors come in light and dark, apart for color-blind readers and legible on their ground. An empty figure has no frame,
a hairline grid and a transparent ground.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.counts import GROUP_NAMES, ClassCounts, FloatArray, GroupName

THEME: dict[str, tuple[str, str]] = {
    "ground": ("#fdfcfa", "#15171a"),
    "raised": ("#f4f2ee", "#1e2125"),
    "ink": ("#1d2024", "#ebe8e2"),
    "muted": ("#5d636b", "#a3a8ae"),
    "rule": ("#dedbd5", "#34383d"),
    "many": ("#28609e", "#7aa7f5"),
    "medium": ("#2f968c", "#5fdcc4"),
    "few": ("#bf4514", "#ff9161"),
    "run0": ("#6a7079", "#9ba1a9"),
    "run1": ("#6f2c87", "#b865b6"),
    "run2": ("#ad7e03", "#e6c34c"),
    "run3": ("#a11c55", "#be5175"),
    "run4": ("#679246", "#a1d583"),
    "run5": ("#1091ba", "#1ac8ed"),
    "run6": ("#7d3f2f", "#bf9680"),
    "run7": ("#1d2025", "#ebe8e3"),
}
"""CSS variable name to (light, dark). Every light value occurs once, so a figure can be recolored by it."""

GROUP_COLORS: dict[GroupName, str] = {"many": THEME["many"][0], "medium": THEME["medium"][0], "few": THEME["few"][0]}
GROUP_SYMBOLS: dict[GroupName, str] = {"many": "circle", "medium": "diamond", "few": "triangle-up"}
GROUP_LABELS: dict[GroupName, str] = {"many": "Many-shot", "medium": "Medium-shot", "few": "Few-shot"}

GROUND, INK, MUTED, RULE = (THEME[name][0] for name in ("ground", "ink", "muted", "rule"))
RUN_COLORS = tuple(THEME[f"run{index}"][0] for index in range(8))
DASHES = ("solid", "dot", "dashdot")
DOTTED: dict[str, object] = {"color": MUTED, "width": 1, "dash": "dot"}
"""The line of a level that values are compared with."""


def run_style(index: int) -> tuple[str, str]:
    """Color and dash of the ``index``-th configuration; after the last color the dash changes.

    Example:
        >>> run_style(0), run_style(8)
        (('#6a7079', 'solid'), ('#6a7079', 'dot'))
    """
    return RUN_COLORS[index % len(RUN_COLORS)], DASHES[index // len(RUN_COLORS) % len(DASHES)]


FONT = "Inter, 'Helvetica Neue', 'Segoe UI', 'Liberation Sans', Arial, sans-serif"


def blank(height: int, *, left: int) -> go.Figure:
    """A figure of ``height`` pixels with room for labels on the left and no trace yet.

    Example:
        >>> blank(300, left=48).layout.height, len(blank(300, left=48).data)
        (300, 0)
    """
    axis = {
        "gridcolor": RULE,
        "gridwidth": 1,
        "linecolor": RULE,
        "zeroline": False,
        "ticks": "",
        "title": {"standoff": 10, "font": {"size": 12.5, "color": MUTED}},
        "tickfont": {"size": 12, "color": MUTED},
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": GROUND, "bordercolor": RULE, "font": {"family": FONT, "size": 13, "color": INK}},
        "xaxis": axis | {"showgrid": False, "showline": True},
        "yaxis": axis,
    }
    margin = {"l": left, "r": 10, "t": 10, "b": 46}
    return go.Figure(layout={"template": {"layout": layout}, "height": height, "margin": margin})


def epoch_axis(figure: go.Figure, starts: Iterable[int], last: int) -> None:
    """Make the horizontal axis one of epochs over all stages; the end of stage 1 is marked.

    Args:
        figure: Changed.
        starts: Epochs of stage 1 of each run that has a later one.
        last: Epochs on the axis.

    Example:
        >>> figure = blank(300, left=48)
        >>> epoch_axis(figure, [30, 30, 40], 50)
        >>> [shape.x0 for shape in figure.layout.shapes], figure.layout.xaxis.range
        ([30.5, 40.5], (0.5, 50.5))
    """
    for number, start in enumerate(sorted(set(starts))):
        figure.add_vline(x=start + 0.5, line=DOTTED)
        if number == 0:
            corner = {"x": start + 0.5, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
            figure.add_annotation(text="stage 1 ends", showarrow=False, font={"size": 12, "color": MUTED}, **corner)
    figure.update_layout(margin={"t": 26})
    figure.update_xaxes(title="Epoch", range=[0.5 if last > 1 else 0, last + 0.5])


def shorten(text: str, length: int) -> str:
    """Shorten a name in the middle, as names of one kind begin alike and differ at their end.

    Example:
        >>> shorten("siphonophora physonect young", 16), shorten("cat", 16)
        ('siphono…ct young', 'cat')
    """
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"


def clip(text: str, length: int = 60) -> str:
    """Shorten a label to ``length`` characters, and escape what plotly would read as markup.

    Example:
        >>> clip("aquarium fish", 9), clip("<b>")
        ('aqua…fish', '&lt;b&gt;')
    """
    return html.escape(shorten(text, length), quote=False)


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
"""Largest vertical shift of a point in a crowded figure."""
TREND = "smoothed mean"


def add_points(
    figure: go.Figure,
    group_of: Sequence[GroupName],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    hover: str,
    whisker: npt.ArrayLike | None = None,
    notes: Sequence[str] | None = None,
    meta: str = "class",
) -> None:
    """Draw a point for each class in the color and symbol of its group; a class whose value is NaN is left out.

    Args:
        figure: Gets the traces.
        group_of: Shot group of each class, length C.
        x: Shape (C,).
        y: Shape (C,).
        hover: Hover text of a point, below the class name; ``%{y:.2f}`` is the value.
        whisker: Half the length of a whisker through each point, shape (C,).
        notes: A further line of hover text for each class.
        meta: ``class``, or ``class:1`` where the page adds the accuracy under the second configuration.

    Example:
        >>> figure = go.Figure()
        >>> add_points(figure, ["many", "few", "few"], [300, 5, 4], [1.0, 0.5, np.nan], hover="%{y}")
        >>> [trace.customdata.tolist() for trace in figure.data]
        [[0], [1]]
    """
    across, up = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    half = None if whisker is None else np.asarray(whisker, dtype=np.float32)
    kind = go.Scattergl if len(group_of) > MANY_POINTS else go.Scatter
    lines = ["%{text}", hover, "" if notes is None else "%{hovertext}"]
    crowded = len(group_of) > CROWDED
    opacity, edge = (0.45, 0) if crowded else (0.85, 0.8)
    for group, members in by_group(group_of):
        classes = members[np.isfinite(up[members])]
        if not classes.size:
            continue
        trace = kind(
            x=across[classes],
            y=up[classes],
            mode="markers",
            name=GROUP_LABELS[group],
            customdata=classes.astype(np.int32),
            meta=meta,
            marker={
                "color": GROUP_COLORS[group],
                "symbol": GROUP_SYMBOLS[group],
                # A triangle of the same width has less area.
                "size": (5 if crowded else 9) + 1.5 * (group == "few"),
                "opacity": opacity,
                "line": {"color": GROUND, "width": edge},
            },
            hovertemplate=f"{'<br>'.join(filter(None, lines))}<extra></extra>",
        )
        if half is not None:
            trace.error_y = {"array": half[classes], "color": GROUP_COLORS[group], "thickness": 1, "width": 0}
        if notes is not None:
            trace.hovertext = [notes[index] for index in classes]
        figure.add_trace(trace)


def class_accuracy(
    counts: ClassCounts,
    group_of: Sequence[GroupName],
    recalls: FloatArray,
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
        run: Index, in the class table, of the configuration whose accuracy and interval the hover text shows.

    Example:
        >>> figure = class_accuracy(ClassCounts([300, 5]), ["many", "few"], np.array([0.9, np.nan]))
        >>> [len(trace.x) for trace in figure.data]
        [1]
    """
    figure, heights = blank(height, left=52), recalls
    sizes = count_axis(figure, counts)
    if len(counts) > CROWDED:
        # Thousands of classes with three test images each share four heights: shifted a little, they show how many.
        heights = recalls + np.random.default_rng(0).uniform(-JITTER, JITTER, len(counts))
    add_points(figure, group_of, sizes, heights, hover="", meta=f"class:{run}")
    _add_trend(figure, sizes, recalls)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    return figure.update_yaxes(title="Accuracy", range=[-0.03, 1.03], tickformat=".0%", tickvals=ticks)


def add_line(
    figure: go.Figure,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    name: str,
    hover: str,
    color: str,
    dash: str = "solid",
    width: float = 2,
    band: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    edges: bool = False,
    **options: Any,
) -> None:
    """Draw a line, and a faint band around it; values that are NaN are left out, and a single one is a point.

    Args:
        figure: Gets the traces.
        x: Shape (N,).
        y: Shape (N,).
        name: Name of the line in the hover text.
        hover: Hover text of a point, below the name of the line.
        color: Color of the line and the band.
        dash: Plotly's name of the stroke.
        width: Width of the line in pixels.
        band: Lower and upper end, shape (N,) each.
        edges: Draw both ends of the band, thin: they tell bands apart that overlap.
        **options: Of the trace.

    Example:
        >>> figure = go.Figure()
        >>> add_line(figure, [1, 2], [0.5, np.nan], name="ce", hover="%{y}", color="#28609e")
        >>> figure.data[0].mode, figure.data[0].y.tolist()
        ('markers', [0.5])
    """
    across, up = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    finite = np.isfinite(up)
    if not finite.any():
        return
    if band is not None:
        low, high = (np.asarray(end, dtype=np.float32)[finite] for end in band)
        around, back = across[finite], across[finite][::-1]
        figure.add_scatter(
            x=np.concatenate([around, back]),
            y=np.concatenate([low, high[::-1]]),
            mode="none",
            line={"color": color},
            fill="toself",
            fillcolor=color,
            opacity=0.14,
            hoverinfo="skip",
        )
        for end in (low, high) if edges else ():
            thin = {"color": color, "width": 1}
            figure.add_scatter(x=around, y=end, mode="lines", line=thin, opacity=0.6, hoverinfo="skip")
    figure.add_scatter(
        x=across[finite],
        y=up[finite],
        mode="lines" if finite.sum() > 1 else "markers",
        name=clip(name),
        line={"color": color, "dash": dash, "width": width},
        marker={"color": color, "size": 7},
        hovertemplate=f"%{{fullData.name}}<br>{hover}<extra></extra>",
        **options,
    )


def count_axis(figure: go.Figure, counts: ClassCounts) -> FloatArray:
    """Make the horizontal axis one of training images, logarithmic.

    Args:
        figure: Changed.
        counts: Training images per class, shape (C,).

    Returns:
        Where each class stands, shape (C,): 0.5 stands for none.

    Example:
        >>> figure = blank(300, left=48)
        >>> count_axis(figure, ClassCounts([200, 0])).tolist(), figure.layout.xaxis.ticktext
        ([200.0, 0.5], ('0', '1', '10', '100'))
    """
    positions = np.where(counts.array > 0, counts.array, 0.5)
    low, high = np.log10(positions.min()), np.log10(positions.max())
    steps = (1, 2, 5) if high - low <= WIDE_DECADES else (1,)
    ticks = [step * 10**power for power in range(8) for step in steps]
    shown = [tick for tick in ticks if positions.min() * 0.8 <= tick <= positions.max() * 1.25]
    zero = [0.5] if positions.min() < 1 else []
    pad = max(0.06, 0.04 * (high - low))
    figure.update_xaxes(
        title="Training images (logarithmic)",
        type="log",
        range=[low - pad, high + pad],
        tickvals=zero + shown,
        ticktext=["0"] * len(zero) + [f"{tick:,}" for tick in shown],
    )
    return positions


def _add_trend(figure: go.Figure, sizes: FloatArray, recalls: FloatArray) -> None:
    """Draw the mean over classes weighted by nearness in the logarithm of size (Nadaraya-Watson, Gaussian)."""
    tested = np.flatnonzero(~np.isnan(recalls))
    x = np.log10(sizes[tested])
    if tested.size < FEW_POINTS or np.ptp(x) == 0:
        return
    grid = np.linspace(x.min(), x.max(), 48)
    weight = np.exp(-0.5 * ((grid[:, None] - x) / (0.07 * np.ptp(x))) ** 2)
    level = (weight @ recalls[tested]) / np.maximum(weight.sum(axis=1), 1e-12)
    # Far from every class (a step profile) the weights vanish and a mean would be invented: the line breaks there.
    level[weight.max(axis=1) < WEIGHT_FLOOR] = np.nan
    line = {"color": INK, "width": 1.8}
    figure.add_scatter(x=10**grid, y=level, mode="lines", line=line, name=TREND, hoverinfo="skip")


def by_group(group_of: Sequence[GroupName]) -> list[tuple[GroupName, npt.NDArray[np.int64]]]:
    """Groups that have members, with the positions of these."""
    groups = np.array(group_of)
    return [(name, np.flatnonzero(groups == name)) for name in GROUP_NAMES if name in group_of]


def labeled_bars(
    labels: Sequence[str], values: Sequence[str], segments: Sequence[tuple[str, str, npt.ArrayLike]]
) -> go.Figure:
    """A stacked bar for each configuration on a scale from 0 to 100%, its name and a value written above it.

    Args:
        labels: Name of each configuration, B of them.
        values: Text at the right.
        segments: Words, color and share of each segment, shape (B,); NaN is drawn as nothing.

    Example:
        >>> figure = labeled_bars(["ce"], ["40.0"], [("right", "#28609e", [0.4]), ("wrong", "#dedbd5", [0.6])])
        >>> len(figure.data), [annotation.text for annotation in figure.layout.annotations]
        (2, ['ce', '<b>40.0</b>'])
    """
    figure, rows = blank(52 * len(labels) + 4, left=2), [-index for index in range(len(labels))]
    for words, color, shares in segments:
        figure.add_bar(
            x=np.nan_to_num(np.asarray(shares, dtype=np.float64)),
            y=rows,
            orientation="h",
            width=0.22,
            name=words,
            marker={"color": color, "line": {"width": 0}},
            text=[clip(label) for label in labels],
            textposition="none",
            hovertemplate=f"%{{text}}<br>{words}: %{{x:.1%}}<extra></extra>",
        )
    for label, value, row in zip(labels, values, rows, strict=True):
        text = {"y": row, "yshift": 16, "showarrow": False, "font": {"size": 13}}
        figure.add_annotation(x=0, xanchor="left", xshift=-2, text=clip(label, 26), **text)
        figure.add_annotation(x=1, xanchor="right", xshift=2, text=f"<b>{value}</b>", **text)
    figure.update_layout(barmode="stack", margin={"t": 0, "r": 2, "b": 4})
    figure.update_xaxes(visible=False, range=[0, 1], fixedrange=True)
    return figure.update_yaxes(visible=False, range=[rows[-1] - 0.3, 0.72], fixedrange=True)
