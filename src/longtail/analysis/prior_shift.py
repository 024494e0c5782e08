"""Accuracy under another mix of classes than the test split has, from the accuracy of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.counts import ClassCounts, FloatArray

EXPONENTS: FloatArray = np.linspace(1.0, -1.0, 41)
"""From a test set distributed as the training set (1) over uniform (0) to the reverse (-1)."""


@dataclass(frozen=True)
class PriorShift:
    """Accuracy against the assumed test prior, shape (T,) each.

    Attributes:
        exponent: t of the prior ``n^t``.
        accuracy: In [0, 1]; NaN where no class was tested.
        error: Its standard error, from the number of test images of each class.
    """

    exponent: FloatArray
    accuracy: FloatArray
    error: FloatArray

    def at(self, exponent: float) -> float:
        """The accuracy at the nearest exponent that was measured.

        Example:
            >>> PriorShift(np.array([1.0, 0.0]), np.array([0.8, 0.5]), np.zeros(2)).at(0.1)
            0.5
        """
        return float(self.accuracy[np.abs(self.exponent - exponent).argmin()])


def shifted_prior(counts: ClassCounts, exponent: float, tested: npt.NDArray[np.bool_] | None = None) -> FloatArray:
    r"""The test prior :math:`\pi_c = n_c^t / \sum_k n_k^t`, shape (C,).

    A class without training images counts as one image, as everywhere. Untested classes get 0 and the rest is
    renormalised.

    Args:
        counts: Training images per class.
        exponent: t; 1 is the training prior, 0 uniform, -1 the inverse.
        tested: Which classes have test images, shape (C,); all when not given.

    Example:
        >>> [shifted_prior(ClassCounts([30, 10]), t).round(2).tolist() for t in (1, 0, -1)]
        [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]
    """
    power = exponent * np.log(np.maximum(counts.array, 1).astype(np.float64))
    weight = np.exp(power - power.max())
    if tested is not None:
        weight = weight * tested
    with np.errstate(invalid="ignore"):
        return np.asarray(weight / weight.sum(), dtype=np.float64)


def prior_shift(
    recall: npt.ArrayLike, images: npt.ArrayLike, counts: ClassCounts, exponents: FloatArray = EXPONENTS
) -> PriorShift:
    r"""Accuracy on test sets that hold the classes in other proportions, :math:`\sum_c \pi_c(t)\, r_c`.

    Only the mix of classes changes, not how the images of a class look: the recall :math:`r_c` then stays, and weighing
    it by the assumed prior is importance weighting of the test images. The model is not told the new prior: what it
    would gain from that is another question (``longtail adjust``). Classes without test images are left out and the
    prior is renormalised over the rest. The standard error treats test images as independent; each recall is drawn
    towards the mean by one image's worth, so that a class with all or no images right has one too. It is large where
    the prior rests on classes with few test images.

    References:
        [1] Hong, Han, Choi, Seo, Kim, Chang, Disentangling Label Distribution for Long-tailed Visual Recognition, CVPR
            2021, section 4 (test sets from forward over uniform to backward).

    Args:
        recall: Share of each class's test images that is right, shape (C,); whatever it is for untested classes.
        images: Test images per class, shape (C,); 0 for an untested class.
        counts: Training images per class.
        exponents: t, shape (T,).

    Example:
        >>> found = prior_shift([0.9, 0.1], [100, 100], ClassCounts([90, 10]), np.array([1.0, 0.0, -1.0]))
        >>> found.accuracy.round(2).tolist()
        [0.82, 0.5, 0.18]
    """
    tested = np.asarray(images) > 0
    worth = np.maximum(np.asarray(images, dtype=np.float64), 1)
    rate = np.where(tested, np.asarray(recall, dtype=np.float64), 0.0)
    prior = np.stack([shifted_prior(counts, float(t), tested) for t in exponents])
    mean = (rate * worth)[tested].sum() / worth[tested].sum() if tested.any() else np.nan
    smooth = (rate * worth + mean) / (worth + 1)
    error = np.sqrt((prior**2 * smooth * (1 - smooth) / worth).sum(axis=1))
    return PriorShift(np.asarray(exponents, dtype=np.float64), prior @ rate, error)
