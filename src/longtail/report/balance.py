"""What the sections on gradients share: each recorded run, and its smallest group against its largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.analysis.gradients import GradientBalance, gradient_balance
from longtail.counts import GROUP_NAMES, FloatArray
from longtail.evaluation.differences import welch_interval
from longtail.report.compare import Comparison
from longtail.report.findings import named
from longtail.report.over_epochs import Recorded, recorded_rows
from longtail.report.palette import GROUP_LABELS
from longtail.report.text import number

ALIKE = 0.02
"""Two ratios are called equal where one exceeds the other by less than this share."""
Ends = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """A run and its gradients."""

    one: Recorded
    balance: GradientBalance

    @property
    def label(self) -> str:
        """Name of the configuration."""
        return self.one.row.label

    @property
    def end(self) -> int:
        """The last epoch of stage 1, as an index."""
        return self.one.dynamics.end_of_stage_1

    @property
    def last(self) -> FloatArray:
        """Ratio of each class in the last epoch of stage 1, shape (C,)."""
        return np.asarray(self.balance.classes[self.end], dtype=np.float64)

    @property
    def sums(self) -> tuple[FloatArray, FloatArray]:
        """What raised and what lowered each class in that epoch, shape (C,) each; NaN where there is no ratio."""
        known = np.isfinite(self.last) & (self.last > 0)
        parts = (self.one.dynamics.positive[self.end], self.one.dynamics.negative[self.end])
        return np.where(known, parts[0], np.nan), np.where(known, parts[1], np.nan)

    @property
    def head_and_tail(self) -> tuple[int, int]:
        """The largest and the smallest group that the run has, as places in ``GROUP_NAMES``."""
        present = [place for place, name in enumerate(GROUP_NAMES) if name in self.one.run.group_of]
        return present[0], present[-1]

    @property
    def contrast(self) -> Ends | None:
        """Ratio of the largest and of the smallest group, in that epoch; None for one group and where one has none."""
        head, tail = self.head_and_tail
        ratios = self.balance.groups[self.end]
        known = head != tail and np.isfinite(ratios[[head, tail]]).all()
        return (float(ratios[head]), float(ratios[tail])) if known else None

    @property
    def is_clear(self) -> bool:
        """Whether classes of these two groups differ more than chance over classes allows, in their log ratios."""
        groups = np.array(self.one.run.group_of)
        sides = [
            np.log(self.last[(groups == GROUP_NAMES[place]) & (self.last > 0)]).tolist() for place in self.head_and_tail
        ]
        ends = welch_interval(*sides)
        return ends is not None and (ends[0] > 0 or ends[1] < 0)


def panels_of(comparison: Comparison) -> list[Panel]:
    """One for each configuration of which a run recorded its gradients."""
    return [
        Panel(one, gradient_balance(
            one.dynamics.positive, one.dynamics.negative, one.dynamics.images, one.run.group_of,
            together=one.dynamics.end_of_stage_1 + 1,
        ))
        for one in recorded_rows(comparison)
    ]  # fmt: skip


def named_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Those that a sentence speaks of."""
    return named(panels, lambda panel: panel.one.row)


def are_alike(first: float, second: float) -> bool:
    """Whether neither ratio exceeds the other by :data:`ALIKE` or more.

    Example:
        >>> are_alike(1.0, 1.01), are_alike(1.0, 1.03), are_alike(0.0, 0.1)
        (True, False, False)
    """
    return abs(float(np.log(max(second, 1e-9) / max(first, 1e-9)))) < float(np.log1p(ALIKE))


def ratio_text(value: float) -> str:
    """A ratio with as many digits as tell two apart that are not alike.

    Example:
        >>> ratio_text(1.0), ratio_text(0.034), ratio_text(float("nan"))
        ('1.00', '0.034', 'n/a')
    """
    return number(value, 2 if value >= 0.2 else 3)


def group_word(place: int) -> str:
    """A group as a sentence names it, by its place in ``GROUP_NAMES``.

    Example:
        >>> group_word(2)
        'few-shot'
    """
    return GROUP_LABELS[GROUP_NAMES[place]].lower()


def shared_ends(values: Sequence[FloatArray]) -> Ends:
    """Ends of a logarithmic axis, as powers of ten, that holds all positive values with some room.

    Example:
        >>> shared_ends([np.array([1.0, np.nan]), np.array([100.0])])
        (-0.16, 2.16)
    """
    known = np.concatenate([part[np.isfinite(part) & (part > 0)].ravel() for part in values])
    low, high = np.log10([known.min(), known.max()]) if known.size else (0.0, 1.0)
    room = max(0.08 * (high - low), 0.05)
    return float(low - room), float(high + room)
