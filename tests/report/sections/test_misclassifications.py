"""Errors and images that look mislabeled, by file."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
from fake_predictions import LABEL, first_right, predict

from longtail.compare.comparison import compare_runs
from longtail.report.page import render_report
from longtail.report.sections import misclassifications
from longtail.report.sections.misclassifications import Answers, build, mislabeled, suspect_labels


def test_errors_are_named_by_file_with_what_each_configuration_takes_them_for(make_run):
    runs = [make_run(name, recipe=f"x/{name}", files="/photos/test") for name in ("ce", "gcl")]
    comparison = compare_runs(runs)
    section = build(comparison)
    answers = Answers.of(comparison.final)
    wrong = (answers.prediction != answers.label).any(axis=0)
    assert len(section.table.rows) == wrong.sum()
    for picture, label, *predictions in section.table.rows:
        name, number = picture.caption.removesuffix(".png").split("/")
        index = int(number)
        assert label == name == f"class {answers.label[index]}"
        for cell, prediction in zip(predictions, answers.prediction[:, index], strict=True):
            assert cell.startswith("right" if prediction == answers.label[index] else f"class {prediction} (")
    assert any(picture.uri for picture, *_ in section.table.rows)
    assert "/photos/test" in section.table.caption


def test_the_surest_errors_come_first_and_the_rest_is_counted(make_run, monkeypatch):
    monkeypatch.setattr(misclassifications, "ERRORS", 3)
    section = build(compare_runs([make_run("ce")]))
    sure = [float(prediction.split("(")[1].rstrip("%)")) for *_, prediction in section.table.rows]
    assert sure == sorted(sure, reverse=True)
    assert len(sure) == 3
    assert "the 3 surest" in section.table.caption


def test_runs_that_keep_no_file_names_say_so_in_one_line(make_run):
    folder = make_run("old")
    table = pq.read_table(folder / "predictions.parquet").drop_columns(["path"])
    pq.write_table(table, folder / "predictions.parquet")
    section = build(compare_runs([folder]))
    assert section.sentence == misclassifications.NO_FILES
    assert section.table.rows[0][0].caption.startswith("test image ")


def test_runs_tested_on_other_images_are_named_and_left_out(make_run):
    section = build(compare_runs([make_run("ce"), make_run("gcl", recipe="x/gcl", per_class_test=7)]))
    assert "gcl" in section.table.caption
    assert section.table.heads == ("File", "Class", "cifar-lt/ce")


def test_an_image_looks_mislabeled_where_all_runs_are_surer_than_usual(make_run):
    right = first_right([20] * 6, [0] * 6)
    confidence = np.full(len(LABEL), 0.8)
    answers = [right.copy(), right.copy()]
    for answer in answers:
        answer[0] = 3  # both runs agree
    answers[0][20] = 2  # one run alone
    confidence[[0, 20]] = 0.95
    folders = [predict(make_run(f"s{seed}", seed=seed), each, confidence) for seed, each in enumerate(answers)]
    section = mislabeled(compare_runs(folders))
    assert [cells for _, *cells in section.table.rows] == [["class 0", "class 3", "95.0%"]]
    confidence[0] = 0.7  # less sure than the average image that is rightly given the class
    for folder, each in zip(folders, answers, strict=True):
        predict(folder, each, confidence)
    assert mislabeled(compare_runs(folders)).table is None


def test_a_class_that_is_never_recognized_makes_no_suspects():
    assert suspect_labels(np.array([0, 1]), np.array([[1, 1]]), np.array([[0.9, 0.2]])).tolist() == [0]
    assert suspect_labels(np.array([0, 0]), np.array([[1, 0]]), np.array([[0.9, 0.2]])).tolist() == []


def test_the_page_lists_them_in_tables(make_run):
    page = render_report(compare_runs([make_run("ce", files="/photos", names=["a", "b", "c", "d", "e<", "f"])]))
    for text in ('<section id="errors"', '<section id="mislabeled"', "e&lt;/"):
        assert text in page


def test_without_predictions_there_is_neither(make_run):
    folder = make_run("bare")
    (folder / "predictions.parquet").unlink()
    assert build(compare_runs([folder])) is None
    assert mislabeled(compare_runs([folder])) is None
