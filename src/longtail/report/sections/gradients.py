"""The sections on gradients: what raised the logits of each group and class, and what lowered them."""

from __future__ import annotations

import numpy as np

from longtail.analysis.gradients import gradient_balance
from longtail.compare.table import Comparison
from longtail.report.builders import ClassMeasure, ClassSection, EpochMeasure, EpochSection
from longtail.report.select import Measured, first_runs

FARTHEST = 1e3
"""Ratios beyond this, or below its inverse, are of a class that was hardly drawn, and stand at the end of the axis."""


def by_group(comparison: Comparison) -> list[Measured]:
    """The ratio of each shot group in each epoch and the two sums that it is made of, mean over its classes."""
    shown = []
    for each in first_runs(comparison, lambda run: run.dynamics):
        dynamics = each.content
        balance = gradient_balance(dynamics.positive, dynamics.negative, dynamics.images, each.run.group_of)
        values = {"ratio": balance.groups, "raised": balance.raised, "lowered": balance.lowered}
        shown.append(each.measured(values, stage=dynamics.stage))
    return shown


def by_class(comparison: Comparison) -> list[Measured]:
    """The ratio and the sums of each class in the last epoch of stage 1; NaN for a class that was not drawn."""
    shown = []
    for each in first_runs(comparison, lambda run: run.dynamics):
        dynamics = each.content
        balance = gradient_balance(dynamics.positive, dynamics.negative, dynamics.images, each.run.group_of)
        end = dynamics.end_of_stage_1
        ratio = np.clip(balance.classes[end], 1 / FARTHEST, FARTHEST)
        drawn = np.isfinite(ratio) & (balance.classes[end] > 0)
        sums = {"raised": dynamics.positive[end], "lowered": dynamics.negative[end]}
        values = {"ratio": ratio} | {name: np.where(drawn, part, np.nan) for name, part in sums.items()}
        shown.append(each.measured(values))
    return shown


SECTION = EpochSection(
    "gradients",
    "Gradients",
    "Gradient that raises the logits of a group over gradient that lowers them; below 1, the dotted line, they were "
    "pushed down more than pulled up. Then the two sums, mean over the classes of a group: under cross-entropy an "
    "image can give 1 at most. At the end of stage 1 the ratio is {numbers}.",
    by_group,
    (
        EpochMeasure({"Ratio": "ratio"}, "gradients", "Ratio", "Raised / lowered", ".3g", log=True, level=1.0),
        EpochMeasure(
            {"Raised": "raised", "Lowered": "lowered"},
            "gradient-sums",
            "Raised and lowered",
            "Gradient on a class",
            ".3g",
            log=True,
        ),
    ),
)

CLASS_SECTION = ClassSection(
    "gradient-classes",
    "Gradients of each class",
    "The ratio of each class in the last epoch of stage 1, and its two sums, with the classes that were raised as much "
    "as lowered on the dotted line. With the size of the class the ratio {trends}.",
    by_class,
    (
        ClassMeasure("ratio", "gradient-classes", "Raised / lowered", ".3g", log=True, level=1.0),
        ClassMeasure(
            "raised", "gradient-class-sums", "Raised by", ".3g", log=True, across="lowered", across_title="Lowered by"
        ),
    ),
)
