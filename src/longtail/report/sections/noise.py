"""The section on the effective cloud: how far the noise of a loss moves the logit of each class."""

from __future__ import annotations

import numpy as np

from longtail.analysis.columns import ClassColumns
from longtail.compare.table import Comparison
from longtail.report.builders import ClassMeasure, ClassSection
from longtail.report.select import Measured, first_runs
from longtail.run.result import RunResult


def clouds(comparison: Comparison) -> list[Measured]:
    """The configurations whose loss adds noise, with the mean and the deviation of what it adds to each class."""
    return [each.measured(vars(each.content)) for each in first_runs(comparison, _noisy_classes)]


def _noisy_classes(run: RunResult) -> ClassColumns | None:
    train = run.analysis.train if run.analysis is not None else None
    return train.classes if train is not None and np.isfinite(train.classes.cloud_mean).any() else None


SECTION = ClassSection(
    "cloud",
    "The effective cloud",
    "What the noise of the loss adds to the logit of a class, mean and one standard deviation, in units of the logits "
    "(cosines where the classifier is one). With the size of the class the mean {trends}.",
    clouds,
    (
        ClassMeasure("cloud_mean", "cloud", "Perturbation", ".3f", level=0.0, whisker="cloud_spread"),
        ClassMeasure("cloud_spread", "cloud-deviation", "Deviation", ".3f"),
    ),
)
