"""Re-weighting by class: inverse counts, effective numbers of images, and DRW, which defers the weights of any loss."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray
from longtail.losses.base import AdjustedLogits, CommonOptions, LongTailLoss, check_range


def effective_number_weights(class_counts: ClassCountsLike, beta: float = 0.9999) -> FloatArray:
    """Weights ``(1 - b) / (1 - b^n_j)``, scaled to mean 1, shape (C,).

    Between ``b = 0`` (all weights one) and ``b -> 1`` (weights proportional to ``1 / n_j``). A class with zero images
    counts as one image.

    Args:
        class_counts: Training images per class, length C.
        beta: ``b`` in [0, 1).

    Raises:
        ValueError: ``beta`` is outside [0, 1).

    Example:
        >>> effective_number_weights([1000, 10]).round(3).tolist()
        [0.021, 1.979]
    """
    beta = check_range("beta", beta, 0.0, 1.0)
    if beta == 1.0:
        raise ValueError("beta must be below 1: take WeightedLoss for weights proportional to 1 / n.")
    counts = ClassCounts.of(class_counts).at_least_one
    # Equation 7: (1 - b) / (1 - b^n_j), scaled to mean 1; expm1 takes 1 - b^n without cancellation near b = 1
    covered = -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones_like(counts)
    return np.asarray((1 / covered) / (1 / covered).mean(), dtype=np.float64)


def inverse_count_weights(class_counts: ClassCountsLike) -> FloatArray:
    """Weights proportional to ``1 / n_j``, scaled to mean 1, shape (C,); zero images count as one.

    Example:
        >>> inverse_count_weights([30, 10]).tolist()
        [0.5, 1.5]
    """
    # Equation 5: 1 / n_j, scaled to mean 1
    inverse = 1 / ClassCounts.of(class_counts).at_least_one
    return np.asarray(inverse / inverse.mean(), dtype=np.float64)


def _multiplied(weights: FloatArray, weight: Tensor | None) -> Tensor:
    """The weights made of the class counts, times those that the user gives."""
    made = torch.as_tensor(weights, dtype=torch.float32)
    return made if weight is None else made * weight


class ClassBalancedLoss(LongTailLoss):
    """Cross-entropy weighted by the inverse effective number of images.

    References:
        [1] Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, equation 4.

    Args:
        class_counts: Training images per class, length C.
        beta: ``b`` in [0, 1).
        **common: ``weight`` (multiplies the weights made here), ``reduction``, ``ignore_index``, ``label_smoothing``;
            see :class:`LongTailLoss`.

    Raises:
        ValueError: ``beta`` is outside [0, 1).

    Example:
        >>> ClassBalancedLoss([1000, 10]).weight
        tensor([0.0208, 1.9792])
    """

    def __init__(self, class_counts: ClassCountsLike, *, beta: float = 0.9999, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self.beta = check_range("beta", beta, 0.0, 1.0)
        self.weight = _multiplied(effective_number_weights(class_counts, beta), self.weight)


class WeightedLoss(LongTailLoss):
    """Cross-entropy weighted by ``1 / n_j``, mean 1 over the classes: the "balanced" weights of scikit-learn, scaled.

    Args:
        class_counts: Training images per class, length C.
        **common: ``weight`` (multiplies the weights made here), ``reduction``, ``ignore_index``, ``label_smoothing``;
            see :class:`LongTailLoss`.

    Example:
        >>> WeightedLoss([30, 10]).weight
        tensor([0.5000, 1.5000])
    """

    def __init__(self, class_counts: ClassCountsLike, **common: Unpack[CommonOptions]) -> None:
        super().__init__(class_counts, **common)
        self.weight = _multiplied(inverse_count_weights(class_counts), self.weight)


class DeferredReweighting(LongTailLoss):
    """Any loss of this package, with class-balanced weights from progress ``start`` on, and as it is before.

    The weights multiply those the loss has already. ``weight``, ``reduction`` and the other common options are set on
    the wrapped loss.

    References:
        [1] Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019,
            algorithm 1.

    Args:
        loss: The loss to wrap; its progress is set with this one's.
        class_counts: Training images per class, length C.
        start: Progress in [0, 1] from which the weights are on (0.8 is epoch 160 of 200); 0 for always.
        beta: ``b`` of the effective number, in [0, 1).

    Raises:
        ValueError: An option outside its range, or a loss of another number of classes.

    Example:
        >>> from longtail.losses import LDAMLoss
        >>> counts = [500, 50, 5]
        >>> loss = DeferredReweighting(LDAMLoss(counts), counts)
        >>> cosine, target = torch.tensor([[0.6, 0.1, 0.4], [0.6, 0.1, 0.4]]), torch.tensor([0, 2])
        >>> round(loss(cosine, target).item(), 2)
        10.63
        >>> loss.progress = 0.8
        >>> round(loss(cosine, target).item(), 2)
        20.79
    """

    _late_weight: Tensor

    def __init__(
        self, loss: LongTailLoss, class_counts: ClassCountsLike, *, start: float = 0.8, beta: float = 0.9999
    ) -> None:
        super().__init__(
            class_counts,
            reduction=loss.reduction,
            ignore_index=loss.ignore_index,
            label_smoothing=loss.label_smoothing,
        )
        if loss.num_classes != self.num_classes:
            raise ValueError(
                f"the wrapped loss has {loss.num_classes} classes, these counts {self.num_classes}: give both the same."
            )
        self.loss = loss
        self.start, self.beta = check_range("start", start, 0.0, 1.0), check_range("beta", beta, 0.0, 1.0)
        self.needs_features, self.needs_classifier, self.head = loss.needs_features, loss.needs_classifier, loss.head
        self.focal_gamma, self.focal_detached = loss.focal_gamma, loss.focal_detached
        self.scale, self.prior_exponent = loss.scale, loss.prior_exponent
        self._table("_late_weight", effective_number_weights(class_counts, beta))

    @property
    def progress(self) -> float:
        """Training progress in [0, 1], the wrapped loss's too."""
        return float(self._progress)

    @progress.setter
    def progress(self, value: float) -> None:
        self.loss.progress = value
        self._progress.fill_(check_range("progress", value, 0.0, 1.0))

    def sample_noise(self, like: Tensor) -> Tensor:
        """The noise of the wrapped loss; replace it there, for it is the wrapped loss that draws."""
        return self.loss.sample_noise(like)

    def attach_classifier(self, classifier: nn.Module) -> None:
        """Hand the classifier to the wrapped loss."""
        self.loss.attach_classifier(classifier)

    def adjust_logits(self, logits: Tensor, features: Tensor | None, /) -> AdjustedLogits:
        """Adjust the logits as the wrapped loss does."""
        return self.loss.adjust_logits(logits, features)

    @property
    def current_weight(self) -> Tensor:
        """Those of the wrapped loss, times the class-balanced ones once they are on."""
        # Equation 10: weights of 1 until progress `start`, class-balanced ones from there on
        weight = torch.where(self._progress >= self.start, self._late_weight, 1.0)
        return weight if self.loss.weight is None else weight * self.loss.weight
