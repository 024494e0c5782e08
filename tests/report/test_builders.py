"""A section is a declaration and a line of the order: the builders and the page do the rest."""

from __future__ import annotations

import re

import numpy as np
import pytest

from longtail.compare.comparison import compare_runs
from longtail.report.builders import ClassMeasure, ClassSection, LineMeasure, LineSection
from longtail.report.configurations import Measured, first_runs
from longtail.report.page import render_report
from longtail.report.sections import order
from longtail.report.sections.order import build_sections


def image_counts(comparison):
    """The images of each class."""
    return [
        each.measured({"images": np.array([row.test_count for row in each.content.per_class], float)})
        for each in first_runs(comparison, lambda run: run.test)
    ]


EXTRA = ClassSection(
    "extra",
    "Test images",
    "How many test images a class has: {trends}.",
    image_counts,
    (ClassMeasure("images", "extra-images", "Test images", ".0f"),),
)


def test_a_declaration_and_a_line_add_a_section_to_the_page(make_run, monkeypatch):
    monkeypatch.setattr(order, "FOR_RESEARCHERS", (EXTRA.build, *order.FOR_RESEARCHERS))
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl")])
    section = next(each for each in build_sections(comparison) if each.id == "extra")
    assert section.for_researchers
    assert [drawing.title for drawing in section.drawings] == ["ce", "gcl"]
    assert {point for trace in section.drawings[0].figure.data for point in trace.y} == {20.0}
    assert section.table.rows[0] == ("ce", "Test images", "20", "20", "20", "n/a")
    page = render_report(comparison)
    for text in ('<section id="extra"', 'id="extra-images-1"', "The numbers", section.drawings[0].alt):
        assert text in page


def epochs(values):
    """A reader that gives each configuration the same values in three epochs, the last one of stage 2."""
    return lambda comparison: [
        Measured(row, row.runs[0], 1, {"share": np.asarray(values, float)}, stage=np.array([1, 1, 2]))
        for row in comparison.final
    ]


@pytest.mark.parametrize("panels", ["configurations", "groups"])
def test_lines_hold_the_values_they_are_given_whichever_way_they_are_laid_out(make_run, panels):
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, np.nan]])
    measure = LineMeasure("share", "share", "Share", ".1%", "Share of images")
    declared = LineSection("share", "Share", "At the end: {numbers}.", epochs(values), (measure,), panels)
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl")])
    section = declared.build(comparison)
    lines = [trace for drawing in section.drawings for trace in drawing.figure.data]
    assert len(lines) == 6
    assert len({drawing.figure.layout.yaxis.range for drawing in section.drawings}) == 1
    drawn = sorted(tuple(np.round(line.y.astype(float), 3).tolist()) for line in lines)
    assert drawn == sorted([(0.1, 0.4, 0.7), (0.2, 0.5, 0.8), (0.3, 0.6)] * 2)
    assert ("ce", "Share", "2", "40.0%", "50.0%", "60.0%") in section.table.rows
    assert ("ce", "Share", "3", "70.0%", "80.0%", "n/a") in section.table.rows
    assert re.findall(r"[\d.]+%", section.sentence) == ["60.0%", "40.0%"] * 2  # few-shot, then many-shot, of each
    assert all("to" in drawing.alt for drawing in section.drawings)
    assert [mark.x0 for mark in section.drawings[0].figure.layout.shapes] == [2.5]
