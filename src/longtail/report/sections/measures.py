"""The sections of one shape: a value for each class against its size, or a line for each group over the epochs.

Declarations for the two builders, and the functions that read what they draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from longtail.analysis import dynamics
from longtail.compare.table import Comparison
from longtail.counts import FloatArray, GroupName
from longtail.formatting import class_word, number
from longtail.report.builders import ClassMeasure, ClassSection, LineMeasure, LineSection
from longtail.report.configurations import Measured, analyzed, first_runs
from longtail.report.plots import MANY_POINTS, clip
from longtail.run.dynamics import Dynamics

COLUMNS = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss", "learning_rate")
Values = Mapping[str, FloatArray]
"""Values to draw, by name: a column for each shot group, shape (E, 3), or a value for each class, shape (C,)."""


def histories(comparison: Comparison) -> list[Measured]:
    """The columns of the history of every run that has one, shape (E, 1) each."""
    shown = []
    for row in comparison.final:
        for run in row.runs:
            if run.history:
                columns = [[getattr(epoch, name) for epoch in run.history] for name in COLUMNS]
                values = dict(zip(COLUMNS, np.array(columns, dtype=np.float64)[..., None], strict=True))
                stage = np.array([epoch.stage for epoch in run.history], dtype=np.int64)
                shown.append(Measured(row, run, 1, values, stage=stage))
    return shown


TRAINING = LineSection(
    "curves",
    "Training",
    "Training accuracy is counted on the batches as the loop drew and changed them: at the end of stage 1 {numbers}.",
    histories,
    (
        LineMeasure(
            {"Training": "train_accuracy", "Validation": "validation_accuracy"},
            "curve-accuracy",
            "Accuracy",
            ".1%",
            include=(0.0, 1.0),
        ),
        LineMeasure(
            {"Training": "train_loss", "Validation": "validation_loss"}, "curve-loss", "Loss", ".3f", include=(0.0,)
        ),
        LineMeasure("learning_rate", "curve-learning_rate", "Learning rate", ".2g", log=True),
    ),
    panels="measures",
)


def recorded(values: Callable[[Dynamics, Sequence[GroupName]], Values]) -> Callable[[Comparison], list[Measured]]:
    """A reader of the configurations with recorded gradients, with the values that are computed of them.

    Args:
        values: Computes them from a recording and the shot group of each class.
    """
    return lambda comparison: [
        each.measured(values(each.content, each.run.group_of), stage=each.content.stage)
        for each in first_runs(comparison, lambda run: run.dynamics)
    ]


FARTHEST = 1e3
"""Ratios beyond this, or below its inverse, are of a class that was hardly drawn, and stand at the end of the axis."""


def gradients(recorded: Dynamics, group_of: Sequence[GroupName]) -> Values:
    """The ratio of each shot group in each epoch and the two sums that it is made of, mean over its classes.

    Those of each class are of the last epoch of stage 1; NaN for a class that was not drawn.
    """
    balance = dynamics.gradient_balance(recorded.positive, recorded.negative, recorded.images, group_of)
    end = recorded.end_of_stage_1
    ratio = np.clip(balance.classes[end], 1 / FARTHEST, FARTHEST)
    drawn = np.isfinite(ratio) & (balance.classes[end] > 0)
    raised = np.where(drawn, recorded.positive[end], np.nan)
    groups = {"group ratio": balance.groups, "group raised": balance.raised, "group lowered": balance.lowered}
    return groups | {"ratio": ratio, "raised": raised, "lowered": raised / ratio}


GRADIENTS = LineSection(
    "gradients",
    "Gradients",
    "Gradient that raises the logits of a group over gradient that lowers them; below 1, the dotted line, they were "
    "pushed down more than pulled up. Then the two sums, mean over the classes of a group: under cross-entropy an "
    "image can give 1 at most. At the end of stage 1 the ratio is {numbers}.",
    recorded(gradients),
    (
        LineMeasure("group ratio", "gradients", "Ratio", ".3g", "Raised / lowered", log=True, level=1.0),
        LineMeasure(
            {"Raised": "group raised", "Lowered": "group lowered"},
            "gradient-sums",
            "Raised and lowered",
            ".3g",
            "Gradient on a class",
            log=True,
        ),
    ),
)

QUARTILES = (0.25, 0.5, 0.75)
FLOOR = 1 - dynamics.EDGES[-2]
"""Smallest value that the histograms tell from zero: the width of their last bin."""


def saturation(recorded: Dynamics, group_of: Sequence[GroupName]) -> Values:
    """Quartiles of p_y and of 1 - p_y, saturated images and remaining gradient, of each epoch and shot group."""
    histograms = dynamics.group_sums(recorded.histogram, group_of)
    low, middle, high = np.moveaxis(dynamics.histogram_quantiles(histograms, QUARTILES), -1, 0)
    left = {"left low": 1 - high, "left": 1 - middle, "left high": 1 - low}
    quartiles = {"low": low, "middle": middle, "high": high}
    quartiles |= {name: np.maximum(part, FLOOR) for name, part in left.items()}
    shares = {f"past {threshold:g}": dynamics.share_past(histograms, threshold) for threshold in dynamics.THRESHOLDS}
    return quartiles | shares | {"gradient": dynamics.group_image_means(recorded.gradient, recorded.images, group_of)}


SATURATION = LineSection(
    "saturation",
    "Saturation",
    "Probability p_y of the true class of the images as they were trained on, without noise and margins of the loss, "
    "and the gradient 1 − p_y that cross-entropy would leave on its logit, down to 0.0001: median, and the middle half "
    "as a band. At the end of stage 1 the median p_y is {numbers}.",
    recorded(saturation),
    (
        LineMeasure("middle", "saturation", "Probability p_y", include=(0.0, 0.25), band=("low", "high")),
        LineMeasure(
            "left", "gradient-size", "Gradient 1 − p_y", ".3g", log=True, include=(1.0,), band=("left low", "left high")
        ),
    ),
)


SATURATED = LineSection(
    "saturated",
    "Saturated images",
    "Share of the images whose p_y is past 0.9, 0.99 and 0.999, and the mean size of the gradient on their own logit: "
    "1 − p_y of what the loss sees, with its noise and margins, times its scales where it gives classes scales of "
    "their own. Where images are mixed it ends at the larger share of an image, not at 1. Past 0.9 are, at the end of "
    "stage 1, {numbers}.",
    recorded(saturation),
    (
        *(
            LineMeasure(
                f"past {threshold:g}",
                f"saturation-past-{threshold:g}".replace(".", "-"),
                f"p_y past {threshold:g}",
                ".1%",
                "Share of images",
                include=(0.0, 0.1),
            )
            for threshold in dynamics.THRESHOLDS
        ),
        LineMeasure("gradient", "saturation-gradient", "Gradient size", ".3f", include=(0.0, 0.1)),
    ),
    panels="groups",
)

CLASS_GRADIENTS = ClassSection(
    "gradient-classes",
    "Gradients of each class",
    "The ratio of each class in the last epoch of stage 1, and its two sums, with the classes that were raised as much "
    "as lowered on the dotted line. The ratio, with the size of the class: {trends}.",
    recorded(gradients),
    (
        ClassMeasure("ratio", "gradient-classes", "Raised / lowered", ".3g", log=True, level=1.0),
        ClassMeasure(
            "raised", "gradient-class-sums", "Raised by", ".3g", log=True, across="lowered", across_title="Lowered by"
        ),
    ),
)


def separations(comparison: Comparison) -> list[Measured]:
    """The configurations with an analyzed run, with the nearest other class in words where classes are few enough."""
    measured = [each for each in analyzed(comparison) if each.has("ratio")]
    return [replace(each, notes=_neighbors(each)) if len(each.run.counts) <= MANY_POINTS else each for each in measured]


def _neighbors(each: Measured) -> list[str]:
    """The two distances of each class in words, and which class is the nearest."""
    names, columns = each.run.counts.names, (each.values[key] for key in ("spread", "nearest_distance", "nearest"))
    return [
        f"{number(spread)} to its center, {number(far)} to {clip(class_word(names[near]), 24)}" if near >= 0 else ""
        for spread, far, near in zip(*columns, strict=True)
    ]


SEPARATION = ClassSection(
    "spread",
    "How apart the classes lie",
    "How far {split} features of a class lie from their center, by the distance to the nearest other one; above 1, the "
    "dotted line, a class reaches past its neighbor. Features of a cosine classifier are measured by direction alone "
    "and compare with each other only. The ratio, with the size of the class: {trends}.",
    separations,
    (ClassMeasure("ratio", "spread", "Spread / nearest center", level=1.0, compare=True),),
)


def clouds(comparison: Comparison) -> list[Measured]:
    """The configurations whose loss adds noise, with the mean and the deviation of what it adds to each class."""
    trained = first_runs(comparison, lambda run: run.analysis.train if run.analysis else None)
    measured = [each.measured(vars(each.content.classes)) for each in trained]
    return [each for each in measured if each.has("cloud_mean")]


CLOUD = ClassSection(
    "cloud",
    "The effective cloud",
    "What the noise of the loss adds to the logit of a class, mean and one standard deviation, in units of the logits "
    "(cosines where the classifier is one). The mean, with the size of the class: {trends}.",
    clouds,
    (
        ClassMeasure("cloud_mean", "cloud", "Perturbation", ".3f", level=0.0, whisker="cloud_spread"),
        ClassMeasure("cloud_spread", "cloud-deviation", "Deviation", ".3f"),
    ),
)

NORMS = ClassSection(
    "norms",
    "Norms and angles",
    "Norms of {split} features and of the weights of the classifier, the angle between the mean feature and the weight "
    "of a class, and biases. A cosine classifier divides both norms away: there they move no decision. The feature "
    "norm, ranked with the training images of a class: {trends}.",
    analyzed,
    (
        ClassMeasure("feature_norm", "norms-feature-norm", "Feature norm"),
        ClassMeasure("weight_norm", "norms-weight-norm", "Weight norm", ".3f"),
        ClassMeasure("angle", "norms-angle", "Angle", ".1f", "Angle (°)", unit="°"),
        ClassMeasure("bias", "norms-bias", "Bias", ".3f"),
    ),
)
