"""Cross-entropy of adjusted logits with hard or soft targets, class weights and reductions."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

Reduction = Literal["mean", "sum", "none"]

# Where the softplus of a loss above this is taken as the loss itself; exp(60) still fits float32.
_SOFTPLUS_LINEAR_ABOVE = 60.0


class AdjustedLogits(NamedTuple):
    """The logits that go into softmax, as a function of the label.

    Attributes:
        logits: Shape (N, C): the logit of every class that is *not* the label. Where a later field is given, a tensor
            made by the method, not its input: with class indices as targets it is adjusted in place.
        target_logits: Shape (N, C): the logit of class c where c *is* the label; ``None`` if it is the same.
        label_scale: Shape (C,): what multiplies all logits of a sample whose label is c; ``None`` for one.
        label_shift: Shape (C,): what is added to the logit of class c where c is the label, before it is scaled, in
            place of ``target_logits``: a margin that does not depend on the sample costs nothing then.
    """

    logits: Tensor
    target_logits: Tensor | None = None
    label_scale: Tensor | None = None
    label_shift: Tensor | None = None

    @property
    def follow_label(self) -> bool:
        """Whether the logits depend on the label at all."""
        return self.target_logits is not None or self.label_scale is not None or self.label_shift is not None


class ReductionOptions(NamedTuple):
    """Reduction of the losses of single labels to one number; meanings as in ``torch.nn.CrossEntropyLoss``.

    Attributes:
        weight: Shape (C,), the weight of each label, or ``None``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: The label that contributes nothing.
        label_smoothing: The share of each target that is spread evenly over the classes.
        focal_gamma: The exponent g of the focal form ``(1 - p)^g CE``; 0 is plain cross-entropy.
        focal_detached: Whether the factor ``(1 - p)^g`` is a constant in the gradient.
        empty_is_zero: Whether the mean is 0 instead of nan if all labels are ignored or have weight 0.
    """

    weight: Tensor | None = None
    reduction: Reduction = "mean"
    ignore_index: int = -100
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    focal_detached: bool = True
    empty_is_zero: bool = False


def soft_cross_entropy(adjusted: AdjustedLogits, target: Tensor, options: ReductionOptions) -> Tensor:
    """Cross-entropy of logits that may depend on the label, in expectation over the target.

    Args:
        adjusted: The logits, each part as in :class:`AdjustedLogits`.
        target: Class indices, shape (N,), or class probabilities, shape (N, C).
        options: Weights, reduction, smoothing and focal form.

    Returns:
        A scalar, or shape (N,) for ``reduction="none"``.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> adjusted = AdjustedLogits(logits, target_logits=logits - 0.5)
        >>> hard = soft_cross_entropy(adjusted, torch.tensor([0, 1]), ReductionOptions())
        >>> soft = soft_cross_entropy(adjusted, torch.eye(2), ReductionOptions())
        >>> round(hard.item(), 4), round(soft.item(), 4)
        (0.3377, 0.3377)
    """
    if options.reduction == "mean" and options.empty_is_zero:
        total = soft_cross_entropy(adjusted, target, options._replace(reduction="sum"))
        divisor = mean_divisor(target, options, total)
        counts = divisor > 0
        return total * counts / torch.where(counts, divisor, 1.0)
    hard = target.ndim == 1 and options.label_smoothing == 0
    logits = _logits_of_labels(adjusted, target) if hard and adjusted.follow_label else adjusted.logits
    if options.focal_gamma == 0 and (hard or not adjusted.follow_label):
        return functional.cross_entropy(
            logits,
            target,
            options.weight,
            ignore_index=options.ignore_index,
            reduction=options.reduction,
            label_smoothing=options.label_smoothing,
        )
    if hard:
        losses = functional.cross_entropy(logits, target, ignore_index=options.ignore_index, reduction="none")
        losses = _focal(losses, options)
        losses = losses if options.weight is None else losses * _label_weight(target, options, losses)
    else:
        probabilities = _label_probabilities(target, options, logits)
        losses = _losses_of_all_labels(adjusted, probabilities)
        losses = losses if options.focal_gamma == 0 else _focal(losses, options)
        losses = losses if options.weight is None else losses * options.weight
        # Equation 3: the expectation over the labels, sum_c p_c loss(c)
        losses = (probabilities * losses).sum(1)
    if options.reduction == "none":
        return losses
    return losses.sum() / mean_divisor(target, options, losses) if options.reduction == "mean" else losses.sum()


def mean_divisor(target: Tensor, options: ReductionOptions, like: Tensor) -> Tensor:
    """The divisor of ``reduction="mean"``, a scalar of the dtype and device of ``like``.

    For class indices it is the sum of the weights of the labels that are not ignored; for probabilities it is the
    number of samples, whatever the weights: the two rules of ``torch.nn.CrossEntropyLoss``.

    Args:
        target: Class indices, shape (N,), or probabilities, shape (N, C).
        options: The weights and the ignored label.
        like: A tensor whose dtype and device the answer has.

    Example:
        >>> options = ReductionOptions(weight=torch.tensor([1.0, 3.0]))
        >>> mean_divisor(torch.tensor([0, 1, 1, -100]), options, torch.zeros(()))
        tensor(7.)
    """
    if target.ndim == 1:
        return _label_weight(target, options, like).sum()
    return torch.full((), float(target.shape[0]), dtype=like.dtype, device=like.device)


def _label_weight(target: Tensor, options: ReductionOptions, like: Tensor) -> Tensor:
    """The weight of each sample's label, shape (N,); 0 where it is ignored."""
    counted = target != options.ignore_index
    if options.weight is None:
        return counted.to(like.dtype)
    return torch.where(counted, options.weight.to(like.dtype)[_safe(target, options.ignore_index)], 0.0)


