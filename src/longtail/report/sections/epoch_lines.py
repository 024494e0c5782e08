"""The sections that show lines over the epochs: declarations for the epoch builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from longtail.analysis.dynamics import (
    EDGES,
    THRESHOLDS,
    gradient_balance,
    group_histograms,
    group_image_means,
    histogram_quantiles,
    share_past,
)
from longtail.compare.table import Comparison
from longtail.counts import FloatArray, GroupName
from longtail.report.builders import EpochMeasure, EpochSection
from longtail.report.configurations import Measured, first_runs
from longtail.run.dynamics import Dynamics

COLUMNS = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss", "learning_rate")
Values = Mapping[str, FloatArray]
"""What is drawn, by name: a column for each shot group, shape (E, 3)."""


def histories(comparison: Comparison) -> list[Measured]:
    """The columns of the history of every run that has one, shape (E, 1) each."""
    shown = []
    for row in comparison.final:
        for run in row.runs:
            if run.history:
                columns = [[epoch.values.get(name) for epoch in run.history] for name in COLUMNS]
                values = dict(zip(COLUMNS, np.array(columns, dtype=np.float64)[..., None], strict=True))
                stage = np.array([epoch.stage for epoch in run.history], dtype=np.int64)
                shown.append(Measured(row, run, 1, values, stage=stage))
    return shown


TRAINING = EpochSection(
    "curves",
    "Training",
    "Training accuracy is counted on the batches as the loop drew and changed them: at the end of stage 1 {numbers}.",
    histories,
    (
        EpochMeasure(
            {"Training": "train_accuracy", "Validation": "validation_accuracy"},
            "curve-accuracy",
            "Accuracy",
            ".1%",
            include=(0.0, 1.0),
        ),
        EpochMeasure(
            {"Training": "train_loss", "Validation": "validation_loss"}, "curve-loss", "Loss", ".3f", include=(0.0,)
        ),
        EpochMeasure("learning_rate", "curve-learning_rate", "Learning rate", ".2g", log=True),
    ),
    panels="measures",
)


def recorded(values: Callable[[Dynamics, Sequence[GroupName]], Values]) -> Callable[[Comparison], list[Measured]]:
    """A reader of the configurations with recorded gradients, with the values that are computed of them.

    Args:
        values: Computes them from a recording and the shot group of each class: shape (E, 3) each.
    """
    return lambda comparison: [
        each.measured(values(each.content, each.run.group_of), stage=each.content.stage)
        for each in first_runs(comparison, lambda run: run.dynamics)
    ]


def group_gradients(dynamics: Dynamics, group_of: Sequence[GroupName]) -> Values:
    """The ratio of each shot group in each epoch and the two sums that it is made of, mean over its classes."""
    balance = gradient_balance(dynamics.positive, dynamics.negative, dynamics.images, group_of)
    return {"ratio": balance.groups, "raised": balance.raised, "lowered": balance.lowered}


GRADIENTS = EpochSection(
    "gradients",
    "Gradients",
    "Gradient that raises the logits of a group over gradient that lowers them; below 1, the dotted line, they were "
    "pushed down more than pulled up. Then the two sums, mean over the classes of a group: under cross-entropy an "
    "image can give 1 at most. At the end of stage 1 the ratio is {numbers}.",
    recorded(group_gradients),
    (
        EpochMeasure("ratio", "gradients", "Ratio", ".3g", "Raised / lowered", log=True, level=1.0),
        EpochMeasure(
            {"Raised": "raised", "Lowered": "lowered"},
            "gradient-sums",
            "Raised and lowered",
            ".3g",
            "Gradient on a class",
            log=True,
        ),
    ),
)

QUARTILES = (0.25, 0.5, 0.75)
FLOOR = 1 - EDGES[-2]
"""What the histograms cannot tell from zero: the width of their last bin."""


def probability_quartiles(dynamics: Dynamics, group_of: Sequence[GroupName]) -> Values:
    """Quartiles of p_y and of 1 - p_y of each epoch and shot group."""
    histograms = group_histograms(dynamics.histogram, group_of)
    low, middle, high = np.moveaxis(histogram_quantiles(histograms, QUARTILES), -1, 0)
    left = {"left low": 1 - high, "left": 1 - middle, "left high": 1 - low}
    return {"low": low, "middle": middle, "high": high} | {name: np.maximum(part, FLOOR) for name, part in left.items()}


SATURATION = EpochSection(
    "saturation",
    "Saturation",
    "Probability p_y of the true class of the images as they were trained on, without noise and margins of the loss, "
    "and the gradient 1 − p_y that cross-entropy would leave on its logit, down to 0.0001: median, and the middle half "
    "as a band. At the end of stage 1 the median p_y is {numbers}.",
    recorded(probability_quartiles),
    (
        EpochMeasure("middle", "saturation", "Probability p_y", include=(0.0, 0.25), band=("low", "high")),
        EpochMeasure(
            "left", "gradient-size", "Gradient 1 − p_y", ".3g", log=True, include=(1.0,), band=("left low", "left high")
        ),
    ),
)


def saturated_shares(dynamics: Dynamics, group_of: Sequence[GroupName]) -> Values:
    """Saturated images and remaining gradient of each epoch and shot group."""
    histograms = group_histograms(dynamics.histogram, group_of)
    shares = {f"past {threshold:g}": share_past(histograms, threshold) for threshold in THRESHOLDS}
    return shares | {"gradient": group_image_means(dynamics.gradient, dynamics.images, group_of)}


SATURATED = EpochSection(
    "saturated",
    "Saturated images",
    "Share of the images whose p_y is past 0.9, 0.99 and 0.999, and the mean size of the gradient on their own logit: "
    "1 − p_y of what the loss sees, with its noise and margins, times its scales where it gives classes scales of "
    "their own. Where images are mixed it ends at the larger share of an image, not at 1. Past 0.9 are, at the end of "
    "stage 1, {numbers}.",
    recorded(saturated_shares),
    (
        *(
            EpochMeasure(
                f"past {threshold:g}",
                f"saturation-past-{threshold:g}".replace(".", "-"),
                f"p_y past {threshold:g}",
                ".1%",
                "Share of images",
                include=(0.0, 0.1),
            )
            for threshold in THRESHOLDS
        ),
        EpochMeasure("gradient", "saturation-gradient", "Gradient size", ".3f", include=(0.0, 0.1)),
    ),
    panels="groups",
)
