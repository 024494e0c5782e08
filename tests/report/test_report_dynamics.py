"""The sections on recorded gradients: what they draw, what they say, and files that cannot be read."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from longtail.analysis.collected import AnalysedSplit, Analysis, ClassColumns
from longtail.analysis.saturation import BINS
from longtail.errors import LongtailError
from longtail.report.cloud import cloud_section
from longtail.report.compare import compare_results, compare_runs
from longtail.report.gradients import class_gradients_section, gradients_section
from longtail.report.palette import THEME
from longtail.report.recorded import read_dynamics
from longtail.report.runs import RunResult
from longtail.report.saturation import saturation_section, shares_section
from longtail.report.sections import build_sections

SECTIONS = (gradients_section, class_gradients_section, saturation_section, shares_section)


def test_without_recordings_there_is_no_section(make_run):
    comparison = compare_runs([make_run("ce")])
    assert [section(comparison) for section in (*SECTIONS, cloud_section)] == [None] * 5


def test_what_was_written_is_read(make_run, record):
    found = read_dynamics(record(make_run("gcl"), tail=0.5, epochs=(2, 1)), 6)
    assert found.stage.tolist() == [1, 1, 2]
    assert (found.steps.tolist(), found.end_of_stage_1) == ([1, 2, 3], 1)
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
    section = gradients_section(comparison)
    assert "it is 0.25 for few-shot classes under ce, lower than 1.00 for many-shot ones" in section.sentence
    assert "there is no difference under kps: 1.00 for many-shot and few-shot classes alike" in section.sentence
    ends = [drawing.figure.layout.yaxis.range for drawing in section.drawings]
    assert ends[0] == ends[1]
    assert {trace.name for trace in section.drawings[0].figure.data} == {"Many-shot", "Medium-shot", "Few-shot"}
    shares = shares_section(comparison)
    assert "0.0%, 0.0% and 0.0% under ce; 100.0%, 100.0% and 100.0% under kps, past 0.9 100.0 points" in shares.sentence
    assert len(shares.drawings) == 6
    assert "0.01 for few-shot" not in saturation_section(comparison).sentence


def test_no_difference_is_said_where_there_is_none(make_run, record):
    runs = [record(make_run(name, recipe=f"cifar-lt/{name}")) for name in ("ce", "kps")]
    comparison = compare_runs(runs)
    assert gradients_section(comparison).sentence.count("no difference") == 2
    assert "past 0.9 no clear difference (0.0 points" in shares_section(comparison).sentence
    assert "Too few classes" in class_gradients_section(comparison).sentence  # all ratios are 1: nothing to rank


def test_class_points_follow_the_convention_of_the_page(make_run, record):
    section = class_gradients_section(compare_runs([record(make_run("ce"), tail=0.5)]))
    traces = section.drawings[0].figure.data
    assert sorted(int(index) for trace in traces for index in trace.customdata) == list(range(6))
    assert {trace.meta for trace in traces} == {"class"}
    assert all(trace.customdata.dtype == np.int32 and trace.text is None for trace in traces)


def test_stage_2_is_marked_and_colours_are_those_of_the_theme(make_run, record):
    comparison = compare_runs([record(make_run("gcl"), epochs=(3, 2))])
    known = {light for light, _ in THEME.values()}
    for build in SECTIONS:
        for drawing in build(comparison).drawings:
            assert drawing.title
            assert drawing.alt.endswith(".")
            for trace in drawing.figure.data:
                assert {trace.line.color or trace.marker.color} <= known
    marks = [note.text for note in gradients_section(comparison).drawings[0].figure.layout.annotations]
    assert "stage 2" in marks


def test_the_page_has_the_sections_in_its_order(make_run, record):
    names = [section.id for section in build_sections(compare_runs([record(make_run("ce"))]))]
    assert names[names.index("gradients") :][:4] == ["gradients", "gradient-classes", "saturation", "saturated"]


def test_one_epoch_is_a_point(make_run, record):
    section = gradients_section(compare_runs([record(make_run("ce"), epochs=(1,))]))
    assert {trace.mode for trace in section.drawings[0].figure.data} == {"markers"}


def test_a_cloud_is_drawn_where_the_loss_has_one(make_run):
    results = [RunResult.load(make_run(name, recipe=f"cifar-lt/{name}")) for name in ("ce", "gcl")]
    mean = np.linspace(0, -0.13, 6).astype(np.float32)
    for result, cloud in zip(results, (np.full(6, np.nan, np.float32), mean), strict=True):
        columns = {field.name: np.zeros(6, np.float32) for field in fields(ClassColumns)}
        columns |= {"cloud_mean": cloud, "cloud_spread": np.abs(cloud)}
        split = AnalysedSplit(images=None, classes=ClassColumns(**columns), summary={})
        result.__dict__["analysis"] = Analysis(train=split, test=None)
    section = cloud_section(compare_results(results))
    assert [drawing.title for drawing in section.drawings] == ["gcl"]
    assert "under gcl it grows towards the tail, down to −0.130" in section.sentence
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
