"""Features in two dimensions by PCA, t-SNE or UMAP, and which images are drawn."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from longtail.errors import LongtailError, nearest

Method: TypeAlias = Literal["pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = get_args(Method)
FIRST_DIMENSIONS = 50
"""t-SNE and UMAP look for neighbors in this number of principal components."""
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Projection:
    """Features in two dimensions.

    Attributes:
        points: float32 (N, 2).
        explained: Share of the variance on each axis, for PCA; None for the others, whose axes mean nothing.
    """

    points: npt.NDArray[np.float32]
    explained: tuple[float, float] | None = None


def project(features: npt.NDArray[np.floating[Any]], method: str = "pca", *, seed: int = 0) -> Projection:
    """Lay features out in two dimensions.

    PCA keeps distances as far as two axes can. t-SNE and UMAP keep neighbors: that two clouds are apart means
    something, how far apart they are and how large means nothing.

    References:
        [1] van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 9 (2008).
        [2] McInnes, Healy, Melville, UMAP, arXiv 1802.03426 (2018).

    Args:
        features: Shape (N, D), at least two dimensions; NaN for all where there are fewer than 3 images.
        method: ``"pca"``, ``"tsne"`` or ``"umap"``.
        seed: Seed of the methods that draw.

    Raises:
        LongtailError: An unknown method, or UMAP where umap-learn is not installed.

    Example:
        >>> cross = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]])
        >>> projection = project(cross)
        >>> np.abs(projection.points).round(3).tolist(), projection.explained
        ([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 1.0]], (0.8, 0.2))
    """
    check_method(method)
    if len(features) < 3:
        return Projection(np.full((len(features), 2), np.nan, np.float32), None)
    from sklearn.decomposition import PCA

    if method == "pca":
        fitted = PCA(n_components=2, random_state=seed)
        with np.errstate(invalid="ignore"):  # features that are all the same have no variance to take a share of
            points = fitted.fit_transform(features)
        first, second = (0.0 if np.isnan(part) else round(float(part), 6) for part in fitted.explained_variance_ratio_)
        return Projection(points.astype(np.float32), (first, second))
    if min(features.shape) > FIRST_DIMENSIONS:
        features = PCA(FIRST_DIMENSIONS, random_state=seed).fit_transform(features)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
        projector = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    else:
        from umap import UMAP

        projector = UMAP(n_components=2, n_neighbors=min(15, len(features) - 1), random_state=seed, n_jobs=1)
    return Projection(np.asarray(projector.fit_transform(features), dtype=np.float32))


def check_method(method: str) -> None:
    """Check that a projection is available before anything is computed for it.

    Raises:
        LongtailError: The method is unknown, or umap-learn is not installed.

    Example:
        >>> check_method("t-sne")
        Traceback (most recent call last):
        longtail.errors.LongtailError: unknown projection 't-sne'. Did you mean 'tsne'?
    """
    if method not in METHODS:
        raise LongtailError(f"unknown projection {method!r}.{nearest(method, METHODS)}")
    if method == "umap" and find_spec("umap") is None:
        raise LongtailError("UMAP needs a package: pip install 'longtail[umap]', or leave umap out.")


def drawn_sample(labels: npt.NDArray[np.integer[Any]], limit: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Rows of a sample of at most ``limit`` images, rising; large classes are subsampled first.

    Each class gives at most q of its images, with the largest q that fits. Only where there are more classes than
    ``limit``, some are left out, and the others give one each.

    Args:
        labels: Class indices, shape (N,).
        limit: At least 1.
        seed: Seed of the sample.

    Example:
        >>> labels = np.array([0] * 90 + [1] * 8 + [2])
        >>> np.bincount(labels[drawn_sample(labels, 20)]).tolist()
        [11, 8, 1]
    """
    if len(labels) <= limit:
        return np.arange(len(labels), dtype=np.int64)
    images = np.bincount(labels)
    quota = bisect_right(range(limit + 1), limit, key=lambda quota: int(np.minimum(images, quota).sum())) - 1
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    position = np.arange(len(labels)) - (np.cumsum(images) - images)[labels[order]]  # of an image in its class
    chosen = order[position < max(quota, 1)]
    if len(chosen) > limit:
        chosen = rng.choice(chosen, limit, replace=False)
    return np.sort(chosen).astype(np.int64)
