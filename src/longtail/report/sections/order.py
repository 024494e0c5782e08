"""The registry of the sections, in the order a reader needs: whoever uses the model first, researchers after that.

A section is one file of this folder, which gives ``build(comparison)``, itself or by a declaration named ``SECTION``,
and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from longtail.compare.table import Comparison
from longtail.report.section import Section
from longtail.report.sections import (
    ablation,
    calibration,
    class_separation,
    classes,
    confusions,
    curves,
    embedding,
    errors,
    gradients,
    hardest,
    margins,
    noise,
    norms,
    prior_shift,
    provenance,
    results,
    saturation,
    selective,
)

Build = Callable[[Comparison], Section | None]
"""Builds a section; None where a comparison has nothing to show in it."""

FOR_USERS: tuple[Build, ...] = (
    results.build,
    results.groups,
    hardest.build,
    confusions.build,
    errors.build,
    errors.mislabeled,
)
"""For whoever uses the model."""

FOR_RESEARCHERS: tuple[Build, ...] = (
    classes.training_set,
    classes.accuracy,
    ablation.build,
    confusions.group_destinations,
    prior_shift.build,
    calibration.build,
    selective.build,
    curves.SECTION.build,
    gradients.SECTION.build,
    gradients.CLASS_SECTION.build,
    saturation.SECTION.build,
    saturation.SHARE_SECTION.build,
    noise.SECTION.build,
    embedding.build,
    class_separation.SECTION.build,
    norms.SECTION.build,
    margins.build,
    provenance.build,
)
"""Everything else."""


def build_sections(comparison: Comparison) -> list[Section]:
    """Build the sections in reading order; one without anything to show is left out."""
    users = [build(comparison) for build in FOR_USERS]
    researchers = [build(comparison) for build in FOR_RESEARCHERS]
    shown = [section for section in users if section is not None]
    return shown + [replace(section, for_researchers=True) for section in researchers if section is not None]
