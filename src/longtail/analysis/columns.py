"""Columns of what a model learned, by image, by class and of each split, as `longtail analyze` collects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from longtail.analysis.geometry import ClassGeometry
from longtail.analysis.norms import ClassNorms

Ints: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageColumns:
    """The images of a split that were analyzed, each column of shape (N,).

    Attributes:
        index: Row of the image in its split.
        label: Class index.
        prediction: Class index.
        confidence: Probability of the prediction.
        probability_true: Probability of the label.
        margin: Score of the label minus the highest other score, in units of the scores that softmax sees.
        feature_norm: Euclidean norm of the feature.
        pca_x: Place on the first two principal components; NaN where the image was not drawn.
        pca_y: See ``pca_x``.
        tsne_x: Place by t-SNE; NaN where the image was not drawn, or t-SNE not asked for.
        tsne_y: See ``tsne_x``.
        umap_x: Place by UMAP; NaN as for t-SNE.
        umap_y: See ``umap_x``.
    """

    index: Ints
    label: Ints
    prediction: Ints
    confidence: Floats
    probability_true: Floats
    margin: Floats
    feature_norm: Floats
    pca_x: Floats
    pca_y: Floats
    tsne_x: Floats
    tsne_y: Floats
    umap_x: Floats
    umap_y: Floats


@dataclass(frozen=True)
class ClassColumns(ClassNorms, ClassGeometry):
    """One value a class, each column of shape (C,), int32 or float32; NaN where nothing can be measured.

    Attributes:
        cloud_mean: Mean change of its logit by the noise of the stage-1 loss; NaN where that has none, and for test.
        cloud_spread: Standard deviation of that change.
    """

    cloud_mean: Floats
    cloud_spread: Floats


@dataclass(frozen=True)
class AnalyzedSplit:
    """One split: its images, its classes, and the numbers of it as a whole (see ``summary.json``)."""

    images: ImageColumns
    classes: ClassColumns
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Analysis:
    """The analysis of a run; a split that was not analyzed is None."""

    train: AnalyzedSplit | None
    test: AnalyzedSplit | None

    def split(self, name: str) -> AnalyzedSplit | None:
        """The split ``"train"`` or ``"test"``."""
        return self.train if name == "train" else self.test
