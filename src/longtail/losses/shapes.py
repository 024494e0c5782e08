"""The shapes ``torch.nn.CrossEntropyLoss`` takes, all brought to rows of class scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """A call's inputs with every dimension but the class moved into one of size M.

    Attributes:
        logits: Shape (M, C), float32 or float64.
        target: Class indices, shape (M,), or probabilities, shape (M, C).
        features: Shape (M, D), or ``None``.
        shape: The shape of one loss per target.
    """

    logits: Tensor
    target: Tensor
    features: Tensor | None
    shape: torch.Size


def as_rows(logits: Tensor, target: Tensor, features: Tensor | None, num_classes: int) -> Rows:
    """Check the inputs of a loss and bring them to rows.

    Args:
        logits: Shape (N, C), (C,) or (N, C, d1, ...).
        target: Indices, shaped like ``logits`` without the class, or probabilities, shaped like ``logits``.
        features: Shaped like ``logits`` with D for C, or ``None``.
        num_classes: C.

    Raises:
        ValueError: The shapes do not fit one another.
        TypeError: The logits or probabilities are not floating point, or the indices not integers.

    Example:
        >>> rows = as_rows(torch.zeros(2, 3, 5), torch.zeros(2, 5, dtype=torch.int64), None, num_classes=3)
        >>> rows.logits.shape, rows.target.shape, rows.shape
        (torch.Size([10, 3]), torch.Size([10]), torch.Size([2, 5]))
    """
    if features is None and _are_rows(logits, target, num_classes):
        return Rows(logits, target, None, target.shape)
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}.")
    dim = 0 if logits.ndim == 1 else 1
    if logits.ndim == 0 or logits.shape[dim] != num_classes:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit {num_classes} classes: build the loss from the class "
            "counts of this data, and the classifier with as many outputs."
        )
    rows, shape = _flat(logits, dim), _without(logits, dim)
    labels = _flat_target(target, logits, dim)
    if features is None:
        return Rows(rows, labels, None, shape)
    if features.ndim != logits.ndim or _without(features, dim) != shape:
        raise ValueError(
            f"features of shape {tuple(features.shape)} do not fit logits of shape {tuple(logits.shape)}: give one "
            "feature vector for each row of logits."
        )
    return Rows(rows, labels, _flat(features, dim).to(rows.dtype), shape)


def _are_rows(logits: Tensor, target: Tensor, num_classes: int) -> bool:
    """Whether nothing is to be done: float32 rows and one index a row, what nearly every training step gives."""
    return (
        logits.dtype == torch.float32 and target.dtype == torch.int64 and logits.shape == (*target.shape, num_classes)
    ) and target.ndim == 1


def _flat_target(target: Tensor, logits: Tensor, dim: int) -> Tensor:
    if target.shape == logits.shape:
        if not target.is_floating_point():
            raise TypeError(f"a target shaped like the logits holds probabilities, but it is of {target.dtype}.")
        return _flat(target, dim)
    shape = _without(logits, dim)
    if target.shape != shape:
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit logits of shape {tuple(logits.shape)}: give class "
            f"indices of shape {tuple(shape)} or probabilities of shape {tuple(logits.shape)}."
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"class indices must be integers, got {target.dtype}: call target.long().")
    return target.reshape(-1).long()


def _without(values: Tensor, dim: int) -> torch.Size:
    return values.shape[:dim] + values.shape[dim + 1 :]


def _flat(values: Tensor, dim: int) -> Tensor:
    """``values`` as rows, shape (M, values.shape[dim]); half precisions raised to float32."""
    # Rows already: two views less to differentiate, which a small batch would notice.
    rows = values if values.ndim == 2 else values.movedim(dim, -1).reshape(-1, values.shape[dim])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
