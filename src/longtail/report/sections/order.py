"""build_sections: the sections of the page, in the order a reader needs."""

from __future__ import annotations

from longtail.compare.rows import Comparison
from longtail.report.section import Section
from longtail.report.sections.ablation import ablation_section
from longtail.report.sections.basics import _accuracy, _classes, _curves, _groups, _hardest, _results
from longtail.report.sections.calibration import reliability_section
from longtail.report.sections.class_separation import spread_section
from longtail.report.sections.confusions import confusions_section
from longtail.report.sections.embedding import embedding_section
from longtail.report.sections.gradients import gradients_sections
from longtail.report.sections.margins import margins_section
from longtail.report.sections.noise import cloud_section
from longtail.report.sections.norms import norms_section
from longtail.report.sections.prior_shift import prior_section
from longtail.report.sections.provenance import provenance
from longtail.report.sections.saturation import saturation_sections
from longtail.report.sections.selective import coverage_section


def build_sections(comparison: Comparison) -> list[Section]:
    """All sections in reading order; one without anything to show is left out."""
    rows = comparison.final
    found: list[Section | None] = [_results(comparison), _classes(rows)]
    if comparison.split is not None:
        found += [_groups(comparison), ablation_section(comparison), _accuracy(comparison)]
    found += [confusions_section(comparison), prior_section(comparison)]
    found += [reliability_section(comparison), coverage_section(comparison)]
    found.append(_curves(comparison))
    found += [*gradients_sections(comparison), *saturation_sections(comparison), cloud_section(comparison)]
    found += [embedding_section(comparison), spread_section(comparison), norms_section(comparison)]
    found.append(margins_section(comparison))
    if comparison.split is not None:
        found.append(_hardest(comparison))
    found.append(Section("made", "How it was made", partial="provenance.html.j2", data=provenance(rows)))
    return [section for section in found if section is not None]
