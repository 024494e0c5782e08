"""The sections on recorded gradients: what they draw, what they say, and files that cannot be read."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from longtail.analysis.columns import Analysis, AnalyzedSplit, ClassColumns
from longtail.analysis.dynamics import BINS
from longtail.compare.comparison import compare_results, compare_runs
from longtail.errors import LongtailError
from longtail.report.plots import THEME
from longtail.report.sections import measures
from longtail.report.sections.measures import FLOOR
from longtail.report.sections.registry import build_sections
from longtail.run.dynamics import read_dynamics
from longtail.run.result import RunResult

NAMES = ["gradients", "gradient-classes", "saturation", "saturated"]


def sections_of(comparison):
    """The sections on recorded epochs by their names."""
    return {section.id: section for section in build_sections(comparison) if section.id in NAMES}


def test_without_recordings_there_is_no_section(make_run):
    comparison = compare_runs([make_run("ce")])
    assert sections_of(comparison) == {}
    assert measures.CLOUD.build(comparison) is None


def test_what_was_written_is_read(make_run, record):
    found = read_dynamics(record(make_run("gcl"), tail=0.5, epochs=(2, 1)), 6)
    assert found.stage.tolist() == [1, 1, 2]
    assert found.end_of_stage_1 == 1
    np.testing.assert_array_equal(found.images, [[300, 120, 60, 30, 12, 5]] * 3)
    np.testing.assert_allclose(found.negative[0], [150, 60, 30, 15, 6, 2.5])
    np.testing.assert_allclose(found.positive[0, -2:], [3.0, 1.25])
    np.testing.assert_allclose(found.gradient, 0.5)
    assert found.histogram.shape == (3, 6, BINS)


def test_a_drowned_tail_is_said_and_drawn(make_run, record):
    runs = [
        record(make_run("ce"), tail=0.25, sure=2), record(make_run("kps", recipe="cifar-lt/kps"), sure=BINS - 1)
    ]  # fmt: skip
    comparison = compare_runs(runs)
    found = sections_of(comparison)
    section = found["gradients"]
    assert "0.25 for few-shot and 1 for many-shot classes under ce; 1 for few-shot" in section.sentence
    assert ("ce", "Ratio", "3", "1", "1", "0.25") in section.table.rows
    ends = [drawing.figure.layout.yaxis.range for drawing in section.drawings[:2]]
    assert ends[0] == ends[1]
    assert {trace.name for trace in section.drawings[0].figure.data} == {"Many-shot", "Medium-shot", "Few-shot"}
    shares = found["saturated"]
    assert "0.0% for few-shot and 0.0% for many-shot classes under ce; 100.0% for few-shot" in shares.sentence
    assert ("kps", "p_y past 0.999", "3", "100.0%", "100.0%", "100.0%") in shares.table.rows
    assert len(shares.drawings) == 12
    assert "0.01 for few-shot" not in found["saturation"].sentence


def test_no_difference_is_said_where_there_is_none(make_run, record):
    runs = [record(make_run(name, recipe=f"cifar-lt/{name}")) for name in ("ce", "kps")]
    found = sections_of(compare_runs(runs))
    ce, kps = (found["saturated"].table.rows[place][1:] for place in (0, 2))
    assert ce == kps
    assert found["gradient-classes"].table.rows[0][-1] == "n/a"  # all ratios are 1: nothing to rank


def test_class_points_follow_the_convention_of_the_page(make_run, record):
    section = sections_of(compare_runs([record(make_run("ce"), tail=0.5)]))["gradient-classes"]
    for drawing in section.drawings:
        traces = [trace for trace in drawing.figure.data if trace.mode == "markers"]
        assert sorted(int(index) for trace in traces for index in trace.customdata) == list(range(6))
        assert {trace.meta for trace in traces} == {"class"}
        assert all(trace.customdata.dtype == np.int32 and trace.text is None for trace in traces)


def test_both_sums_are_drawn_of_groups_and_of_classes(make_run, record):
    found = sections_of(compare_runs([record(make_run("ce"), tail=0.5)]))
    curves = {(trace.name, trace.line.dash): trace.y[-1] for trace in found["gradients"].drawings[1].figure.data}
    # Lowered by half an image each: 300 and 120 of many-shot classes; the few-shot ones have 12 and 5.
    assert curves["Many-shot raised", "solid"] == curves["Many-shot lowered", "dash"] == pytest.approx(105)
    assert (curves["Few-shot raised", "solid"], curves["Few-shot lowered", "dash"]) == pytest.approx((2.125, 4.25))
    points = found["gradient-classes"].drawings[1].figure.data
    few = next(trace for trace in points if trace.name == "Few-shot")
    assert (few.x.tolist(), few.y.tolist()) == ([6.0, 2.5], [3.0, 1.25])


def test_stage_2_is_marked_and_colours_are_those_of_the_theme(make_run, record):
    comparison = compare_runs([record(make_run("gcl"), epochs=(3, 2))])
    known = {light for light, _ in THEME.values()}
    found = sections_of(comparison)
    for section in found.values():
        for drawing in section.drawings:
            assert drawing.title
            assert drawing.alt.endswith(".")
            for trace in drawing.figure.data:
                assert {trace.line.color or trace.marker.color} <= known
    marks = [note.text for note in found["gradients"].drawings[0].figure.layout.annotations]
    assert "stage 2" in marks


def test_the_page_has_the_sections_in_its_order(make_run, record):
    names = [section.id for section in build_sections(compare_runs([record(make_run("ce"))]))]
    assert names[names.index("gradients") :][:4] == NAMES


def test_the_gradient_that_is_left_is_one_minus_p_on_a_logarithmic_axis(make_run, record):
    runs = [record(make_run("ce"), sure=BINS // 2), record(make_run("kps", recipe="cifar-lt/kps"), sure=BINS - 1)]
    found = sections_of(compare_runs(runs))
    shown = {drawing.id: drawing.figure for drawing in found["saturation"].drawings}
    assert list(shown) == ["saturation-0", "saturation-1", "gradient-size-0", "gradient-size-1"]
    for number in "01":
        sure, left = shown[f"saturation-{number}"], shown[f"gradient-size-{number}"]
        lines = [next(trace for trace in figure.data if trace.name == "Few-shot").y for figure in (sure, left)]
        np.testing.assert_allclose(lines[1], np.maximum(1 - lines[0], FLOOR), rtol=1e-4)
    assert pytest.approx(1e-4) == FLOOR
    ranges = {shown[f"gradient-size-{number}"].layout.yaxis.range for number in "01"}
    assert len(ranges) == 1  # the same axis, that holds the surest of them
    assert ranges.pop()[0] < np.log10(FLOOR)
    past = {
        drawing.id: drawing.figure.data[-1].y[-1]
        for drawing in found["saturated"].drawings
        if drawing.id.endswith("few")
    }
    assert [past[f"saturation-past-{word}-few"] for word in ("0-9", "0-99", "0-999")] == [1, 1, 1]


def test_one_epoch_is_a_point(make_run, record):
    section = sections_of(compare_runs([record(make_run("ce"), epochs=(1,))]))["gradients"]
    assert {trace.mode for trace in section.drawings[0].figure.data} == {"markers"}


def test_a_cloud_is_drawn_where_the_loss_has_one(make_run):
    runs = [RunResult.load(make_run(name, recipe=f"cifar-lt/{name}")) for name in ("ce", "gcl")]
    comparison = compare_results(runs)
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


@pytest.mark.parametrize(("damage", "words"), [("broken", "cannot be read"), ("classes", "other classes"),
                                               ("missing", "has no file of stage 1, epoch 2")])  # fmt: skip
def test_damaged_recordings_are_one_sentence(make_run, damage, words, record):
    run = record(make_run("ce"))
    file = run / "dynamics" / "stage1-epoch0002.parquet"
    if damage == "broken":
        file.write_bytes(b"PAR1")
    elif damage == "missing":
        file.unlink()
    with pytest.raises(LongtailError, match=words) as caught:
        read_dynamics(run, 7 if damage == "classes" else 6)
    assert str(caught.value).endswith("to report without it.")