def _label_probabilities(target: Tensor, options: ReductionOptions, like: Tensor) -> Tensor:
    """The target as probabilities, shape (N, C), smoothed; rows of ignored labels are zero."""
    classes, indices = like.shape[1], target.ndim == 1
    sharp = functional.one_hot(_safe(target, options.ignore_index), classes) if indices else target
    smooth = sharp.to(like.dtype) * (1 - options.label_smoothing) + options.label_smoothing / classes
    return smooth * (target != options.ignore_index).unsqueeze(1).to(like.dtype) if indices else smooth


def _safe(target: Tensor, ignore_index: int) -> Tensor:
    """The labels with ignored ones set to 0, so that they can index a table."""
    return torch.where(target == ignore_index, 0, target)


def _logits_of_labels(adjusted: AdjustedLogits, target: Tensor) -> Tensor:
    """The logits of each sample under its own label, shape (N, C); those of an ignored label are any."""
    logits, shift, classes = adjusted.logits, adjusted.label_shift, adjusted.logits.shape[1]
    # An ignored label may be any number; cross-entropy, which sees it as it is, refuses a wrong one.
    column = target.clamp(0, classes - 1).unsqueeze(1)
    scale = None if adjusted.label_scale is None else adjusted.label_scale.take(column)
    if adjusted.target_logits is not None:
        logits = logits.scatter(1, column, adjusted.target_logits.gather(1, column))
    if torch.compiler.is_compiling():  # a comparison fuses with what is around it, a scatter does not
        if scale is not None:  # first: after the comparison it costs a third more
            logits, shift = logits * scale, None if shift is None else shift * scale
        is_label = torch.arange(classes, device=logits.device) == column
        return logits if shift is None else torch.where(is_label, logits + shift, logits)
    if shift is not None:
        logits = logits.scatter_add_(1, column, shift.take(column))
    return logits if scale is None else logits.mul_(scale)


def _losses_of_all_labels(adjusted: AdjustedLogits, probabilities: Tensor) -> Tensor:
    """The cross-entropy each class would have as the label, shape (N, C)."""
    if adjusted.label_scale is not None:
        losses_of_pairs = _losses_of_likely_labels
        # The number of pairs differs from batch to batch, and each would be compiled anew.
        if torch.compiler.is_compiling():
            losses_of_pairs = torch.compiler.disable(losses_of_pairs)  # type: ignore[no-untyped-call]
        return losses_of_pairs(adjusted, probabilities)
    # The logit of every class as the label; none where it is that of any class
    target_logits = adjusted.target_logits if adjusted.label_shift is None else adjusted.logits + adjusted.label_shift
    if target_logits is None:
        return -functional.log_softmax(adjusted.logits, dim=1)
    return functional.softplus(_log_sum_of_others(adjusted.logits) - target_logits, threshold=_SOFTPLUS_LINEAR_ABOVE)


def _log_sum_of_others(logits: Tensor) -> Tensor:
    """``log sum_{j != c} exp z_j`` for every class c, shape (N, C), in time and memory O(N C).

    Taking class c out of the full sum is exact while its probability is at most one half, which holds for every class
    but the largest; for that one the sum is taken anew without it.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    largest = classes == logits.argmax(dim=1, keepdim=True)
    total = logits.logsumexp(dim=1, keepdim=True)
    probability = (logits - total).exp().masked_fill(largest, 0.0)
    without_largest = logits.masked_fill(largest, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.where(largest, without_largest, total + torch.log1p(-probability))


def _losses_of_likely_labels(adjusted: AdjustedLogits, probabilities: Tensor) -> Tensor:
    """Compute :func:`_losses_of_all_labels` where every label has its own scale: only pairs with a probability count.

    A mixed batch has two such labels a sample, so this costs twice a plain batch; a smoothed one has all C of them.
    """
    rows, labels = probabilities.detach().nonzero(as_tuple=True)
    target_logits = None if adjusted.target_logits is None else adjusted.target_logits[rows]
    pairs = _logits_of_labels(adjusted._replace(logits=adjusted.logits[rows], target_logits=target_logits), labels)
    losses = functional.cross_entropy(pairs, labels, reduction="none")
    return torch.zeros_like(adjusted.logits).index_put((rows, labels), losses)


def _focal(losses: Tensor, options: ReductionOptions) -> Tensor:
    """``(1 - p)^g CE`` with ``p = exp(-CE)``, elementwise."""
    # Equation 6: the factor (1 - p)^g is part of the gradient
    if torch.compiler.is_compiling() and not options.focal_detached:
        value: Tensor = _CompiledFocal.apply(losses, options.focal_gamma)  # type: ignore[no-untyped-call]
        return value
    # Equation 22: in stage 2 of GCL p is detached, and the factor a constant weight of the sample
    return losses * _miss(losses.detach() if options.focal_detached else losses) ** options.focal_gamma


class _CompiledFocal(torch.autograd.Function):
    """Compute :func:`_focal` and its slope together: a compiler would recompute the slope for each class."""

    @staticmethod
    def forward(ctx: FunctionCtx, losses: Tensor, gamma: float) -> Tensor:
        miss = _miss(losses)
        ctx.save_for_backward(miss**gamma + gamma * losses * (1 - miss) * miss ** (gamma - 1))
        return losses * miss**gamma

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None


def _miss(losses: Tensor) -> Tensor:
    """``1 - p``, above zero: the slope of a root is infinite there, and exponents below one have to stay finite."""
    return (-torch.expm1(-losses)).clamp(min=torch.finfo(losses.dtype).tiny)
