"""The running sums of an epoch, kept on the device, so that no step waits for the host."""

from __future__ import annotations

import torch
from torch import Tensor

CHECK_STEPS = 50  # how often the host looks at the running sums


class Meter:
    """Running sums of an epoch, kept on the device: loss, right answers, images, and the first step that went wrong.

    Args:
        device: Where the sums are kept.
        asynchronous: The device computes while the host goes on, so that the sums are sent off at one look and read at
            a later one.
    """

    def __init__(self, device: torch.device, *, asynchronous: bool = False) -> None:
        self._asynchronous = asynchronous
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, correct, images, 1 + first bad step
        self._steps: list[tuple[Tensor, Tensor, int, int]] = []  # not added yet: one operation for many steps
        self._copy: Tensor | None = None  # on its way to the host
        self._arrived: torch.cuda.Event | None = None
        self._seen = [0.0] * 4

    def add(self, loss: Tensor, correct: Tensor, count: int, step: int) -> None:
        """Add one step; nothing here waits for the device."""
        self._steps.append((loss, correct, count, step))
        if len(self._steps) == CHECK_STEPS:
            self._add_up()

    def start_from(self, sums: Tensor) -> None:
        """Go on from the sums of earlier steps of the epoch."""
        self._sums += sums.to(self._sums)

    @property
    def sums(self) -> Tensor:
        """float64 (4,): loss times images, right answers, images, and 1 + the first step without a finite loss."""
        if self._steps:
            self._add_up()
        return self._sums

    def _add_up(self) -> None:
        losses, corrects, counts, steps = zip(*self._steps, strict=True)
        self._steps.clear()
        loss = torch.stack(losses).double()
        numbers = torch.tensor([counts, steps], dtype=torch.float64, pin_memory=self._asynchronous)
        count, step = numbers.to(loss, non_blocking=True)
        bad = ~loss.isfinite()
        first = torch.where(bad, step + 1, torch.inf).min()
        self._sums[3] = torch.where(bad.any() & (self._sums[3] == 0), first, self._sums[3])
        self._sums[:3] += torch.stack([(loss * count).sum(), torch.stack(corrects).double().sum(), count.sum()])

    def look(self) -> None:
        """Bring the sums to the host without waiting: asynchronously, those that were sent off at the look before."""
        if not self._asynchronous:
            self._seen = self.sums.tolist()
            return
        if self._copy is not None and self._arrived is not None and self._arrived.query():  # type: ignore[no-untyped-call]
            self._seen = self._copy.tolist()
            self._copy = None
        if self._copy is None:
            self._copy = torch.empty(4, dtype=torch.float64, pin_memory=True).copy_(self.sums, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    @property
    def mean_loss(self) -> float | None:
        """Mean loss on this process as of the last look; None where nothing has been seen yet."""
        loss, _, images, _ = self._seen
        return loss / images if images else None

    @property
    def looks_bad(self) -> bool:
        """Whether a loss was not a finite number, as of the last look."""
        return self._seen[3] > 0

    @property
    def bad_step(self) -> int | None:
        """The first step whose loss was not a finite number, or None. Waits for the device."""
        step = int(self.sums[3].item())
        return step - 1 if step else None
