"""The types of figures: groups, summaries of classes and splits, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from longtail.counts import GroupName

Groups: TypeAlias = Mapping[GroupName, Sequence[int] | npt.NDArray[np.int64]]


class ClassSummary(TypedDict):
    """One class of a :class:`Summary`; None where a fraction has nothing to divide by."""

    name: str
    train_count: int
    test_count: int
    group: GroupName | None
    recall: float | None
    precision: float | None
    f1: float | None
    recall_interval: Interval | None
    precision_interval: Interval | None
    f1_interval: Interval | None


class Summary(TypedDict):
    """What ``metrics.json`` holds for a split: fractions in [0, 1], None where there is no image."""

    num_images: int
    accuracy: float | None
    balanced_accuracy: float | None
    many: float | None
    medium: float | None
    few: float | None
    worst_class: float | None
    harmonic_mean: float | None
    nll: float | None
    ece: float | None
    intervals: SummaryIntervals
    per_class: list[ClassSummary]


Interval: TypeAlias = list[float]


class SummaryIntervals(TypedDict):
    """The intervals of a split's figures, [low, high] in [0, 1]; None where the figure is None."""

    level: float
    unit: str
    correlation: float | None
    accuracy: Interval | None
    balanced_accuracy: Interval | None
    many: Interval | None
    medium: Interval | None
    few: Interval | None
    worst_class: Interval | None
