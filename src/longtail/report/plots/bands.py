"""Bands of uncertainty around the lines of configurations, where there are few enough to tell them apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.compare.table import Row

MOST = 4
"""Bands of more configurations than this would hide each other."""
BAND_WORDS = "Bands are 95% intervals over the test images."


def banded(rows: list[Row]) -> bool:
    """Whether a figure of these configurations has bands: few configurations, tested on images that stand alone."""
    tested = [run.test for row in rows for run in row.runs]
    return len(rows) <= MOST and all(one is not None and one.unit == "image" for one in tested)


def add_band(
    figure: go.Figure, x: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, *, colour: str, edges: bool = False
) -> go.Figure:
    """Fill what lies between two lines, so faintly that what is behind shows; it answers no pointer.

    Args:
        figure: Gets the traces.
        x: Shape (N,).
        low: The lower line, shape (N,).
        high: The upper line, shape (N,).
        colour: Of the lines.
        edges: Draw both lines, thin: they tell bands apart that overlap.

    Example:
        >>> add_band(go.Figure(), [0, 1], [0, 0.5], [1, 1.5], colour="#28609e").data[0].y.tolist()
        [0.0, 0.5, 1.5, 1.0]
    """
    places = np.asarray(x, dtype=np.float32)
    edge = np.concatenate([np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)[::-1]])
    figure.add_scatter(
        x=np.concatenate([places, places[::-1]]), y=edge, mode="none", line={"color": colour},
        fill="toself", fillcolor=colour, opacity=0.14, hoverinfo="skip",
    )  # fmt: skip
    for line in (low, high) if edges else ():
        figure.add_scatter(
            x=places, y=np.asarray(line, dtype=np.float32), mode="lines", hoverinfo="skip", opacity=0.6,
            line={"color": colour, "width": 1},
        )  # fmt: skip
    return figure
