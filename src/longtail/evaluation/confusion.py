"""Figures of a confusion matrix: accuracy, recall, precision and F1 of each class, and the harmonic mean."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(confusion: Tensor) -> Tensor:
    """Return the fraction of images predicted right, a float64 scalar; NaN where there is no image.

    Args:
        confusion: Counts, shape (C, C), rows true, columns predicted.

    Example:
        >>> accuracy(torch.tensor([[3, 1], [0, 4]])).item()
        0.875
    """
    return confusion.diagonal().sum().double() / confusion.sum().double()


def recall_per_class(confusion: Tensor) -> Tensor:
    """Return the fraction of each class's images that is predicted right, float64 (C,); NaN for a class without images.

    Args:
        confusion: Counts, shape (C, C), rows true, columns predicted.

    Example:
        >>> recall_per_class(torch.tensor([[3, 1], [0, 4]])).tolist()
        [0.75, 1.0]
    """
    return confusion.diagonal().double() / confusion.sum(dim=1).double()


def precision_per_class(confusion: Tensor) -> Tensor:
    """Return the fraction of predictions of each class that is right, float64 (C,); NaN for a class never predicted.

    Args:
        confusion: Counts, shape (C, C), rows true, columns predicted.

    Example:
        >>> precision_per_class(torch.tensor([[3, 1], [0, 4]])).tolist()
        [1.0, 0.8]
    """
    return confusion.diagonal().double() / confusion.sum(dim=0).double()


def f1_per_class(confusion: Tensor) -> Tensor:
    """Return ``2 TP / (2 TP + FP + FN)``, float64 (C,); NaN for a class without images.

    Args:
        confusion: Counts, shape (C, C), rows true, columns predicted.

    Example:
        >>> f1_per_class(torch.tensor([[2, 2], [0, 4]])).tolist()[1]
        0.8
    """
    images, predictions = confusion.sum(dim=1), confusion.sum(dim=0)
    score = 2 * confusion.diagonal().double() / (images + predictions).double()
    return torch.where(images > 0, score, torch.nan)


def harmonic_mean(recall: Tensor) -> Tensor:
    """Return the harmonic mean of the recalls: 0 as soon as one class is never right; NaN where there is no image.

    Args:
        recall: Recall per class, shape (C,), NaN for a class without images.

    Example:
        >>> harmonic_mean(torch.tensor([1.0, 0.5, torch.nan]).double()).item()
        0.6666666666666666
    """
    # 1 / 0 is infinity and 1 / infinity is 0, which is the limit wanted.
    return 1 / (1 / recall).nanmean()
