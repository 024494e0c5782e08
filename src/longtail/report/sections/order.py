"""The registry of the sections, in the order a reader needs: whoever uses the model first, researchers after that.

A section is one file of this folder, which gives ``build(comparison)``, itself or by a declaration named ``SECTION``,
and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from longtail.compare.table import Comparison
from longtail.report.section import Section
from longtail.report.sections import basics, confusions, gradients, norms, provenance, saturation
from longtail.report.sections.ablation import ablation_section
from longtail.report.sections.calibration import reliability_section
from longtail.report.sections.class_separation import spread_section
from longtail.report.sections.embedding import embedding_section
from longtail.report.sections.margins import margins_section
from longtail.report.sections.noise import cloud_section
from longtail.report.sections.prior_shift import prior_section
from longtail.report.sections.selective import coverage_section

Build = Callable[[Comparison], Section | None]
"""Builds a section; None where a comparison has nothing to show in it."""

FOR_USERS: tuple[Build, ...] = (
    basics.results,
    basics.classes,
    basics.groups,
    ablation_section,
    basics.accuracy,
    confusions.confusions_section,
    basics.hardest,
)
"""What whoever uses the model needs."""

FOR_RESEARCHERS: tuple[Build, ...] = (
    prior_section,
    reliability_section,
    coverage_section,
    basics.curves,
    gradients.SECTION.build,
    gradients.CLASS_SECTION.build,
    saturation.distribution,
    saturation.saturated,
    cloud_section,
    embedding_section,
    spread_section,
    norms.SECTION.build,
    margins_section,
    provenance.build,
)
"""Everything else."""


def build_sections(comparison: Comparison) -> list[Section]:
    """Build the sections in reading order; one without anything to show is left out."""
    users = [build(comparison) for build in FOR_USERS]
    researchers = [build(comparison) for build in FOR_RESEARCHERS]
    shown = [section for section in users if section is not None]
    return shown + [replace(section, for_researchers=True) for section in researchers if section is not None]
