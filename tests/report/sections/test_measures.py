"""The sections on measures of classes and over epochs: their figures, and sentences that follow the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.analysis.columns import Analysis, AnalyzedSplit, ClassColumns
from longtail.analysis.dynamics import BINS
from longtail.compare.comparison import compare_runs
from longtail.compare.table import Comparison
from longtail.report.builders import ratio_change
from longtail.report.plots import THEME
from longtail.report.sections import measures
from longtail.report.sections.measures import FLOOR
from longtail.report.sections.order import build_sections
from longtail.run import read

NAMES = ["gradients", "gradient-classes", "saturation", "saturated"]


def sections_of(comparison):
    """The sections on recorded epochs by their names."""
    return {section.id: section for section in build_sections(comparison) if section.id in NAMES}


def test_without_recordings_there_is_no_section(make_run):
    comparison = compare_runs([make_run("ce")])
    assert sections_of(comparison) == {}
    assert measures.CLOUD.build(comparison) is None


def test_a_drowned_tail_is_said_and_drawn(make_run, record):
    runs = [record(make_run("ce"), tail=0.25, sure=2), record(make_run("kps", recipe="cifar-lt/kps"), sure=BINS - 1)]
    comparison = compare_runs(runs)
    sections = sections_of(comparison)
    section = sections["gradients"]
    assert re.findall(r"([\d.]+) for", section.sentence) == ["0.25", "1", "1", "1"]
    assert ("ce", "Ratio", "3", "1", "1", "0.25") in section.table.rows
    ranges = [drawing.figure.layout.yaxis.range for drawing in section.drawings[:2]]
    assert ranges[0] == ranges[1]
    assert {trace.name for trace in section.drawings[0].figure.data} == {"Many-shot", "Medium-shot", "Few-shot"}
    shares = sections["saturated"]
    assert re.findall(r"([\d.]+)% for", shares.sentence) == ["0.0", "0.0", "100.0", "100.0"]
    assert ("kps", "p_y past 0.999", "3", "100.0%", "100.0%", "100.0%") in shares.table.rows
    assert len(shares.drawings) == 12
    assert "0.01 for few-shot" not in sections["saturation"].sentence


def test_no_difference_is_said_where_there_is_none(make_run, record):
    runs = [record(make_run(name, recipe=f"cifar-lt/{name}")) for name in ("ce", "kps")]
    sections = sections_of(compare_runs(runs))
    ce, kps = (sections["saturated"].table.rows[row][1:] for row in (0, 2))
    assert ce == kps
    assert sections["gradient-classes"].table.rows[0][-1] == "n/a"  # all ratios are 1: nothing to rank


def test_class_points_follow_the_convention_of_the_page(make_run, record):
    section = sections_of(compare_runs([record(make_run("ce"), tail=0.5)]))["gradient-classes"]
    for drawing in section.drawings:
        traces = [trace for trace in drawing.figure.data if trace.mode == "markers"]
        assert sorted(int(index) for trace in traces for index in trace.customdata) == list(range(6))
        assert {trace.meta for trace in traces} == {"class"}
        assert all(trace.customdata.dtype == np.int32 and trace.text is None for trace in traces)


def test_both_sums_are_drawn_of_groups_and_of_classes(make_run, record):
    sections = sections_of(compare_runs([record(make_run("ce"), tail=0.5)]))
    curves = {(trace.name, trace.line.dash): trace.y[-1] for trace in sections["gradients"].drawings[1].figure.data}
    # Lowered by half an image each: 300 and 120 of many-shot classes; the few-shot ones have 12 and 5.
    assert curves["Many-shot raised", "solid"] == curves["Many-shot lowered", "dash"] == pytest.approx(105)
    assert (curves["Few-shot raised", "solid"], curves["Few-shot lowered", "dash"]) == pytest.approx((2.125, 4.25))
    points = sections["gradient-classes"].drawings[1].figure.data
    few = next(trace for trace in points if trace.name == "Few-shot")
    assert (few.x.tolist(), few.y.tolist()) == ([6.0, 2.5], [3.0, 1.25])


def test_stage_2_is_marked_and_colors_are_those_of_the_theme(make_run, record):
    comparison = compare_runs([record(make_run("gcl"), epochs=(3, 2))])
    light_colors = {light for light, _ in THEME.values()}
    sections = sections_of(comparison)
    for section in sections.values():
        for drawing in section.drawings:
            assert drawing.title
            assert drawing.alt.endswith(".")
            for trace in drawing.figure.data:
                assert {trace.line.color or trace.marker.color} <= light_colors
    marks = [note.text for note in sections["gradients"].drawings[0].figure.layout.annotations]
    assert "stage 1 ends" in marks


def test_the_gradient_that_is_left_is_one_minus_p_on_a_logarithmic_axis(make_run, record):
    runs = [record(make_run("ce"), sure=BINS // 2), record(make_run("kps", recipe="cifar-lt/kps"), sure=BINS - 1)]
    sections = sections_of(compare_runs(runs))
    figures = {drawing.id: drawing.figure for drawing in sections["saturation"].drawings}
    assert list(figures) == ["saturation-0", "saturation-1", "gradient-size-0", "gradient-size-1"]
    for number in "01":
        sure, left = figures[f"saturation-{number}"], figures[f"gradient-size-{number}"]
        lines = [next(trace for trace in figure.data if trace.name == "Few-shot").y for figure in (sure, left)]
        np.testing.assert_allclose(lines[1], np.maximum(1 - lines[0], FLOOR), rtol=1e-4)
    assert pytest.approx(1e-4) == FLOOR
    ranges = {figures[f"gradient-size-{number}"].layout.yaxis.range for number in "01"}
    assert len(ranges) == 1  # the same axis, that holds the surest of them
    assert ranges.pop()[0] < np.log10(FLOOR)
    past = {
        drawing.id: drawing.figure.data[-1].y[-1]
        for drawing in sections["saturated"].drawings
        if drawing.id.endswith("few")
    }
    assert [past[f"saturation-past-{word}-few"] for word in ("0-9", "0-99", "0-999")] == [1, 1, 1]


def test_one_epoch_is_a_point(make_run, record):
    section = sections_of(compare_runs([record(make_run("ce"), epochs=(1,))]))["gradients"]
    assert {trace.mode for trace in section.drawings[0].figure.data} == {"markers"}


def test_a_cloud_is_drawn_where_the_loss_has_one(make_run):
    runs = [read(make_run(name, recipe=f"cifar-lt/{name}")) for name in ("ce", "gcl")]
    comparison = compare_runs(runs)
    results = [row.runs[0] for row in comparison.final]
    mean = np.linspace(0, -0.13, 6).astype(np.float32)
    for result, cloud in zip(results, (np.full(6, np.nan, np.float32), mean), strict=True):
        columns = {field.name: np.zeros(6, np.float32) for field in fields(ClassColumns)}
        columns |= {"cloud_mean": cloud, "cloud_spread": np.abs(cloud)}
        split = AnalyzedSplit(images=None, classes=ClassColumns(**columns), summary={})
        result.__dict__["analysis"] = Analysis(train=split, test=None)
    section = measures.CLOUD.build(comparison)
    assert [drawing.title for drawing in section.drawings] == ["Perturbation", "Deviation"]
    assert "rises (1.00) under gcl" in section.sentence
    assert "−0.130 to 0.000" in section.drawings[0].alt
    low, high = section.drawings[0].figure.layout.yaxis.range
    assert low < -0.26 < 0 < high


def compared(*folders: Path) -> Comparison:
    return compare_runs(folders)


def test_a_class_is_compared_with_itself_under_the_first(analyzed: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(0, 0.1, 50))
    assert ratio_change(2 * noise, noise) == pytest.approx((1.0, 1.0, 1.0))
    # Logarithms 0 and 0.2: mean 0.1, deviation 0.1414; Student's quantile with one degree is 12.706.
    change = ratio_change([1.0, np.exp(0.2), np.nan], [1.0, 1.0, 1.0])
    assert change == pytest.approx(np.expm1([0.1, 0.1 - 12.706 * 0.1, 0.1 + 12.706 * 0.1]), rel=1e-4)
    assert ratio_change([1.0, np.nan], [1.0, 1.0]) is None
    section = measures.SEPARATION.build(compared(analyzed("ce"), analyzed("flat", slope=0.0)))
    assert section is not None
    assert section.table is not None
    assert section.table.heads[-1] == "Change against ce"
    assert re.fullmatch(r"[+−][\d.]+% \(95% interval .* to .*\)", str(section.table.rows[1][-1]))


def test_spread_rises_towards_the_tail_or_does_not(analyzed: Callable[..., Path]) -> None:
    section = measures.SEPARATION.build(compared(analyzed("ce"), analyzed("flat", slope=0.0)))
    assert section is not None
    assert re.search(r"falls \(−[\d.]+\) .*ce .*no clear .*flat", section.sentence)
    ranges = [drawing.figure.layout.yaxis.range for drawing in section.drawings]
    assert ranges[0] == ranges[1]
    assert ranges[0][1] > 1 > ranges[0][0]


def test_norms_are_drawn_for_each_measure_that_a_run_has(analyzed: Callable[..., Path]) -> None:
    section = measures.NORMS.build(compared(analyzed("ce"), analyzed("gcl", bias=False, slope=0.0)))
    assert section is not None
    assert [drawing.id for drawing in section.drawings] == [
        "norms-feature-norm-0",
        "norms-feature-norm-1",
        "norms-weight-norm-0",
        "norms-weight-norm-1",
        "norms-angle-0",
        "norms-angle-1",
        "norms-bias-0",
    ]
    feature = [drawing.figure.layout.yaxis.range for drawing in section.drawings[:2]]
    assert feature[0] == feature[1]
    assert section.table is not None
    trends = {row[:2]: row[-1].split(" (")[0] for row in section.table.rows}
    assert trends["ce", "Feature norm"] == trends["ce", "Bias"] == "rises"
    assert trends["gcl", "Feature norm"] == trends["ce", "Weight norm"] == "no clear trend"
    assert re.search(r"rises \(1\.00\) .*ce .*no clear .*gcl", section.sentence)
    assert "rises" in section.drawings[0].alt


def test_absent_classes_are_left_out_of_the_figure_not_drawn_at_zero(analyzed: Callable[..., Path]) -> None:
    folder = analyzed("ce")
    path = folder / "analysis" / "classes.parquet"
    table = pq.read_table(path)
    values = table["ratio"].to_numpy().copy()
    values[[3, 103]] = np.nan
    pq.write_table(table.set_column(table.column_names.index("ratio"), "ratio", pa.array(values)), path)
    section = measures.SEPARATION.build(compared(folder))
    assert section is not None
    drawn = np.concatenate(
        [trace.customdata for trace in section.drawings[0].figure.data if trace.customdata is not None]
    )
    assert 3 not in drawn
    assert len(drawn) == 99


def test_curves_mark_where_stage_two_begins(make_run):
    section = measures.TRAINING.build(compare_runs([make_run("gcl", stages=2, epochs=6)]))
    figures_by_id = {drawing.id: drawing.figure for drawing in section.drawings}
    assert list(figures_by_id) == ["curve-accuracy", "curve-loss", "curve-learning_rate"]
    figure = figures_by_id["curve-learning_rate"]
    assert [shape.x0 for shape in figure.layout.shapes] == [6.5]
    assert list(figure.data[0].x) == list(range(1, 10))
    assert not measures.TRAINING.build(compare_runs([make_run("ce")])).drawings[0].figure.layout.shapes
