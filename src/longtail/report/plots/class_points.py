"""A point a class: some number of it against its training images, in the colour and symbol of its group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.counts import ClassCounts, GroupName
from longtail.report.plots.canvas import blank
from longtail.report.plots.figures import MANY_POINTS, by_group, class_marker, count_axis
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS


def class_points(
    counts: ClassCounts,
    group_of: Sequence[GroupName],
    values: npt.ArrayLike,
    *,
    says: str,
    height: int = 300,
    spread: npt.ArrayLike | None = None,
    words: Sequence[str] | None = None,
) -> go.Figure:
    """Points of a number of each class against its training images (logarithmic).

    Args:
        counts: Training images per class, shape (C,).
        group_of: Shot group of each class, length C.
        values: Shape (C,); a class whose value is NaN is left out.
        says: What is said of a class one points at, beneath its name; ``%{y:.2f}`` is the value.
        height: Pixels.
        spread: Half the length of a whisker through each point, shape (C,); None for none.
        words: What ``%{hovertext}`` in ``says`` stands for, one a class; None where it does not occur.

    Example:
        >>> figure = class_points(ClassCounts([300, 5, 4]), ["many", "few", "few"], [1.0, 0.5, np.nan], says="%{y}")
        >>> [trace.customdata.tolist() for trace in figure.data]
        [[0], [1]]
    """
    places = np.where(counts.array > 0, counts.array, 0.5)
    figure = blank(height, left=58)
    add_class_points(figure, group_of, places, values, says=says, spread=spread, words=words)
    count_axis(figure, places.astype(np.float64))
    return figure


def add_class_points(
    figure: go.Figure,
    group_of: Sequence[GroupName],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    says: str,
    spread: npt.ArrayLike | None = None,
    words: Sequence[str] | None = None,
) -> None:
    """Draw a point a class; ``x`` and ``y`` have shape (C,), and the rest is as for :func:`class_points`."""
    places, heights = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    whisker = None if spread is None else np.asarray(spread, dtype=np.float32)
    for group, classes in by_group(group_of):
        kept = classes[np.isfinite(heights[classes])]
        if not kept.size:
            continue
        error = None
        if whisker is not None:
            error = {"array": whisker[kept], "color": GROUP_COLORS[group], "thickness": 1, "width": 0}
        figure.add_trace(
            (go.Scattergl if len(group_of) > MANY_POINTS else go.Scatter)(
                x=places[kept],
                y=heights[kept],
                error_y=error,
                mode="markers",
                name=GROUP_LABELS[group],
                customdata=kept.astype(np.int32),
                hovertext=None if words is None else [words[index] for index in kept],
                meta="class",
                marker=class_marker(group, len(group_of)),
                hovertemplate=f"%{{text}}<br>{says}<extra></extra>",
            )
        )
