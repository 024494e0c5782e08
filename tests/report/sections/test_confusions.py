"""Confusions: pairs, the ordered matrix, and where a group's errors go; every class of a group counts the same."""

from __future__ import annotations

import re

import numpy as np
from fake_predictions import LABEL, first_right, predict

from longtail.compare.comparison import compare_runs
from longtail.counts import GROUP_NAMES
from longtail.report.page import render_report
from longtail.report.pictures import error_pictures
from longtail.report.sections import confusions
from longtail.report.sections.confusions import (
    build,
    cluster,
    confused_pairs_of,
    confusion_shares,
    group_destinations,
    matrix_figure,
)
from longtail.run import read


def test_where_tail_errors_go_is_counted(ce_and_gcl):
    section = group_destinations(ce_and_gcl)
    assert [drawing.id for drawing in section.drawings] == [f"destinations-{name}" for name in GROUP_NAMES]
    few = section.drawings[2]
    assert [(trace.name.split()[-2:][0], trace.x.tolist()) for trace in few.figure.data] == [
        ("right", [0.0, 0.5]),
        ("many-shot", [1.0, 0.25]),
        ("medium-shot", [0.0, 0.0]),
        ("few-shot", [0.0, 0.25]),
    ]
    assert "40 test images" in few.title
    assert re.search(r"ce: right 0\.0%, .*many-shot .*100\.0%", few.alt)
    assert "40.0%" in section.sentence  # of all other classes are many-shot


def test_pairs_are_those_of_both_configurations_with_their_shares(ce_and_gcl):
    pairs = confused_pairs_of(ce_and_gcl.final)
    assert next(iter(pairs)) == (4, 0)
    assert pairs[4, 0] == [(20, 1.0), (10, 0.5)]
    assert [images for images, _ in pairs[5, 4]] == [0, 10]


def test_seeds_are_pooled_and_counted_once(make_run):
    answers = [first_right([20] * 4 + [0, 0], [0] * 6), first_right([20] * 4 + [20, 20], [0] * 6)]
    rows = compare_runs([predict(make_run(f"ce{seed}", seed=seed), answer) for seed, answer in enumerate(answers)])
    few = group_destinations(rows).drawings[2]
    assert few.figure.data[0].x.tolist() == [0.5]
    assert "40 test images" in few.title
    assert build(rows).table.rows[0][-2] == "50.0"
    assert confusion_shares(rows.final[0])[5].tolist() == [0.5, 0, 0, 0, 0, 0.5]


def test_the_matrix_holds_the_shares_and_confused_classes_stand_together(ce_and_gcl):
    section = build(ce_and_gcl)
    assert [drawing.title for drawing in section.drawings] == ["ce", "gcl"]
    heat = section.drawings[0].figure.data[0]
    rows_of = {name: index for index, name in enumerate(heat.x)}
    assert heat.y == heat.x
    assert heat.z[rows_of["class 4"], rows_of["class 0"]] == 100
    assert heat.z[rows_of["class 2"], rows_of["class 2"]] == 50
    blocks = np.kron(np.eye(3), np.full((2, 2), 0.5))
    shuffled = np.array([0, 2, 4, 1, 3, 5])
    order = shuffled[cluster(blocks[np.ix_(shuffled, shuffled)])]
    assert sorted(map(sorted, order.reshape(3, 2).tolist())) == [[0, 1], [2, 3], [4, 5]]


def test_an_untested_class_is_drawn_and_names_keep_their_markup_to_themselves():
    shares = np.array([[0.5, 0.5], [np.nan, np.nan]])
    heat = matrix_figure(shares, ["<b>cat", "dog"]).data[0]
    assert heat.z.tolist() == [[50, 50], [0, 0]]
    assert "<b>" not in heat.x[0]
    assert cluster(np.full((4, 4), np.nan)).shape == (4,)


def test_beyond_the_limit_the_pairs_are_listed_without_a_matrix(ce_and_gcl, monkeypatch):
    monkeypatch.setattr(confusions, "MATRIX_CLASSES", 5)
    section = build(ce_and_gcl)
    assert section.drawings == ()
    assert "class 4" in render_report(ce_and_gcl, [section])


def test_a_perfect_predictor_has_no_pairs(make_run):
    rows = compare_runs([predict(make_run("ce"), LABEL, 1.0, 0.0)])
    assert build(rows).table is None
    assert group_destinations(rows).drawings


def test_runs_without_predictions_are_left_out(ce_and_gcl, make_run):
    bare = make_run("bare", recipe="cifar-lt/bare")
    (bare / "predictions.parquet").unlink()
    rows = compare_runs([bare, ce_and_gcl.final[1].runs[0].folder])
    for section in (build, group_destinations):
        assert "bare" not in section(rows).drawings[0].alt
        assert section(compare_runs([bare])) is None
        assert section(compare_runs([make_run(f"untested-{section.__name__}", test=False)])) is None


def test_only_groups_with_images_are_drawn(make_run):
    rows = compare_runs([predict(make_run("ce", counts=(300, 200, 150, 120, 60, 50)), LABEL // 2)])
    assert [drawing.id for drawing in group_destinations(rows).drawings] == [
        "destinations-many",
        "destinations-medium",
    ]


def test_pictures_stand_with_their_pair(make_run):
    folder = make_run("ce", files="/photos")
    error = next(each for each in read(folder).examples if each.role == "error")
    rows = compare_runs([folder]).final
    (first, *_) = error_pictures(rows, error.label, 3, error.prediction)
    assert re.search(rf"class {error.label}, .*class {error.prediction}", first.alt)
    assert first.file.startswith("/photos/")
    assert first.uri.startswith("data:image/")
