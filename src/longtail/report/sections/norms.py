"""The section on norms and angles: features, classifier weights and biases of each class against its size."""

from __future__ import annotations

from longtail.report.builders import ClassMeasure, ClassSection
from longtail.report.select import analyzed

SECTION = ClassSection(
    "norms",
    "Norms and angles",
    "Norms of {split} features and of the weights of the classifier, the angle between the mean feature and the weight "
    "of a class, and biases. A cosine classifier divides both norms away: there they move no decision. The feature "
    "norm, ranked with the training images of a class: {trends}.",
    analyzed,
    (
        ClassMeasure("feature_norm", "norms-feature-norm", "Feature norm"),
        ClassMeasure("weight_norm", "norms-weight-norm", "Weight norm", ".3f"),
        ClassMeasure("angle", "norms-angle", "Angle", ".1f", unit="°"),
        ClassMeasure("bias", "norms-bias", "Bias", ".3f"),
    ),
)
