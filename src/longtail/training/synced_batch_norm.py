"""Batch normalization by the statistics of the batches of all processes together, on every device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SyncedBatchNorm(TorchFunctionMode):
    """A ``with`` block in which every batch normalization in training counts the batches of all processes.

    ``torch.nn.SyncBatchNorm`` is for accelerators only, and takes the place of a layer, so that an activation which
    is a part of that layer, as in timm's, is lost. Here the layers stay: what they call is replaced.

    References:
        [1] Ioffe and Szegedy, Batch normalization, ICML 2015, algorithm 1.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, or the synchronized one in its place."""
        del types
        return (synced_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def synced_batch_norm(
    input: Tensor,  # noqa: A002 - the names of torch.nn.functional.batch_norm
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute :func:`torch.nn.functional.batch_norm` by the statistics of all processes.

    Args:
        input: Shape (N, C, ...); half precisions are averaged in float32.
        running_mean: Shape (C,), moved in training as is ``running_var``.
        running_var: Shape (C,).
        weight: Scale, shape (C,).
        bias: Shift, shape (C,).
        training: Whether to normalize by the batch; by the running statistics otherwise.
        momentum: Share of this batch in the running statistics.
        eps: Added to the variance.

    Example:
        >>> images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> with SyncedBatchNorm():  # without other processes
        ...     synced = torch.nn.BatchNorm2d(3)(images)
        >>> torch.allclose(synced, torch.nn.BatchNorm2d(3)(images), atol=1e-6)
        True
    """
    if not training or not torch.distributed.is_initialized():
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    values = input.float()
    over, shape = [0, *range(2, input.ndim)], [1, -1, *[1] * (input.ndim - 2)]
    total = _sum_over_processes(torch.cat([values.sum(over), values.new_tensor([values[:, 0].numel()])]))
    mean, count = total[:-1] / total[-1], total[-1].detach()
    centered = values - mean.view(shape)
    var = _sum_over_processes(centered.square().sum(over)) / count  # of the centered values: exact where it is small
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.detach().to(running_mean), momentum)
        running_var.lerp_((var.detach() * count / (count - 1).clamp_min(1)).to(running_var), momentum)
    scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    normalized = centered * scale.view(shape)
    return (normalized if bias is None else normalized + bias.view(shape)).to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return _SumOverProcesses.forward(None, gradients[0])


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total
