"""The results: the verdict, and accuracy by shot group."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from printed_table import printed

from longtail.compare.comparison import compare_runs
from longtail.compare.seeds import MeanStd
from longtail.counts import ClassCounts
from longtail.report.page import write_report
from longtail.report.sections.classes import imbalance_words
from longtail.report.sections.order import build_sections
from longtail.report.sections.results import group_bars, verdict


def test_group_bars_write_n_a_and_whiskers_only_where_seeds_were_folded():
    figure = group_bars(["ce", "gcl", "kps"], [MeanStd(0.4, 0.01, 3), None, MeanStd(0.5, None, 1)], "#000000")
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert texts == ["ce", "<b>40.0 ± 1.0</b>", "gcl", "<b>n/a</b>", "kps", "<b>50.0</b>"]
    np.testing.assert_array_equal(figure.data[-1].error_x.array, [0.01, np.nan, np.nan])
    assert len(group_bars(["ce"], [MeanStd(0.4, None, 1)], "#000000").data) == 2


def test_words_say_what_the_numbers_say(make_run):
    same = compare_runs([make_run("a"), make_run("b", recipe="cifar-lt/kps")])
    assert "higher" not in verdict(same)
    far = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", slope=0.3)])
    assert "higher" in verdict(far)
    assert "balanced" in imbalance_words(ClassCounts([7, 7]))
    assert "none" in imbalance_words(ClassCounts([7, 0]))


def test_only_groups_that_have_classes_are_drawn(make_run):
    comparison = compare_runs(
        [make_run("ce", counts=(60, 50, 12, 5)), make_run("gcl", counts=(60, 50, 12, 5), slope=0.1)]
    )
    section = next(each for each in build_sections(comparison) if each.id == "groups")
    assert [each.id for each in section.drawings] == ["group-accuracy", "group-medium", "group-few"]


def test_figures_of_validation_images_are_said_to_be_theirs(make_run):
    folders = [make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", slope=0.1)]
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"test": None, "validation": metrics["test"]}))
    comparison = compare_runs(folders)
    section = next(each for each in build_sections(comparison) if each.id == "groups")
    assert "over validation images" in section.sentence
    assert "over the validation images" in printed(comparison)
    assert "over validation images" in "".join(comparison.notes)
    page = write_report(folders, folders[0].with_name("page.html")).read_text(encoding="utf-8")
    results = page.partition('id="results"')[2].partition("<section")[0]
    assert "over validation images" in results
    assert "test images" not in results


@pytest.mark.parametrize(("slopes", "best"), [((0.8, 0.3), "gcl"), ((0.3, 0.8), "ce")])
def test_the_verdict_is_the_best_on_validation_whatever_the_test_images_say(make_run, slopes, best):
    runs = [
        make_run(name, recipe=f"cifar-lt/{name}", validation_slope=slope)
        for name, slope in zip(("ce", "gcl"), slopes, strict=True)
    ]
    text = verdict(compare_runs(runs))
    assert re.match(rf"Best .*validation .*\b{best},", text)
    assert "No verdict" not in text


def test_the_next_is_that_on_validation_too(make_run):
    first = make_run("ce", slope=0.5, validation_slope=0.1)
    second = make_run("gcl", recipe="cifar-lt/gcl", slope=0.8, validation_slope=0.4)
    third = make_run("kps", recipe="cifar-lt/kps", slope=0.2, validation_slope=0.9)
    assert "Next is gcl" in verdict(compare_runs([first, second, third]))


def test_validation_figures_are_never_called_those_of_test_images(make_run):
    runs = [make_run("ce", test=False, validation_slope=0.5), make_run("gcl", test=False, recipe="cifar-lt/gcl")]
    comparison = compare_runs([make_run("kps", test=False, recipe="cifar-lt/kps", validation_slope=0.2), *runs])
    assert comparison.split == "validation"
    assert "test" not in verdict(comparison).replace("validation", "")


def test_without_validation_the_highest_is_named_with_its_interval_and_no_verdict(make_run, two):
    comparison = compare_runs(two)
    row = max(comparison.final, key=lambda row: row.values["balanced_accuracy"].mean)
    low, high = row.intervals["balanced_accuracy"]
    text = verdict(comparison)
    assert re.match(rf"Highest .*test .*\b{row.label} ", text)
    assert f"({100 * low:.1f}–{100 * high:.1f})" in text
    assert "No verdict" in text
    validated = make_run("kps", recipe="cifar-lt/kps", validation_slope=0.1)
    assert "No verdict" in verdict(compare_runs([*two, validated]))
    assert "verdict" not in verdict(compare_runs(two[:1]))
