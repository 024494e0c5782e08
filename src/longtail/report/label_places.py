"""Places of names at the points of a figure: where they hide the fewest points, lines and other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from longtail.counts import FloatArray

GAP: Final = 6.0
"""Pixels between a point and its name."""
LETTER, LINE = 6.2, 14.0
"""Pixels of a letter and of a line of text."""
PLACES: Final[dict[str, tuple[int, int]]] = {
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "bottom right": (1, -1),
    "top left": (-1, 1),
    "bottom left": (-1, -1),
    "top center": (0, 1),
    "bottom center": (0, -1),
}
"""Plotly's word for each place to its direction, across and up, from the point; the first are preferred."""
_HIDDEN, _OUTSIDE, _PREFERENCE = 4.0, 1e6, 0.01


def label_boxes(point: Sequence[float], text: str) -> FloatArray:
    """Compute the box of a name in each of the places.

    Args:
        point: Across and up, in pixels.
        text: The name.

    Returns:
        Shape (8, 4): left, bottom, right, top, in the order of :data:`PLACES`.

    Example:
        >>> label_boxes((100, 50), "kps")[0].tolist()
        [106.0, 43.0, 124.6, 57.0]
    """
    width, directions = LETTER * len(text), np.array(list(PLACES.values()), dtype=np.float64)
    left = point[0] + directions[:, 0] * GAP + (directions[:, 0] - 1) * width / 2
    bottom = point[1] + directions[:, 1] * GAP + (directions[:, 1] - 1) * LINE / 2
    return np.stack([left, bottom, left + width, bottom + LINE], axis=1)


def overlaps(boxes: npt.ArrayLike, others: npt.ArrayLike) -> FloatArray:
    """Compute the area that boxes share with others, at least a sliver of those that are lines.

    Args:
        boxes: Shape (B, 4): left, bottom, right, top.
        others: Shape (O, 4).

    Returns:
        Shape (B, O), in square pixels.

    Example:
        >>> overlaps([[0, 0, 10, 10]], [[5, 5, 20, 20], [5, -5, 5, 15], [11, 0, 12, 10]]).tolist()
        [[25.0, 10.0, 0.0]]
    """
    first, second = np.asarray(boxes, dtype=np.float64)[:, None], np.asarray(others, dtype=np.float64)[None]
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    # A whisker has no width: it counts as one pixel wide.
    sides = np.where(high >= low, np.maximum(high - low, 1.0), 0.0)
    return np.asarray(sides.prod(axis=-1))


def place_labels(
    points: npt.ArrayLike, texts: Sequence[str], taken: npt.ArrayLike, lines: npt.ArrayLike, size: tuple[float, float]
) -> list[str]:
    """Find a place for each name, one after another, where it hides least.

    Args:
        points: Across and up, in pixels, shape (N, 2).
        texts: The names, N of them.
        taken: Boxes of points and of other names, shape (B, 4): left, bottom, right, top.
        lines: Boxes of lines, which may rather be crossed, shape (L, 4).
        size: Width and height of the area.

    Returns:
        Plotly's word for each place.

    Example:
        >>> place_labels([(50, 50), (60, 50)], ["kps", "gcl"], [[45, 45, 55, 55], [55, 45, 65, 55]], [], (200, 100))
        ['middle left', 'middle right']
    """
    blocked, thin = (np.asarray(each, dtype=np.float64).reshape(-1, 4) for each in (taken, lines))
    frame, places = np.array([0.0, 0.0, *size]), []
    for point, text in zip(np.asarray(points, dtype=np.float64), texts, strict=True):
        boxes = label_boxes(point, text)
        outside = (boxes[:, :2] < frame[:2]).any(axis=1) | (boxes[:, 2:] > frame[2:]).any(axis=1)
        hidden = _HIDDEN * overlaps(boxes, blocked).sum(axis=1) + overlaps(boxes, thin).sum(axis=1)
        best = int(np.argmin(hidden + _OUTSIDE * outside + _PREFERENCE * np.arange(len(boxes))))
        places.append(list(PLACES)[best])
        blocked = np.concatenate([blocked, boxes[best : best + 1]])
    return places
