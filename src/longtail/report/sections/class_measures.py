"""The sections that show a value for each class against its training images: declarations for the class builder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtail.analysis.columns import ClassColumns
from longtail.analysis.dynamics import gradient_balance
from longtail.compare.table import Comparison
from longtail.formatting import class_word, number
from longtail.report.builders import ClassMeasure, ClassSection
from longtail.report.configurations import Measured, analyzed, first_runs
from longtail.report.plots import MANY_POINTS, clip
from longtail.run.result import RunResult

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


def separations(comparison: Comparison) -> list[Measured]:
    """The configurations with an analyzed run, with the nearest other class in words where classes are few enough."""
    measured = [each for each in analyzed(comparison) if np.isfinite(each.values["ratio"]).any()]
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
    return [each.measured(vars(each.content)) for each in first_runs(comparison, _noisy_classes)]


def _noisy_classes(run: RunResult) -> ClassColumns | None:
    train = run.analysis.train if run.analysis is not None else None
    return train.classes if train is not None and np.isfinite(train.classes.cloud_mean).any() else None


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


FARTHEST = 1e3
"""Ratios beyond this, or below its inverse, are of a class that was hardly drawn, and stand at the end of the axis."""


def class_gradients(comparison: Comparison) -> list[Measured]:
    """The ratio and the sums of each class in the last epoch of stage 1; NaN for a class that was not drawn."""
    shown = []
    for each in first_runs(comparison, lambda run: run.dynamics):
        dynamics = each.content
        balance = gradient_balance(dynamics.positive, dynamics.negative, dynamics.images, each.run.group_of)
        end = dynamics.end_of_stage_1
        ratio = np.clip(balance.classes[end], 1 / FARTHEST, FARTHEST)
        drawn = np.isfinite(ratio) & (balance.classes[end] > 0)
        raised = np.where(drawn, dynamics.positive[end], np.nan)
        values = {"ratio": ratio, "raised": raised, "lowered": raised / ratio}
        shown.append(each.measured(values))
    return shown


CLASS_GRADIENTS = ClassSection(
    "gradient-classes",
    "Gradients of each class",
    "The ratio of each class in the last epoch of stage 1, and its two sums, with the classes that were raised as much "
    "as lowered on the dotted line. The ratio, with the size of the class: {trends}.",
    class_gradients,
    (
        ClassMeasure("ratio", "gradient-classes", "Raised / lowered", ".3g", log=True, level=1.0),
        ClassMeasure(
            "raised", "gradient-class-sums", "Raised by", ".3g", log=True, across="lowered", across_title="Lowered by"
        ),
    ),
)
