"""The section on margins."""

from __future__ import annotations

import re
from dataclasses import fields

import numpy as np
import pytest
from fake_predictions import LABEL

from longtail.analysis.columns import Analysis, AnalyzedSplit, ImageColumns
from longtail.compare.comparison import compare_runs
from longtail.report.sections import margins as margins_file
from longtail.report.sections.margins import MARGINS, margins_of

margins = MARGINS.build


def test_margins_come_from_the_two_highest_probabilities(ce_and_gcl):
    margin, _ = margins_of(ce_and_gcl.final[0])["test"]
    assert margin[LABEL == 0] == pytest.approx(np.log(0.9 / 0.1), rel=1e-5)
    assert margin[LABEL == 5] == pytest.approx(np.log(0.05 / 0.9), rel=1e-5)
    section = margins(ce_and_gcl)
    assert [row[-1] for row in section.table.rows] == ["100.0", "50.0"]  # below 0, of few-shot images
    assert re.search(r"−2\.9 .*ce; −0\.3 .*gcl", section.sentence)


def test_margins_of_training_images_are_laid_over_those_of_test_images(ce_and_gcl):
    size = len(LABEL)
    columns = {field.name: np.zeros(size, np.float32) for field in fields(ImageColumns)}
    columns |= {"label": LABEL.astype(np.int32), "margin": np.full(size, 4.0, np.float32)}
    runs = [row.runs[0] for row in ce_and_gcl.final]
    runs[0].__dict__["analysis"] = Analysis(AnalyzedSplit(ImageColumns(**columns), None, {}), None)
    section = margins(compare_runs(runs))
    traces = [[trace.name for trace in drawing.figure.data if trace.mode == "lines"] for drawing in section.drawings]
    assert [len(names) for names in traces] == [6, 3]
    assert traces[0][-1] == "Few-shot training images"
    assert re.search(r"−2\.9 .*testing .*4\.0 .*training .*ce; −0\.3 .*testing .*gcl", section.sentence)
    assert "Training" in section.legend[-1].text


def test_predictions_are_read_once_for_the_margins(ce_and_gcl, monkeypatch):
    read, measure = [], margins_file.margins_of_predictions
    monkeypatch.setattr(margins_file, "margins_of_predictions", lambda *parts: read.append(parts) or measure(*parts))
    assert margins(ce_and_gcl)
    assert len(read) == 2
