"""DRW: deferred re-weighting, class-balanced weights on any loss once the representation is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtail.counts import ClassCountsLike
from longtail.losses.base import LongTailLoss, check_range
from longtail.losses.class_balanced import effective_number_weights
from longtail.losses.soft_targets import AdjustedLogits


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
        check_range("start", start, 0.0, 1.0)
        if loss.num_classes != self.num_classes:
            raise ValueError(
                f"the wrapped loss has {loss.num_classes} classes, these counts {self.num_classes}: give both the same."
            )
        self.loss = loss
        self.start, self.beta = start, beta
        self.needs_features, self.needs_classifier, self.head = loss.needs_features, loss.needs_classifier, loss.head
        self.focal_gamma, self.focal_detached = loss.focal_gamma, loss.focal_detached
        self._table("_late_weight", effective_number_weights(class_counts, beta))

    @property
    def logit_scale(self) -> float:
        """That of the wrapped loss."""
        return self.loss.logit_scale

    @property
    def prior_exponent(self) -> float:
        """That of the wrapped loss."""
        return self.loss.prior_exponent

    @property
    def progress(self) -> float:
        """Training progress in [0, 1], the wrapped loss's too."""
        return float(self._progress)

    @progress.setter
    def progress(self, value: float) -> None:
        self.loss.progress = value
        self._progress.fill_(value)

    def sample_noise(self, like: Tensor) -> Tensor:
        """The noise of the wrapped loss; replace it there, for it is the wrapped loss that draws."""
        return self.loss.sample_noise(like)

    def count_empty_as_zero(self) -> None:
        """Make the mean of the wrapped loss over no labels 0."""
        self.loss.count_empty_as_zero()

    @property
    def may_be_empty(self) -> bool:
        """As in the wrapped loss, whose weights these multiply."""
        return self.loss.may_be_empty

    def attach_classifier(self, classifier: nn.Module) -> None:
        """Hand the classifier to the wrapped loss."""
        self.loss.attach_classifier(classifier)

    def adjust_logits(self, logits: Tensor, features: Tensor | None, /) -> AdjustedLogits:
        """As the wrapped loss does."""
        return self.loss.adjust_logits(logits, features)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """The wrapped loss with the weights of this moment; arguments as for every loss."""
        return self.loss.weighted_forward(logits, target, features, weight=self._current_weight())

    def _current_weight(self) -> Tensor:
        # Equation 10: weights of 1 until progress `start`, class-balanced ones from there on
        weight = torch.where(self._progress >= self.start, self._late_weight, 1.0)
        return weight if self.loss.weight is None else weight * self.loss.weight
