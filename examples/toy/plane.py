"""A classifier over two features: which part of the plane each class gets, as exact polygons."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from longtail.counts import ClassCounts, FloatArray, GroupName, IntArray

RIM = 360
"""Corners of the polygon that stands for a circle."""


@dataclass(frozen=True)
class Plane:
    """Features of the test images, and the classifier over them.

    Attributes:
        features: Test features, shape (N, 2).
        labels: Their classes, shape (N,).
        weight: One row a class, shape (C, 2).
        bias: Shape (C,); zeros for a cosine classifier.
        is_cosine: Whether the classifier divides by the length of feature and weight, so that directions alone decide.
    """

    features: FloatArray
    labels: IntArray
    weight: FloatArray
    bias: FloatArray
    is_cosine: bool = False

    @property
    def boundaries(self) -> tuple[FloatArray, FloatArray]:
        """Weight (C, 2) and bias (C,) of the linear classifier with the same decisions.

        The largest cosine is the largest product with a weight of length one, whatever the length of the feature.

        Example:
            >>> weight = np.array([[3.0, 4.0], [0.0, 2.0]])
            >>> Plane(np.zeros((1, 2)), np.array([0]), weight, np.zeros(2), is_cosine=True).boundaries[0].tolist()
            [[0.6, 0.8], [0.0, 1.0]]
        """
        if not self.is_cosine:
            return self.weight, self.bias
        length = np.linalg.norm(self.weight, axis=1, keepdims=True)
        return self.weight / np.where(length > 0, length, 1.0), np.zeros_like(self.bias)

    def predict(self, points: FloatArray) -> IntArray:
        """The class of each point, shape (M,), for points of shape (M, 2)."""
        weight, bias = self.boundaries
        return np.asarray((points @ weight.T + bias).argmax(axis=1), dtype=np.int64)

    @property
    def recalls(self) -> FloatArray:
        """Share of each class's test images that is classified right, shape (C,); NaN where there is none."""
        right = self.predict(self.features) == self.labels
        size = len(self.weight)
        images = np.bincount(self.labels, minlength=size)
        hits = np.bincount(self.labels, weights=right, minlength=size)
        return np.where(images > 0, hits / np.maximum(images, 1), np.nan)

    @property
    def means(self) -> FloatArray:
        """Mean feature of each class, shape (C, 2); NaN where there is no image."""
        size = len(self.weight)
        images = np.bincount(self.labels, minlength=size)[:, None]
        sums = np.stack([np.bincount(self.labels, weights=axis, minlength=size) for axis in self.features.T], axis=1)
        return np.where(images > 0, sums / np.maximum(images, 1), np.nan)


def upright(plane: Plane, counts: ClassCounts) -> Plane:
    """Turn, mirror and scale the plane so that planes can be compared; no decision changes.

    The mean of the largest class points up, that of the second largest to the right, and the farthest test feature is
    at distance 1 from the origin.

    Args:
        plane: Features and classifier.
        counts: Training images per class, length C.

    Returns:
        The same classifier in other coordinates: ``x' = R x / s`` and ``w' = s R w`` leave ``w x + b`` as it is.

    Example:
        >>> plane = Plane(np.array([[4.0, 0.0], [0.0, -2.0]]), np.array([0, 1]), np.eye(2), np.zeros(2))
        >>> upright(plane, ClassCounts([9, 1])).features.round(3).tolist()
        [[0.0, 1.0], [0.5, 0.0]]
    """
    order = np.argsort(-counts.array, kind="stable")
    first, second = plane.means[order[:2]]
    x, y = first / max(float(np.hypot(*first)), 1e-12)
    turn = np.array([[y, -x], [x, y]])  # takes (x, y) to (0, 1)
    if (turn @ second)[0] < 0:
        turn = np.diag([-1.0, 1.0]) @ turn
    size = max(float(np.linalg.norm(plane.features, axis=1).max(initial=0.0)), 1e-12)
    return replace(plane, features=plane.features @ turn.T / size, weight=plane.weight @ turn.T * size)


def regions(plane: Plane, radius: float = 1.0) -> list[FloatArray]:
    """The part of a disc about the origin that each class gets: convex polygons, corners of shape (K, 2), in order.

    Class ``j`` has the points where ``(w_j - w_k) x + b_j - b_k >= 0`` for every other class, so its region is the disc
    cut by C - 1 lines. A class that is never predicted has no corners.

    Args:
        plane: Features and classifier.
        radius: Radius of the disc.

    Example:
        >>> plane = Plane(np.zeros((1, 2)), np.array([0]), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2))
        >>> [round(float(polygon_area(polygon)), 2) for polygon in regions(plane)]
        [1.57, 1.57]
    """
    weight, bias = plane.boundaries
    angle = np.linspace(0, 2 * np.pi, RIM, endpoint=False)
    disc = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    polygons = []
    for j in range(len(weight)):
        polygon = disc
        for k in range(len(weight)):
            if k != j:
                polygon = _cut(polygon, weight[j] - weight[k], float(bias[j] - bias[k]))
        polygons.append(polygon)
    return polygons


def _cut(polygon: FloatArray, normal: FloatArray, offset: float) -> FloatArray:
    """Clip a convex polygon to the half-plane ``normal x + offset >= 0`` (Sutherland & Hodgman 1974)."""
    if not len(polygon):
        return polygon
    height = polygon @ normal + offset
    ahead, beyond = np.roll(polygon, -1, axis=0), np.roll(height, -1)
    corners_inside = []
    for corner, following, here, there in zip(polygon, ahead, height, beyond, strict=True):
        if here >= 0:
            corners_inside.append(corner)
        if (here >= 0) != (there >= 0):
            corners_inside.append(corner + (following - corner) * (here / (here - there)))
    return np.array(corners_inside).reshape(-1, 2)


def polygon_area(corners: FloatArray) -> float:
    """Area of a polygon by the shoelace formula, for corners of shape (K, 2); 0 for fewer than three.

    Example:
        >>> polygon_area(np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]))
        2.0
    """
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def region_shares(plane: Plane, radius: float = 1.0) -> FloatArray:
    """Share of the disc that each class gets, shape (C,), summing to 1.

    Example:
        >>> plane = Plane(np.zeros((1, 2)), np.array([0]), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([9.0, 0.0]))
        >>> region_shares(plane).tolist()
        [1.0, 0.0]
    """
    areas = np.array([polygon_area(polygon) for polygon in regions(plane, radius)])
    return np.asarray(areas / areas.sum(), dtype=np.float64)


def group_mean(values: FloatArray, counts: ClassCounts, group: GroupName) -> float:
    """Mean of a figure of each class, shape (C,), over a third of the classes by training images.

    Example:
        >>> group_mean(np.array([0.9, 0.8, 0.5]), ClassCounts([50, 20, 5]), "few")
        0.5
    """
    return float(np.nanmean(values[counts.groups(by="thirds")[group]]))
