"""An empty figure in the manner of the page: no frame, hairline grid, transparent ground."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from longtail.report.palette import GROUND, INK, MUTED, RULE

FONT = "Inter, 'Helvetica Neue', 'Segoe UI', 'Liberation Sans', Arial, sans-serif"


def blank(height: int, *, left: int) -> go.Figure:
    """A figure of ``height`` pixels with room for labels on the left and no trace yet."""
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


def clip(text: str, length: int = 60) -> str:
    """Shorten a label to ``length`` characters, and escape what plotly would read as markup.

    Example:
        >>> clip("aquarium fish", 9), clip("<b>")
        ('aquarium…', '&lt;b&gt;')
    """
    short = text if len(text) <= length else f"{text[: length - 1]}…"
    return html.escape(short, quote=False)
