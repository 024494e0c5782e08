"""The geometry of features: spread and distance of classes, uniformity, alignment, neural collapse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from longtail.counts import FloatArray, IntArray

Features = npt.NDArray[np.floating[Any]]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.integer[Any]]

EXACT = 5_000
"""Up to this number of images uniformity is exact; beyond, it is that of a sample of this size."""
BLOCK = 1_024
"""Rows of a table of all pairs that are computed at a time."""
_COLUMNS = 64  # summed at a time


@dataclass(frozen=True)
class ClassGeometry:
    """Positions of the classes, each of shape (C,).

    Attributes:
        images: Measured images of the class.
        spread: Mean distance of its features to their center; NaN under two images.
        nearest: Class with the nearest other center, -1 where there is none.
        nearest_distance: Distance to that center, NaN where there is none.
        ratio: ``spread / nearest_distance``; infinite where two centers are the same point.
    """

    images: Ints
    spread: Floats
    nearest: Ints
    nearest_distance: Floats
    ratio: Floats


@dataclass(frozen=True)
class NeuralCollapse:
    """Distances of features from a simplex; 0 is full collapse for every one, NaN where it cannot be measured.

    Attributes:
        within_between: NC1 as a ratio of variances, ``tr S_W / tr S_B``, with S_B freed of the noise of the means;
            NaN too where the means lie no farther apart than that noise alone puts them.
        nc1: NC1 as in the paper, ``tr(S_W S_B^+) / C``.
        equinorm: NC2: standard deviation of the norms of the centered class means, by their mean.
        equiangularity: NC2: standard deviation of the cosines between pairs of them.
        simplex_deviation: NC2: mean of ``|cos + 1 / (C - 1)|``, their distance to the angles of a simplex.
        duality: NC3: ``||W / ||W|| - M / ||M|| ||^2`` of classifier and centered class means; 2 is unrelated.
    """

    within_between: float
    nc1: float
    equinorm: float
    equiangularity: float
    simplex_deviation: float
    duality: float


def checked(features: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int) -> tuple[Features, IntArray]:
    """Check that features and labels fit; return features as float32 or float64, labels as int64.

    Whole numbers cannot hold a mean, and half precision not the square of a norm.

    Raises:
        ValueError: Another shape, another number of labels than of features, or a label out of range.

    Example:
        >>> checked([[1, 2]], [0], 1)
        (array([[1., 2.]]), array([0]))
        >>> checked([[1, 2]], [3], 2)
        Traceback (most recent call last):
        ...
        ValueError: label 3 is outside 0..1: give the number of all classes.
    """
    rows, classes = _wide(features), np.asarray(labels)
    if classes.shape != rows.shape[:1]:
        shapes = f"{rows.shape} and {classes.shape}"
        raise ValueError(f"features of shape (N, D) and labels of shape (N,) are needed, got {shapes}.")
    if classes.size and (classes.min() < 0 or classes.max() >= num_classes):
        wrong = int(classes.min() if classes.min() < 0 else classes.max())
        raise ValueError(f"label {wrong} is outside 0..{num_classes - 1}: give the number of all classes.")
    return rows, classes.astype(np.int64, copy=False)


def _wide(features: npt.ArrayLike) -> Features:
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise ValueError(f"features of shape (N, D) are needed, got {rows.shape}.")
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)


def class_means(features: Features, labels: IntArray, num_classes: int) -> tuple[FloatArray, IntArray]:
    """Mean feature of each class, (C, D), NaN for an absent one; and the number of its images, (C,).

    Raises:
        ValueError: The features and labels do not fit; see :func:`checked`.

    Example:
        >>> means, images = class_means(np.array([[1.0], [3.0]]), np.array([0, 0]), 2)
        >>> means.tolist(), images.tolist()
        ([[2.0], [nan]], [2, 0])
    """
    from scipy.sparse import csr_array

    features, labels = checked(features, labels, num_classes)
    images = np.bincount(labels, minlength=num_classes)
    # Row c of the sparse matrix holds the images of class c: far faster than adding features row by row.
    offsets = np.concatenate([[0], np.cumsum(images)])
    ones = np.ones(len(labels))
    member = csr_array((ones, np.argsort(labels, kind="stable"), offsets), shape=(num_classes, len(labels)))
    sums = np.empty((num_classes, features.shape[1]))
    # In float64, for a sum of 300,000 numbers in float32 is off by a quarter of a percent; a few columns at a time.
    for start in range(0, features.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        sums[:, part] = member @ features[:, part].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return sums / images[:, None], images


def class_geometry(features: Features, labels: IntArray, num_classes: int) -> ClassGeometry:
    r"""Spread of each class and the distance to its nearest neighbor.

    ``spread_c = sqrt(n_c / (n_c - 1)) mean_i ||f_i - m_c||`` with the class mean ``m_c``. The factor makes up for
    how much too near to its images a mean of few lies, so that small and large classes can be compared (exact for
    Gaussian classes). ``ratio_c = spread_c / min_j ||m_c - m_j||`` is above 1 where a class reaches past its neighbor.

    The center of few images lies off the true one, which makes the nearest center look farther off and the ratio too
    low: compare small and large classes on a test split with equally many images of each.

    Args:
        features: Shape (N, D).
        labels: Class indices, shape (N,).
        num_classes: C.

    Example:
        >>> line = np.array([[0.0], [2.0], [9.0], [11.0], [50.0]])
        >>> geometry = class_geometry(line, np.array([0, 0, 1, 1, 3]), 4)
        >>> geometry.nearest.tolist(), geometry.nearest_distance.tolist()
        ([1, 0, -1, 1], [9.0, 9.0, nan, 40.0])
        >>> geometry.spread.round(3).tolist()
        [1.414, 1.414, nan, nan]
    """
    features, labels = checked(features, labels, num_classes)
    means, images = class_means(features, labels, num_classes)
    distances = np.linalg.norm(features - means[labels].astype(features.dtype), axis=1)
    sums = np.bincount(labels, weights=distances, minlength=num_classes)
    spread = np.where(images > 1, sums / np.sqrt(np.maximum(images * (images - 1.0), 1.0)), np.nan)
    nearest = _nearest(means.astype(features.dtype))
    distance = np.where(nearest >= 0, np.linalg.norm(means - means[nearest], axis=1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ClassGeometry(images, spread, nearest, distance, spread / distance)


def uniformity(features: Features, *, seed: int = 0) -> float:
    """Return the uniformity on the unit sphere: ``log mean exp(-2 ||u_i - u_j||^2)`` over pairs of unit features.

    0 where all are one direction; lower is more even, towards about -4 for directions drawn at random. A feature of
    norm zero has no direction and is left out. Beyond :data:`EXACT` images it is that of a sample.

    References:
        [1] Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
            Hypersphere, ICML 2020, equation 2 with t = 2.

    Args:
        features: Shape (N, D).
        seed: Seed of the sample.

    Returns:
        NaN under two images.

    Example:
        >>> uniformity(np.array([[1.0, 0.0], [3.0, 0.0]]))
        0.0
        >>> round(uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])), 9)
        -8.0
    """
    units = _units(_wide(features))[0]
    if len(units) > EXACT:
        units = units[np.sort(np.random.default_rng(seed).choice(len(units), EXACT, replace=False))]
    if len(units) < 2:
        return float("nan")
    total = 0.0
    for rows, cosines in _pairs(units):
        cosines[np.arange(len(rows)), rows] = -np.inf  # an image and itself make no pair
        total += float(np.exp(4.0 * (np.minimum(cosines, 1.0) - 1.0)).sum(dtype=np.float64))
    return float(np.log(total / (len(units) * (len(units) - 1)))) + 0.0


def alignment(features: Features, labels: IntArray, num_classes: int) -> float:
    """Return the alignment of classes: the mean of ``||u_i - u_j||^2`` over pairs of a class, then over classes.

    0 where every class is one direction, 2 where directions of a class are unrelated. Every class counts alike,
    whatever its size; those under two images are left out. Exact over all pairs.

    References:
        [1] Wang and Isola, ICML 2020 (see :func:`uniformity`), equation 1 with alpha = 2.

    Args:
        features: Shape (N, D).
        labels: Class indices, shape (N,).
        num_classes: C.

    Returns:
        NaN where no class has two images.

    Example:
        >>> alignment(np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]), np.array([0, 0, 1]), 2)
        2.0
    """
    features, labels = checked(features, labels, num_classes)
    units, nonzero = _units(features)
    means, images = class_means(units, labels[nonzero], num_classes)
    several = images > 1
    if not several.any():
        return float("nan")
    count = images[several].astype(np.float64)
    square = (means[several] ** 2).sum(axis=1) * count**2  # |sum of units|^2 holds the cosines of all pairs
    return float(np.maximum(2.0 - 2.0 * (square - count) / (count * (count - 1.0)), 0.0).mean())


def neural_collapse(
    features: Features, labels: IntArray, num_classes: int, *, weight: Features | None = None
) -> NeuralCollapse:
    """Measure how far class means and features are from the simplex that long training ends at on balanced data.

    Every class counts alike: the center is the mean of the class means, ``S_B`` the mean over classes of the outer
    products of the centered means, ``S_W`` that of the covariances within classes of two images and more (divided by
    ``n_c - 1``, so that splits with few images a class can be compared). Absent classes are left out, and C is the
    number of the others.

    The mean of ``n_c`` images lies off the true one by the variance ``S_c / n_c``, so that classes look farther apart
    than they are, small ones most. ``within_between`` takes that out of ``tr S_B``, as the analysis of variance does
    for a random effect: ``(1 - 1 / C) mean_c tr S_c / n_c`` less, with the mean of all for a class of one image. The
    other five measures have no such correction. With few images a class ``nc1`` comes out too low, and the measures of
    norms, angles and duality are those of blurred means: compare them between models on the same images only.

    References:
        [1] Papyan, Han, Donoho, Prevalence of neural collapse during the terminal phase of deep learning training,
            PNAS 117 (2020).

    Args:
        features: Shape (N, D).
        labels: Class indices, shape (N,).
        num_classes: C.
        weight: Weight of the classifier, shape (C, D), for NC3.

    Example:
        >>> corners = np.eye(3) - 1 / 3
        >>> collapse = neural_collapse(np.repeat(corners, 2, axis=0), np.repeat([0, 1, 2], 2), 3, weight=5 * corners)
        >>> collapse.within_between, round(collapse.simplex_deviation, 12), round(collapse.duality, 12)
        (0.0, 0.0, 0.0)
    """
    features, labels = checked(features, labels, num_classes)
    means, images = class_means(features, labels, num_classes)
    present = images > 0
    centered = means[present] - means[present].mean(axis=0) if present.any() else means[:0]
    norms = np.linalg.norm(centered, axis=1)
    if len(centered) < 2 or not norms.any():
        return NeuralCollapse(*[float("nan")] * 6)
    scaled, variances = _scaled_residuals(features, labels, means, images)
    within = float(variances[images > 1].mean()) if (images > 1).any() else float("nan")
    noise = np.where(images > 1, variances, within)[present] / images[present]
    between = float((norms**2).mean() - (1 - 1 / len(centered)) * noise.mean())
    spread, off = _angles(centered.astype(features.dtype))
    duality = float("nan")
    if weight is not None:
        rows = np.asarray(weight, dtype=np.float64)[present]
        duality = float(((rows / np.linalg.norm(rows) - centered / np.linalg.norm(centered)) ** 2).sum())
    return NeuralCollapse(
        within_between=within / between if between > 0 else float("nan"),
        nc1=_nc1(scaled, centered) if np.isfinite(within) else float("nan"),
        equinorm=float(norms.std() / norms.mean()),
        equiangularity=spread,
        simplex_deviation=off,
        duality=duality,
    )


def _scaled_residuals(
    features: Features, labels: IntArray, means: FloatArray, images: IntArray
) -> tuple[Features, FloatArray]:
    """Residuals (M, D) whose Gram matrix is S_W, and the trace of each class, (C,); NaN under two images."""
    several = images > 1
    paired = several[labels]
    if not paired.any():
        return features[:0], np.full(len(images), np.nan)
    share = np.zeros(len(images))
    share[several] = 1.0 / np.sqrt((images[several] - 1.0) * several.sum())
    scaled = features[paired] - means[labels[paired]].astype(features.dtype)
    scaled *= share[labels[paired], None].astype(features.dtype)
    squares = np.einsum("nd,nd->n", scaled, scaled, dtype=np.float64)
    sums = np.bincount(labels[paired], weights=squares, minlength=len(images))
    return scaled, np.where(several, sums * several.sum(), np.nan)


def _nc1(scaled: Features, centered: FloatArray) -> float:
    """``tr(S_W S_B^+) / C``, in the directions that the class means span."""
    values, vectors = np.linalg.eigh(centered.T @ centered / len(centered))
    spanned = values > values[-1] * max(centered.shape) * np.finfo(np.float64).eps
    along = scaled @ vectors[:, spanned].astype(scaled.dtype)
    variance = np.einsum("nk,nk->k", along, along, dtype=np.float64)
    return float((variance / values[spanned]).sum() / len(centered))


def _angles(centered: Features) -> tuple[float, float]:
    """Over all pairs of centered means: standard deviation of the cosines, mean distance to those of a simplex."""
    units, nonzero = _units(centered)
    count = len(nonzero)
    if count < 2 or not nonzero.all():  # a class on the common center has no angle to any other
        return float("nan"), float("nan")
    total = square = off = 0.0
    simplex = -1.0 / (count - 1)
    for rows, cosines in _pairs(units):
        cosines[np.arange(len(rows)), rows] = simplex
        total += float(cosines.sum()) - len(rows) * simplex
        square += float((cosines**2).sum()) - len(rows) * simplex**2
        off += float(np.abs(cosines - simplex).sum())
    pairs = count * (count - 1)
    return float(np.sqrt(max(square / pairs - (total / pairs) ** 2, 0.0))), off / pairs


def _nearest(means: Features) -> IntArray:
    """Index of the nearest other row, -1 where there is none; rows of NaN are no neighbors."""
    nearest = np.full(len(means), -1, dtype=np.int64)
    present = np.flatnonzero(~np.isnan(means).any(axis=1))
    if present.size < 2:
        return nearest
    rows = means[present] - means[present].mean(axis=0)
    half = 0.5 * (rows**2).sum(axis=1)
    for part, products in _pairs(rows):
        away = half[None, :] - products  # half the squared distance, less a number that is the same in the whole row
        away[np.arange(len(part)), part] = np.inf
        nearest[present[part]] = present[away.argmin(axis=1)]
    return nearest


def _pairs(rows: Features) -> Iterator[tuple[IntArray, Features]]:
    """Inner products of all rows with all, a block at a time: the numbers of some rows, and their products (B, N)."""
    for start in range(0, len(rows), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(rows)))
        yield part, rows[part] @ rows.T


def _units(features: Features) -> tuple[Features, npt.NDArray[np.bool_]]:
    """Features of norm one, without those of norm zero; and which have another norm, (N,)."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    nonzero = norms[:, 0] > 0
    return features[nonzero] / norms[nonzero], nonzero
