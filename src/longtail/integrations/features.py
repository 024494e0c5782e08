"""ReadFeatures: a loss that needs features, called like any other: it looks at the classifier's input itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from longtail.losses.base import LongTailLoss


class ReadFeatures(nn.Module):
    """``loss(logits, target)`` for a loss that needs features: they are what the classifier was last given.

    Training scripts hand a loss the logits and the labels and nothing else. This one remembers the input of the
    classifier at each forward pass. It works with any network whose classifier is a module of its own, also under
    ``DistributedDataParallel``; not under ``DataParallel``, which copies the network at each step.

    Args:
        loss: The loss; one that reads the classifier's weight (``feature-noise``) is given the classifier.
        classifier: The last layer of the network, such as ``model.fc``; it stays as it is.

    Raises:
        ValueError: Called before the network was.

    Example:
        >>> import torch
        >>> from longtail.losses import FBLoss
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> loss = ReadFeatures(FBLoss([500, 50, 5]), network[-1])
        >>> loss.progress = 0.5
        >>> bool(loss(network(torch.ones(2, 4)), torch.tensor([0, 2])).isfinite())
        True
    """

    def __init__(self, loss: LongTailLoss, classifier: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self._features: Tensor | None = None
        if loss.needs_classifier:
            loss.attach_classifier(classifier)
        classifier.register_forward_pre_hook(self._remember)

    @property
    def progress(self) -> float:
        """Training progress in [0, 1], the loss's own."""
        return self.loss.progress

    @progress.setter
    def progress(self, value: float) -> None:
        self.loss.progress = value

    @property
    def ignore_index(self) -> int:
        """The label that the loss ignores."""
        return self.loss.ignore_index

    def count_empty_as_zero(self) -> None:
        """Make the mean of the loss over no labels 0; see :meth:`LongTailLoss.count_empty_as_zero`."""
        self.loss.count_empty_as_zero()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the logits that the network has just given."""
        if self._features is None:
            raise ValueError("the classifier has not been called yet: call the network before the loss.")
        return self.loss(logits, target, self._features)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the last features: they cannot be copied, and a network is copied with its hooks."""
        return {**vars(self), "_features": None}

    def _remember(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._features = inputs[0]
