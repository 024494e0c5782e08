"""The registry of the sections, in the order a reader needs: whoever uses the model first, researchers after that.

A section is a declaration, or a function of a comparison, in one file of this folder, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from longtail.compare.table import Comparison
from longtail.report.section import Section
from longtail.report.sections import (
    ablation,
    classes,
    confusions,
    embedding,
    margins,
    measures,
    misclassifications,
    portfolio,
    predictions,
    provenance,
    results,
    search,
)

Build = Callable[[Comparison], Section | None]
"""Builds a section; None where a comparison has nothing to show in it."""

FOR_USERS: tuple[Build, ...] = (
    results.build,
    results.groups,
    search.build,
    portfolio.build,
    classes.hardest,
    confusions.build,
    misclassifications.build,
    misclassifications.mislabeled,
)
"""For whoever uses the model."""

FOR_RESEARCHERS: tuple[Build, ...] = (
    classes.training_set,
    classes.accuracy,
    ablation.build,
    confusions.group_destinations,
    predictions.priors,
    predictions.calibration,
    predictions.coverage,
    measures.TRAINING.build,
    measures.GRADIENTS.build,
    measures.CLASS_GRADIENTS.build,
    measures.SATURATION.build,
    measures.SATURATED.build,
    measures.CLOUD.build,
    embedding.build,
    measures.SEPARATION.build,
    measures.NORMS.build,
    margins.MARGINS.build,
    provenance.build,
)
"""Everything else."""


def build_sections(comparison: Comparison) -> list[Section]:
    """Build the sections in reading order; one without anything to show is left out."""
    users, researchers = (
        [section for build in builds if (section := build(comparison)) is not None]
        for builds in (FOR_USERS, FOR_RESEARCHERS)
    )
    return users + [replace(section, for_researchers=True) for section in researchers]
