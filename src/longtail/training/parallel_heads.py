"""Many classifiers trained at once on the same stored features: each step is one product for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from longtail.config.stage import ScheduleConfig
from longtail.counts import ClassCounts
from longtail.losses import LongTailLoss, build_loss
from longtail.losses.base import HeadKind
from longtail.models.heads import CosineHead, LinearHead

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # as in torch.optim


@dataclass(frozen=True)
class HeadPlan:
    """How one classifier is trained.

    Attributes:
        loss: Registered name of the loss.
        head: The kind of classifier.
        lr: Peak learning rate; it falls to zero along a cosine, epoch by epoch.
        weight_decay: L2 penalty, but not of biases (Adam), or decoupled decay (AdamW).
        options: Options of the loss.
        optimizer: ``adamw`` or ``adam``.
    """

    loss: str
    head: HeadKind
    lr: float
    weight_decay: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Literal["adam", "adamw"] = "adamw"


@dataclass(frozen=True)
class Weights:
    """The weights of a classifier for each of F folds.

    Attributes:
        weight: float32 (F, C, D).
        bias: float32 (F, C); None for a cosine classifier.
    """

    weight: Tensor
    bias: Tensor | None

    def logits(self, fold: int, features: Tensor) -> Tensor:
        """Return the logits or cosines, shape (N, C), of one fold's classifier for features (N, D)."""
        weight = self.weight[fold]
        if self.bias is None:
            return _directions(features) @ _directions(weight).T
        return torch.addmm(self.bias[fold], features, weight.T)


