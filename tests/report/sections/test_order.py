"""The sections of a page: their order, and figures that agree between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from longtail.compare.comparison import compare_runs
from longtail.compare.table import Comparison
from longtail.report.sections.order import build_sections

NAMES = ["gradients", "gradient-classes", "saturation", "saturated"]


def test_the_page_has_the_sections_in_its_order(make_run, record):
    names = [section.id for section in build_sections(compare_runs([record(make_run("ce"))]))]
    assert names[names.index("gradients") :][:4] == NAMES


def test_the_figure_of_a_shot_group_is_the_same_in_every_section(make_run):
    """A mean over classes, which differs from a mean over images where classes have other numbers of test images."""
    comparison = compare_runs([make_run("ce", per_class_test=(20, 20, 20, 20, 2, 20), second_best=True)])
    run = comparison.final[0].runs[0]
    label, right = run.predictions.label, run.predictions.label == run.predictions.prediction
    few = run.test["few"]
    assert few != pytest.approx(right[label >= 4].mean())
    sections = {section.id: section for section in build_sections(comparison)}
    drawings = {drawing.id: drawing.figure for section in sections.values() for drawing in section.drawings}
    covered = [trace for trace in drawings["coverage-few"].data if trace.mode == "lines"]
    few_shot_figures = {
        "groups": drawings["group-few"].data[0].x[0],
        "confusions": drawings["destinations-few"].data[0].x[0],
        "coverage": covered[0].y[-1],
        "margins": 1 - float(sections["margins"].table.rows[0][-1]) / 100,
    }
    assert few_shot_figures == {name: pytest.approx(few, abs=6e-4) for name in few_shot_figures}


def compared(*folders: Path) -> Comparison:
    return compare_runs(folders)


def test_runs_that_were_not_analysed_have_none_of_the_sections(make_run: Callable[..., Path]) -> None:
    comparison = compared(make_run("plain"))
    assert {section.id for section in build_sections(comparison)}.isdisjoint({"embedding", "spread", "norms"})
