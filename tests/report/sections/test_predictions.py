"""The sections made of predictions: other priors, calibration, coverage and margins."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from fake_predictions import LABEL, first_right, predict

from longtail.compare.comparison import compare_runs
from longtail.evaluation.intervals import wilson
from longtail.report import write_report
from longtail.report.plots import THEME
from longtail.report.sections import confusions
from longtail.report.sections.margins import MARGINS
from longtail.report.sections.predictions import COVERAGE, SHOWN, calibration, coverage, priors

margins = MARGINS.build
SECTIONS = (
    confusions.group_destinations,
    priors,
    calibration,
    coverage,
    margins,
)


def test_equal_configurations_are_said_not_to_differ(make_run):
    answer = first_right([20, 20, 10, 10, 0, 0], [1, 0, 0, 0, 0, 0])
    rows = compare_runs([predict(make_run(name, recipe=name), answer) for name in ("ce", "same")])
    assert priors(rows).sentence.count("no clear") == 1
    assert calibration(rows).sentence.count("no clear") == 2
    assert coverage(rows).sentence.count("no clear") == 2
    cells = [row[2:] for row in margins(rows).table.rows]
    assert cells[0] == cells[1]


def test_a_perfect_predictor_has_sections_and_no_pairs(make_run):
    rows = compare_runs([predict(make_run("ce"), LABEL, 1.0, 0.0)])
    assert [cell[0] for cell in priors(rows).table.rows[0][1:]] == ["100.0"] * 3
    assert "+0.0 points" not in calibration(rows).sentence
    assert [cell[0] for cell in calibration(rows).table.rows[0][1:]] == ["0.0"] * 4


def test_prior_curves_stand_in_one_figure_and_cross_where_they_should(ce_and_gcl):
    section = priors(ce_and_gcl)
    (drawing,) = section.drawings
    ce, gcl = (trace for trace in drawing.figure.data if trace.mode == "lines")
    assert ce.y[0] > gcl.y[0]
    assert ce.y[-1] < gcl.y[-1]
    assert ce.y[20] == pytest.approx(0.5)
    assert "±" in ce.hovertemplate
    assert len(ce.customdata) == len(ce.y)
    lower, higher = section.table.rows[1][2], section.table.rows[1][6]
    assert lower.startswith("−")
    assert higher.startswith("+")


def test_a_lead_on_few_test_images_is_no_clear_difference(make_run):
    folders = [
        predict(make_run(name, recipe=name), first_right([20] * 5 + [right], [1, 0, 0, 0, 0, 0]))
        for name, right in (("ce", 10), ("kps", 11))
    ]
    differences = priors(compare_runs(folders)).table.rows[1][2::2]
    assert len(differences) == 3
    for text in differences:
        low, high = (float(end.replace("−", "-")) for end in re.findall(r"[+−]?[\d.]+", text)[1:])
        assert low < 0 < high


def test_priors_of_other_training_counts_have_intervals_around_their_own_difference(make_run):
    ce, gcl = (
        first_right([18, 18, 18, 4, 4, 4], [1, 0, 0, 0, 0, 0]),
        first_right([17] * 3 + [6] * 3, [1, 0, 0, 0, 0, 0]),
    )
    folders = [
        predict(make_run(name, recipe=name, counts=counts), answer)
        for name, counts, answer in (
            ("ce", (1000, 500, 200, 50, 10, 1), ce),
            ("gcl", (10, 9, 8, 7, 6, 5), gcl),
        )
    ]
    for text in priors(compare_runs(folders)).table.rows[1][2::2]:
        mean, low, high = (float(end.replace("−", "-")) for end in re.findall(r"[+−]?[\d.]+", text))
        assert low < mean < high


def test_classes_of_one_size_have_no_prior_section(make_run):
    assert priors(compare_runs([make_run("ce", counts=[50] * 6)])) is None


def test_calibration_is_measured_by_group_with_an_interval(ce_and_gcl):
    section = calibration(ce_and_gcl)
    _, *cells = section.table.rows[0]
    # All at 0.9 confidence: right for all many-shot images, for half the medium-shot and none of the few-shot ones.
    assert [cell[0] for cell in cells] == ["40.0", "10.0", "40.0", "90.0"]
    assert all(re.fullmatch(r"\d+\.\d–\d+\.\d", cell[1]) for cell in cells)
    assert re.search(r"few-shot .*\+90\.0 .* ce; \+10\.0 .* gcl, 80\.0 points lower", section.sentence)
    points = [trace for trace in section.drawings[0].figure.data if trace.mode == "markers"]
    assert [(trace.name, trace.y.tolist()) for trace in points] == [
        ("Many-shot", [1.0]),
        ("Medium-shot", [0.5]),
        ("Few-shot", [0.0]),
    ]
    assert points[0].customdata.tolist() == [40]


def test_the_error_of_seeds_is_the_mean_and_not_that_of_their_pool(make_run):
    over, under = predict(make_run("a", seed=0), LABEL, 0.7), predict(make_run("b", seed=1), LABEL % 2, 0.7)
    alone = [calibration(compare_runs([run])).table.rows[0][1][0] for run in (over, under)]
    both = calibration(compare_runs([over, under])).table.rows[0][1][0]
    assert float(both) == pytest.approx(np.mean([float(error) for error in alone]), abs=0.06)


def test_coverage_answers_the_surest_first(make_run):
    right = first_right([20, 20, 20, 20, 0, 0], [1, 0, 0, 0, 0, 0])
    rows = compare_runs([predict(make_run("ce"), right, np.where(right == LABEL, 0.9, 0.4))])
    section = coverage(rows)
    assert [drawing.title for drawing in section.drawings] == ["All images", "Many-shot", "Medium-shot", "Few-shot"]
    curve = next(trace for trace in section.drawings[0].figure.data if trace.mode == "lines")
    assert curve.y[np.isclose(curve.x, 0.5)].tolist() == [1.0]
    assert curve.y[-1] == pytest.approx(80 / 120)
    assert re.search(r"half .*100\.0% under ce.*few-shot .*0\.0% under ce", section.sentence)


def test_panels_of_several_runs_have_the_same_axes(ce_and_gcl):
    for build in (calibration, margins, coverage):
        layouts = [drawing.figure.layout for drawing in build(ce_and_gcl).drawings]
        ranges = {(layout.xaxis.range, layout.yaxis.range) for layout in layouts}
        assert len(ranges) == 1
        assert None not in ranges.pop()


@pytest.mark.parametrize("build", SECTIONS)
def test_every_drawing_has_words_and_colors_of_the_theme(ce_and_gcl, build):
    light = {value[0] for value in THEME.values()}
    for drawing in build(ce_and_gcl).drawings:
        assert len(drawing.alt) > 40
        assert re.search(r"\d", drawing.alt)
        for trace in drawing.figure.data:
            color = trace.line.color if isinstance(trace, go.Scatter) and trace.line.color else trace.marker.color
            assert color in light


@pytest.mark.parametrize("build", SECTIONS)
def test_runs_without_a_test_split_have_no_such_section(make_run, build):
    assert build(compare_runs([make_run("ce", test=False)])) is None


@pytest.mark.parametrize("build", [build for build in SECTIONS if build is not priors])
def test_runs_without_predictions_are_left_out(ce_and_gcl, make_run, build):
    bare = make_run("bare", recipe="cifar-lt/bare")
    (bare / "predictions.parquet").unlink()
    rows = compare_runs([bare, ce_and_gcl.final[1].runs[0].folder])
    assert "bare" not in build(rows).drawings[0].alt
    assert build(compare_runs([bare])) is None


def test_without_few_shot_classes_the_smallest_group_is_spoken_of(make_run):
    rows = compare_runs([predict(make_run("ce", counts=(300, 200, 150, 120, 60, 50)), LABEL // 2)])
    assert "medium-shot" in calibration(rows).sentence


def test_the_page_shows_the_pairs_and_the_table(ce_and_gcl, tmp_path):
    folders = [row.runs[0].folder for row in ce_and_gcl.final]
    text = write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r"Class 4, [^<]*class 0", text)
    assert "No picture" in text  # pictures of fake runs are of other errors
    assert "calibration error" in text
    for name in ("confusions", "prior", "calibration", "coverage", "margins"):
        assert f'<section id="{name}"' in text


def test_bands_are_intervals_of_the_images_and_left_out_where_images_belong_together(ce_and_gcl):
    section = coverage(ce_and_gcl)
    band, line, *_ = section.drawings[0].figure.data
    interval = wilson(float(line.y[-1]) * len(LABEL), len(LABEL))
    assert [band.y[len(COVERAGE) - 1], band.y[len(COVERAGE)]] == pytest.approx(interval, abs=1e-6)
    assert re.search(r"Bands .*95%", section.sentence)
    shift = priors(ce_and_gcl)
    assert len(shift.drawings[0].figure.data) == 4
    assert re.search(r"Bands .*95%", shift.sentence)
    for row in ce_and_gcl.final:
        metrics = row.runs[0].test
        table = metrics.interval_table.model_copy(update={"unit": "film"})
        object.__setattr__(row.runs[0], "test", metrics.model_copy(update={"interval_table": table}))
    for build in (coverage, priors):
        assert len(build(ce_and_gcl).drawings[0].figure.data) == 2


def test_images_that_belong_together_widen_the_intervals_of_priors_and_calibration(ce_and_gcl):
    def intervals(build, column):
        return [
            float(text[1]) - float(text[0])
            for row in build(ce_and_gcl).table.rows
            if (text := re.findall(r"[\d.]+", row[column][1]))
        ]

    alone = intervals(priors, 3) + intervals(calibration, 1)[:1]
    for row in ce_and_gcl.final:
        run = row.runs[0]
        table = run.test.interval_table.model_copy(update={"unit": "film"})
        films = replace(run.predictions, group=np.arange(len(LABEL)) // 3)
        vars(run).update(test=run.test.model_copy(update={"interval_table": table}), predictions=films)
    together = intervals(priors, 3) + intervals(calibration, 1)[:1]
    assert len(alone) == 3
    assert all(wide > narrow for wide, narrow in zip(together, alone, strict=True))


def test_the_shares_in_the_table_are_those_of_its_headings() -> None:
    assert [float(COVERAGE[place]) for place in SHOWN.values()] == pytest.approx(list(SHOWN))