def train_heads(
    plans: Sequence[HeadPlan],
    features: Tensor,
    labels: Tensor,
    counts: ClassCounts,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    folds: Tensor | None = None,
    row_weights: Tensor | None = None,
    start: Sequence[Weights] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> list[Weights]:
    """Train a classifier for each plan and fold, all on the same batches.

    It does what :func:`longtail.training.loop.train_epoch` does with Adam or AdamW and a cosine schedule, for all plans
    at once: the features of a batch meet the weights of all classifiers in one product, which a processor computes at
    full speed, where the steps of a single small classifier wait for memory. A fold is a mask: the rows held out of
    it weigh nothing in its loss.

    Args:
        plans: What to train.
        features: float32 (N, D), standardized.
        labels: int64 (N,).
        counts: Training images per class, which losses and the start depend on; those of all rows.
        epochs: Passes over the rows.
        batch_size: Rows per step.
        seed: Of the order of rows and the noise of losses; torch's own generator is seeded with it.
        folds: bool (F, N), true for rows that a fold trains on; None for one that trains on all.
        row_weights: float32 (N,), weight of each row in the mean of a batch; all alike when None.
        start: Weights to start from, as returned, one for each plan; when None those of
            :meth:`~longtail.models.CosineHead.start_from`.
        tick: Called after each step of each shape of head.

    Returns:
        The weights of each plan, in order.

    Raises:
        LongtailError: A loss does not exist or take its options.

    Example:
        >>> rows = torch.eye(4).repeat(8, 1)
        >>> labels = torch.arange(4).repeat(8)
        >>> plan = HeadPlan("cross-entropy", "linear", lr=0.1)
        >>> (weights,) = train_heads([plan], rows, labels, ClassCounts([8] * 4), epochs=9, batch_size=8, seed=0)
        >>> weights.logits(0, torch.eye(4)).argmax(dim=1).tolist()
        [0, 1, 2, 3]
    """
    masks = torch.ones(1, len(labels), dtype=torch.bool) if folds is None else folds
    weighted = masks * (1.0 if row_weights is None else row_weights)
    results: dict[int, Weights] = {}
    numbered = sorted(enumerate(plans), key=lambda pair: pair[1].head)
    for head, group in groupby(numbered, key=lambda pair: pair[1].head):
        numbers, chosen = zip(*group, strict=True)
        bank = _HeadBank(head, chosen, features, labels, counts, weighted.float().T.contiguous())
        torch.manual_seed(seed)
        bank.start(None if start is None else [start[number] for number in numbers])
        order = torch.Generator().manual_seed(seed)
        step, steps = 0, -(-len(labels) // batch_size)
        for epoch in range(epochs):
            rate = ScheduleConfig("cosine").learning_rate(1.0, epoch, epochs)
            for rows in torch.split(torch.randperm(len(labels), generator=order), batch_size):
                bank.step(rows, step / (steps * epochs), rate, step + 1)
                step += 1
                tick()
        results |= dict(zip(numbers, bank.weights(), strict=True))
    return [results[number] for number in range(len(plans))]


class _HeadBank:
    """The classifiers of K plans of one shape on F folds, in tensors of shape (K, F, C, D)."""

    def __init__(
        self,
        head: str,
        plans: Sequence[HeadPlan],
        features: Tensor,
        labels: Tensor,
        counts: ClassCounts,
        row_weights: Tensor,
    ) -> None:
        self.is_cosine = head == "cosine"
        self.features, self.labels, self.row_weights = features, labels, row_weights
        self.inputs = _directions(features) if self.is_cosine else features
        # Plans of the same loss are computed together: a step of a small classifier is bound by the number of calls.
        alike: dict[str, list[int]] = {}
        for number, plan in enumerate(plans):
            alike.setdefault(f"{plan.loss} {sorted(plan.options.items())}", []).append(number)
        self.losses = [
            (build_loss(plans[numbers[0]].loss, counts, {**plans[numbers[0]].options, "reduction": "none"}), numbers)
            for numbers in alike.values()
        ]
        rates = torch.tensor([(plan.lr, plan.weight_decay, plan.optimizer == "adam") for plan in plans])
        self.lr, decay, is_penalty = (column.view(-1, 1, 1, 1) for column in rates.unbind(1))
        self.decay = decay * (1 - is_penalty)
        self.penalty = decay * is_penalty if is_penalty.any() else None
        self.shape = len(plans), row_weights.shape[1], counts.num_classes, features.shape[1]

    def start(self, weights: Sequence[Weights] | None) -> None:
        """Set the weights, and the moments of the optimizer to zero."""
        plans, folds, classes, size = self.shape
        if weights is None:
            head = (CosineHead if self.is_cosine else LinearHead)(size, classes)
            starts = []
            for rows in self.row_weights.T > 0:  # of the rows that a fold trains on: the others are not to be seen
                head.start_from(self.features[rows], self.labels[rows])
                starts.append(head.weight.detach().clone())
            weight, bias = torch.stack(starts).expand(self.shape), torch.zeros(plans, folds, classes, 1)
        else:
            weight = torch.stack([each.weight for each in weights])
            bias = torch.stack([weight.new_zeros(folds, classes) if w.bias is None else w.bias for w in weights])
            bias = bias.unsqueeze(-1)
        trained = [weight.clone()] if self.is_cosine else [weight.clone(), bias.clone()]
        self.parameters = [parameter.requires_grad_() for parameter in trained]
        self.moments = [(torch.zeros_like(parameter), torch.zeros_like(parameter)) for parameter in trained]

    def step(self, rows: Tensor, progress: float, rate: float, number: int) -> None:
        """Make one step of the optimizers on the given rows.

        Args:
            rows: int64 (B,).
            progress: Of the training, in [0, 1].
            rate: Learning rate as a multiple of each plan's peak.
            number: Of the step, from 1.
        """
        plans, folds, classes, size = self.shape
        weight = self.parameters[0]
        matrix = (_directions(weight) if self.is_cosine else weight).reshape(-1, size)
        logits = (self.inputs[rows] @ matrix.T).view(len(rows), plans, folds, classes)
        logits = logits.clamp(-1, 1) if self.is_cosine else logits + self.parameters[1].squeeze(-1)
        total = torch.stack(
            [self._loss(loss, logits[:, numbers].flatten(1, 2), rows, progress) for loss, numbers in self.losses]
        ).sum()
        gradients = torch.autograd.grad(total, self.parameters)
        with torch.no_grad():
            if self.penalty is not None:
                gradients = torch.addcmul(gradients[0], self.penalty, weight), *gradients[1:]
            for parameter, gradient, (first, second) in zip(self.parameters, gradients, self.moments, strict=True):
                lr = self.lr * rate
                first.lerp_(gradient, 1 - _BETAS[0])
                second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
                deviation = (second / (1 - _BETAS[1] ** number)).sqrt_().add_(_EPSILON)
                parameter.mul_(1 - lr * self.decay)
                parameter.sub_((first / deviation).mul_(lr / (1 - _BETAS[0] ** number)))

    def _loss(self, loss: LongTailLoss, logits: Tensor, rows: Tensor, progress: float) -> Tensor:
        """Return the sum over classifiers of the mean loss of a batch, of logits (B, P F, C) of P plans on F folds."""
        classifiers, labels = logits.shape[1], self.labels[rows]
        loss.progress = progress
        features = self.features[rows].repeat_interleave(classifiers, 0) if loss.needs_features else None
        each = loss(logits.flatten(0, 1), labels.repeat_interleave(classifiers), features).view(-1, classifiers)
        weights = self.row_weights[rows].repeat(1, classifiers // self.row_weights.shape[1])
        # As in a weighted mean of one call: the weight of a class is in the loss, and divided by here.
        class_weight = loss.current_weight
        divisor = weights if class_weight is None else weights * class_weight[labels, None]
        return ((each * weights).sum(dim=0) / divisor.sum(dim=0).clamp(min=1e-12)).sum()

    def weights(self) -> list[Weights]:
        """Return the weights of each plan."""
        weight = self.parameters[0].detach()
        if self.is_cosine:
            return [Weights(each, None) for each in weight]
        bias = self.parameters[1].detach().squeeze(-1)
        return [Weights(*each) for each in zip(weight, bias, strict=True)]


def _directions(rows: Tensor) -> Tensor:
    """Divide rows by their length."""
    return torch.nn.functional.normalize(rows, dim=-1)
