"""The palette, and an empty figure in the manner of the page: no frame, hairline grid, transparent ground.

Colors come in light and dark, apart for color-blind readers and legible on their ground.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

import plotly.graph_objects as go

from longtail.counts import GroupName

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
    figure = go.Figure(layout={"template": {"layout": layout}, "height": height})
    return figure.update_layout(margin={"l": left, "r": 10, "t": 10, "b": 46})


def epoch_axis(figure: go.Figure, starts: Iterable[int], last: int) -> None:
    """Make the horizontal axis one of epochs over all stages; where stage 2 begins is marked.

    Args:
        figure: Changed.
        starts: Epochs of stage 1 of each run that has a second one.
        last: Epochs on the axis.

    Example:
        >>> figure = blank(300, left=48)
        >>> epoch_axis(figure, [30, 30, 40], 50)
        >>> [shape.x0 for shape in figure.layout.shapes], figure.layout.xaxis.range
        ([30.5, 40.5], (0.5, 50.5))
    """
    for number, start in enumerate(sorted(set(starts))):
        figure.add_vline(x=start + 0.5, line={"color": MUTED, "width": 1, "dash": "dot"})
        if number == 0:
            place = {"x": start + 0.5, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
            figure.add_annotation(text="stage 2", showarrow=False, font={"size": 12, "color": MUTED}, **place)
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
