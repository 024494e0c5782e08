"""Figures as files for a paper: SVG and PNG, light, with the title and the legend that the page writes around them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from longtail.errors import LongtailError
from longtail.files import write_atomically
from longtail.report.plots import FONT, INK, THEME, clip
from longtail.report.section import Drawing, Key, Section

WIDTHS: dict[str, int] = {"one": 760, "two": 520, "three": 460, "four": 320}
"""Pixels of a figure, by how many stand side by side in the page; a hundred of them are an inch of paper."""
PNG_SCALE = 3
"""Pixels of a PNG for one of the SVG: 300 an inch."""
TITLE_HEIGHT, LEGEND_LINE = 34, 21
DASHES: dict[str, str] = {"line": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}


def save_figures(
    drawings: Sequence[Drawing], folder: str | Path, *, legend: Sequence[Key] = (), width: int = WIDTHS["one"]
) -> list[Path]:
    """Write each drawing as ``ID.svg`` and ``ID.png``.

    Args:
        drawings: The figures, in the light colors of the palette; none is changed.
        folder: Made where it is missing; files of these names are replaced.
        legend: Drawn above each figure.
        width: Pixels of the SVG; the PNG has three times as many.

    Returns:
        The files, SVG and PNG of each drawing in turn.

    Raises:
        LongtailError: kaleido or a browser is missing or fails, or a file cannot be written.
    """
    return write_figures({each.id: static_figure(each, legend, width=width) for each in drawings}, Path(folder))


def save_sections(sections: Iterable[Section], folder: str | Path) -> list[Path]:
    """Write every figure of a page as ``SECTION_DRAWING.svg`` and ``.png``; see :func:`save_figures`."""
    figures = {}
    for section in sections:
        layout = section.layout if len(section.drawings) > 1 else "one"
        for drawing in section.drawings:
            title = f"{section.title}: {drawing.title}" if drawing.title else section.title
            titled = replace(drawing, title=title)
            figures[f"{section.id}_{drawing.id}"] = static_figure(titled, section.legend, width=WIDTHS[layout])
    return write_figures(figures, Path(folder))


def static_figure(drawing: Drawing, legend: Sequence[Key] = (), *, width: int = WIDTHS["one"]) -> go.Figure:
    """A copy of a figure that needs no page around it: title and legend inside, on white, without WebGL.

    Args:
        drawing: The figure of the page.
        legend: Entries drawn beneath the title.
        width: Pixels.

    Example:
        >>> figure = go.Figure(layout={"height": 200})
        >>> static = static_figure(Drawing("norms", "Norms", "", figure), [Key("few", "circle", "Few-shot")])
        >>> static.layout.height, static.data[0].name
        (255, 'Few-shot')
    """
    parts = drawing.figure.to_dict()
    # A browser without a graphics card draws no WebGL, and in an SVG it would be pixels anyway.
    traces = [trace | {"type": str(trace["type"]).removesuffix("gl"), "showlegend": False} for trace in parts["data"]]
    figure = go.Figure({"data": traces, "layout": parts["layout"]})
    # Plotly sets the entries of a wrapped legend in columns as wide as the longest of them.
    columns = max(1, int((width - 20) / (48 + 6.6 * max((len(key.text) for key in legend), default=0))))
    title, lines = clip(drawing.title, max(20, width // 8)), math.ceil(len(legend) / columns)
    above = TITLE_HEIGHT if title else 0
    height = drawing.height + above + lines * LEGEND_LINE
    figure.add_traces([_legend_entry(key) for key in legend])
    margin = figure.layout.margin.to_plotly_json()
    margin |= {side: max(margin.get(side, 0), 14) for side in "lr"}
    margin["t"] = margin.get("t", 10) + above + lines * LEGEND_LINE
    corner = {"x": 0, "xref": "container", "xanchor": "left", "yref": "container", "yanchor": "top"}
    keys = {"orientation": "h", "y": 1 - above / height, "font": {"size": 12}, "bgcolor": "rgba(0,0,0,0)"}
    figure.update_layout(width=width, height=height, margin=margin, showlegend=bool(legend), legend=corner | keys)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    if title:
        font = {"family": FONT, "size": 15, "color": INK}
        figure.update_layout(title=corner | {"text": title, "font": font, "pad": {"l": 12}, "y": 1 - 11 / height})
    return figure


def _legend_entry(key: Key) -> go.Scatter:
    """A trace without points, for an entry of plotly's own legend."""
    color = THEME[key.color][0]
    options: dict[str, Any] = {"mode": "markers", "marker": {"color": color, "symbol": key.shape, "size": 9}}
    if key.shape in DASHES:
        options = {"mode": "lines", "line": {"color": color, "width": 2, "dash": DASHES[key.shape]}}
    return go.Scatter(x=[None], y=[None], name=clip(key.text), showlegend=True, hoverinfo="skip", **options)


def write_figures(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Draw the figures, by the name of their files, and write each as SVG and PNG; the files, in this order."""
    if not figures:
        return []
    # In a thread of its own, as a notebook runs a loop already.
    with ThreadPoolExecutor(1) as worker:
        images = worker.submit(asyncio.run, render_figures(figures)).result()
    for name, image in images.items():
        write_atomically(folder / name, image)
    return [folder / name for name in images]


async def render_figures(figures: Mapping[str, go.Figure]) -> dict[str, bytes]:
    """Draw all figures in one browser that is given no address but that of the installed plotly.js."""
    try:
        import kaleido
        from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise LongtailError("figures as files need kaleido: pip install 'longtail[figures]'.") from error
    images = {}
    try:
        async with kaleido.Kaleido(mathjax=False) as browser:
            for name, figure in figures.items():
                for kind, scale in (("svg", 1), ("png", PNG_SCALE)):
                    size = {"width": figure.layout.width, "height": figure.layout.height}
                    options = {"format": kind, "scale": scale, **size}
                    images[f"{name}.{kind}"] = await browser.calc_fig(figure, opts=options)
    except ChromeNotFoundError as error:
        raise LongtailError(
            "figures as files need Chrome or Chromium: install it ('apt install chromium', or 'kaleido_get_chrome'), "
            "or name it in BROWSER_PATH."
        ) from error
    except (BrowserFailedError, BrowserClosedError) as error:
        raise LongtailError(
            "Chrome or Chromium ended while it drew the figures: name another in BROWSER_PATH, or see whether "
            "'chromium --headless --no-sandbox --dump-dom about:blank' works."
        ) from error
    return images
