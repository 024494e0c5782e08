"""A point a class: some number of it against its training images, in the colour and symbol of its group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.counts import ClassCounts, GroupName
from longtail.report.canvas import blank
from longtail.report.figures import CROWDED, MANY_POINTS, by_group, count_axis
from longtail.report.palette import GROUND, GROUP_COLOURS, GROUP_LABELS, GROUP_SYMBOLS


def class_points(
    counts: ClassCounts,
    group_of: Sequence[GroupName],
    values: npt.ArrayLike,
    *,
    says: str,
    height: int = 300,
    spread: npt.ArrayLike | None = None,
) -> go.Figure:
    """Points of a number of each class against its training images (logarithmic).

    Args:
        counts: Training images per class, shape (C,).
        group_of: Shot group of each class, length C.
        values: Shape (C,); a class whose value is NaN is left out.
        says: What is said of a class one points at, beneath its name; ``%{y:.2f}`` is the value.
        height: Pixels.
        spread: Half the length of a whisker through each point, shape (C,); None for none.

    Example:
        >>> figure = class_points(ClassCounts([300, 5, 4]), ["many", "few", "few"], [1.0, 0.5, np.nan], says="%{y}")
        >>> [trace.customdata.tolist() for trace in figure.data]
        [[0], [1]]
    """
    heights = np.asarray(values, dtype=np.float32)
    whisker = None if spread is None else np.asarray(spread, dtype=np.float32)
    places = np.where(counts.array > 0, counts.array, 0.5)
    crowded = len(counts) > CROWDED
    figure = blank(height, left=58)
    for group, classes in by_group(group_of):
        kept = classes[np.isfinite(heights[classes])]
        if not kept.size:
            continue
        colour = GROUP_COLOURS[group]
        error = None if whisker is None else {"array": whisker[kept], "color": colour, "thickness": 1, "width": 0}
        figure.add_trace(
            (go.Scattergl if len(counts) > MANY_POINTS else go.Scatter)(
                x=places[kept].astype(np.float32),
                y=heights[kept],
                error_y=error,
                mode="markers",
                name=GROUP_LABELS[group],
                customdata=kept.astype(np.int32),
                meta="class",
                marker={
                    "color": colour,
                    "symbol": GROUP_SYMBOLS[group],
                    "size": (5 if crowded else 9) + 1.5 * (group == "few"),
                    "opacity": 0.45 if crowded else 0.85,
                    "line": {"color": GROUND, "width": 0 if crowded else 0.8},
                },
                hovertemplate=f"%{{text}}<br>{says}<extra></extra>",
            )
        )
    count_axis(figure, places.astype(np.float64))
    return figure
