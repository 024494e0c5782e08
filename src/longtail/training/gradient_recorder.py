"""GradientRecorder: the gradient on each class's logit and the probability of its images, summed on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from longtail.analysis.dynamics import BINS, EDGES
from longtail.device import float64_device
from longtail.losses.base import LongTailLoss
from longtail.run.dynamics import SUMS, write_epoch
from longtail.training.loop import CHECK_STEPS, Callback, StageRun


class GradientRecorder(Callback):
    """Sums of one epoch over the gradients on the logits; nothing here waits for the device.

    With ``g`` the gradient of an image's own loss on the logits, class ``c`` is raised by ``sum_i max(-g_ic, 0)`` and
    lowered by ``sum_i max(g_ic, 0)``. Both follow from the sums of ``g`` and of ``|g|``, which need no labels, so they
    hold for mixed targets too. Logits are taken as softmax sees them: multiplied by the scale of the loss.

    Args:
        loss: The loss; if it is a mean over the batch, its gradients are multiplied by the batch size.
        device: Device of the logits.
        scaler: The gradient scaler of ``accelerate`` for float16, or None.
        out: The RUN folder that each epoch is written to; None writes nothing.

    References:
        [1] Tan et al., Equalization Loss v2, CVPR 2021, arXiv 2012.08548: the accumulated positive and negative
            gradient of a class and their ratio.

    Example:
        >>> from longtail.losses import CrossEntropyLoss
        >>> from longtail.run.dynamics import epoch_columns
        >>> loss = CrossEntropyLoss([3, 1])
        >>> recorder = GradientRecorder(loss, torch.device("cpu"))
        >>> logits, target = torch.zeros(4, 2, requires_grad=True), torch.tensor([0, 0, 0, 1])
        >>> recorder.on_logits(logits, target)
        >>> loss(logits, target).backward()
        >>> columns = epoch_columns(recorder.sums, recorder.scale)
        >>> columns["positive"].tolist(), columns["negative"].tolist(), columns["gradient"].tolist()
        ([1.5, 0.5], [0.5, 1.5], [0.5, 0.5])
    """

    def __init__(
        self, loss: LongTailLoss, device: torch.device, *, scaler: Any = None, out: Path | None = None
    ) -> None:
        self.scale, self.out = loss.logit_scale, out
        self._mean, self._scaler = loss.reduction == "mean", scaler
        place = float64_device(device)
        self._sums = torch.zeros(loss.num_classes, SUMS + BINS, dtype=torch.float64, device=place)
        self._inner = torch.tensor(EDGES[1:-1], dtype=torch.float32, device=place)
        self._steps: list[tuple[Tensor, ...]] = []  # not added yet: few operations for many steps
        self._factor = 1.0  # of all of them

    def on_logits(self, logits: Tensor, target: Tensor, share: float = 1.0) -> None:
        """Look at the gradient on these logits once it is there.

        Args:
            logits: Shape (N, C), what the loss will be called on.
            target: Class indices (N,), or probabilities (N, C); the class of an image is then its largest.
            share: Share of the batch, where these are a part of it: the factor of their loss.
        """
        label = target if target.ndim == 1 else target.argmax(dim=1)
        factor = float(round(len(logits) / share)) if self._mean else 1 / share
        values = logits.detach()
        logits.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: self._add(values, gradient, label, factor)
        )

    def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
        """Write the sums of all processes, and begin the next epoch."""
        sums = stage.engine.sum(self.sums)
        if self.out is not None and stage.engine.is_main:
            write_epoch(self.out, row["stage"], row["epoch"], sums, self.scale)
        self.start()

    def _add(self, logits: Tensor, gradient: Tensor, label: Tensor, factor: float) -> None:
        if factor != self._factor or len(self._steps) == CHECK_STEPS:
            self._add_up()
            self._factor = factor
        gradient = gradient.float()
        if self._scaler is not None:
            gradient = gradient / self._scaler.scale(gradient.new_ones(()))
        scores = logits.float() if self.scale == 1 else logits.float() * self.scale
        own_gradient = gradient.gather(1, label[:, None])
        loss = functional.cross_entropy(scores, label, reduction="none")
        self._steps.append((gradient.sum(0), gradient.abs().sum(0), own_gradient, loss, label))

    def _add_up(self) -> None:
        if not self._steps:
            return
        total, size, own_gradient, loss, label = zip(*self._steps, strict=True)
        self._steps.clear()
        place = self._sums.device
        labels = torch.cat(label).to(place)
        # In double precision, so that the sums of a resumed epoch do not depend on how many steps are added at once.
        self._sums[:, 0] += self._factor * torch.stack(total).to(place).sum(0, dtype=torch.float64)
        self._sums[:, 1] += self._factor * torch.stack(size).to(place).sum(0, dtype=torch.float64)
        self._sums[:, 2].index_add_(0, labels, self._factor * torch.cat(own_gradient)[:, 0].abs().to(place).double())
        bins = torch.bucketize(torch.cat(loss).neg().exp().to(place), self._inner, right=True)
        flat = labels * self._sums.shape[1] + SUMS + bins
        self._sums.view(-1).index_add_(0, flat, torch.ones_like(flat, dtype=torch.float64))

    @property
    def sums(self) -> Tensor:
        """float64 (C, 3 + BINS), of this process; sums of several processes add."""
        self._add_up()
        return self._sums

    def start(self, sums: Tensor | None = None) -> None:
        """Begin an epoch, from the sums of its earlier steps if there are any."""
        self._steps.clear()
        self._sums.zero_()
        if sums is not None:
            self._sums += sums.to(self._sums)
