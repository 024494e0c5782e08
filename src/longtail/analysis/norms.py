"""Norms and angles of each class: of its features, of its row of the classifier, and between the two."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from longtail.analysis.geometry import Features, Floats, checked, class_means
from longtail.counts import FloatArray, IntArray
from longtail.evaluation.intervals import Z

SURE, STRONG = 0.01, 0.1
"""A rank correlation is read as one where its p-value is below the first, and its size above the second."""
EXACT = 8
"""Up to this number of classes the p-value is that of all orders: Student's t approximates it too low there."""


@dataclass(frozen=True)
class ClassNorms:
    """Norms and angles, each of shape (C,); NaN where there is nothing to measure.

    Attributes:
        feature_norm: Mean Euclidean norm of the features of a class.
        feature_norm_std: Their standard deviation; NaN under two images.
        weight_norm: Norm of its row of the classifier.
        bias: Its bias; NaN without one.
        angle: Degrees in [0, 180] between the mean feature of the class and its row of the classifier.
    """

    feature_norm: Floats
    feature_norm_std: Floats
    weight_norm: Floats
    bias: Floats
    angle: Floats


@dataclass(frozen=True)
class RankTrend:
    """Whether something rises or falls with the size of a class.

    Attributes:
        rho: Spearman's rank correlation with the counts, in [-1, 1]; NaN where either does not vary.
        p_value: Probability of one as strong where there is none.
        classes: Classes that it was measured on.
    """

    rho: float
    p_value: float
    classes: int

    @property
    def is_none(self) -> bool:
        """Whether its 95% interval, by Fisher's transformation, leaves room for a weak correlation only.

        Example:
            >>> RankTrend(0.02, 0.2, 8142).is_none, RankTrend(0.02, 0.8, 100).is_none
            (True, False)
        """
        if self.classes < 4 or not abs(self.rho) < 1:
            return False
        reach = Z / np.sqrt(self.classes - 3)
        return bool(np.tanh(np.arctanh(abs(self.rho)) + reach) < STRONG)

    @property
    def is_evidence(self) -> bool:
        """Whether it is to be read as a trend: hardly chance, and not too weak to matter.

        Example:
            >>> RankTrend(0.05, 1e-6, 8142).is_evidence, RankTrend(-0.4, 1e-4, 100).is_evidence
            (False, True)
        """
        return self.p_value < SURE and abs(self.rho) > STRONG


def is_cosine(head: str) -> bool:
    """Whether a classifier sees nothing of a feature but its direction.

    Args:
        head: Its name, as a run keeps it.

    Example:
        >>> [is_cosine(head) for head in ("linear", "cosine", "scaled-cosine")]
        [False, True, True]
    """
    return head.endswith("cosine")


def class_norms(
    features: Features, labels: IntArray, weight: Features, bias: Features | None, num_classes: int
) -> ClassNorms:
    """Norms of features and classifier, and the angle between them, by class.

    FBL rests on feature norms that fall towards the tail under cross-entropy (Li, Cheung, Jiang, Feature-Balanced
    Loss for Long-Tailed Visual Recognition, ICME 2022); weight norms that do are what tau-normalization undoes (Kang et
    al., ICLR 2020).

    Args:
        features: Shape (N, D).
        labels: Class indices, shape (N,).
        weight: Weight of the classifier, shape (C, D).
        bias: Shape (C,), None where the classifier has none.
        num_classes: C.

    Example:
        >>> norms = class_norms(np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([0, 0]), np.eye(2), None, 2)
        >>> norms.feature_norm.tolist(), norms.weight_norm.tolist(), norms.angle.round(1).tolist()
        ([3.0, nan], [1.0, 1.0], [59.0, nan])
    """
    features, labels = checked(features, labels, num_classes)
    means, images = class_means(features, labels, num_classes)
    norms = np.linalg.norm(features, axis=1, keepdims=True).astype(np.float64)
    mean = class_means(norms, labels, num_classes)[0]
    variance = class_means((norms - mean[labels]) ** 2, labels, num_classes)[0][:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(variance * images / (images - 1))
    rows = np.asarray(weight, dtype=np.float64)
    return ClassNorms(
        feature_norm=mean[:, 0],
        feature_norm_std=std,
        weight_norm=np.linalg.norm(rows, axis=1),
        bias=np.full(num_classes, np.nan) if bias is None else np.asarray(bias, dtype=np.float64),
        angle=_angle(means, rows),
    )


def rank_trend(values: npt.ArrayLike, counts: npt.ArrayLike) -> RankTrend:
    """Spearman's rank correlation of something with the size of its class, over the classes where both are finite.

    Its p-value is exact for at most :data:`EXACT` classes, the share of all orders of them that are as strongly
    correlated, and else that of Student's t.

    Args:
        values: One a class, shape (C,); what is not finite is left out.
        counts: Training images per class, shape (C,).

    Returns:
        With NaN for both numbers where fewer than three classes are left, or nothing varies.

    Example:
        >>> rank_trend([1.0, 2.0, 3.0, 4.0, np.nan], [5, 10, 20, 40, 80])
        RankTrend(rho=1.0, p_value=0.0833..., classes=4)
    """
    from scipy.stats import rankdata, spearmanr

    value, count = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    both = np.isfinite(value) & np.isfinite(count)
    value, count = value[both], count[both]
    if both.sum() < 3 or np.ptp(value) == 0 or np.ptp(count) == 0:
        return RankTrend(float("nan"), float("nan"), int(both.sum()))
    correlation, classes = spearmanr(value, count), len(value)
    if classes > EXACT:
        return RankTrend(float(correlation.statistic), float(correlation.pvalue), classes)
    # Of ranks whose mean is taken off, the sum of products is the covariance; the first order is the one measured.
    orders = np.array(list(permutations(rankdata(value))))
    strength = np.abs(orders @ (rankdata(count) - (classes + 1) / 2))
    return RankTrend(float(correlation.statistic), float((strength >= strength[0]).mean()), classes)


def _angle(first: FloatArray, second: FloatArray) -> FloatArray:
    """Degrees between rows; by the tangent of half the angle, which unlike the cosine is exact for small ones."""
    with np.errstate(invalid="ignore", divide="ignore"):
        left = first / np.linalg.norm(first, axis=1, keepdims=True)
        right = second / np.linalg.norm(second, axis=1, keepdims=True)
    half = np.arctan2(np.linalg.norm(left - right, axis=1), np.linalg.norm(left + right, axis=1))
    return np.asarray(np.degrees(2 * half), dtype=np.float64)
