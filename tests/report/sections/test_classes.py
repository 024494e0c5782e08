"""The classes one by one: the training set, and the hardest classes."""

from __future__ import annotations

import json

import numpy as np

from longtail.compare.comparison import compare_runs
from longtail.counts import ClassCounts
from longtail.report.plots import GROUP_COLORS
from longtail.report.sections.classes import class_histogram, hardest, hardest_classes


def test_histogram_orders_classes_by_size_whatever_their_order():
    counts = ClassCounts([5, 300, 50], names=["rare", "common", "some"])
    figure = class_histogram(counts, counts.group_of())
    bars = sorted(
        (x, y, counts.names[index])
        for trace in figure.data
        for x, y, index in zip(trace.x, trace.y, trace.customdata, strict=True)
    )
    assert [(y, text) for _, y, text in bars] == [(300, "common"), (50, "some"), (5, "rare")]
    assert {trace.marker.color for trace in figure.data} == set(GROUP_COLORS.values())


def test_histogram_names_few_classes_and_stays_light_with_many(cifar_counts):
    small = ClassCounts([30, 20, 10], names=["a", "b", "c"])
    assert class_histogram(small, small.group_of()).layout.xaxis.ticktext == ("a", "b", "c")
    large = ClassCounts(cifar_counts * 30)
    figure = class_histogram(large, large.group_of())
    assert {trace.type for trace in figure.data} == {"scatter"}


def test_markup_in_a_class_name_is_shown_not_obeyed():
    counts = ClassCounts([30, 5], names=["<b>bold</b>", "plain"])
    figure = class_histogram(counts, counts.group_of())
    assert "<b>" not in figure.layout.xaxis.ticktext[0]


def test_the_hardest_classes_are_those_of_least_recall(two):
    rows = compare_runs(two).final
    hard = hardest_classes(rows, "test", limit=3)
    means = np.mean([[c.recall for c in row.runs[0].test.per_class] for row in rows], axis=0)
    order = sorted(range(6), key=lambda j: (round(means[j], 6), rows[0].runs[0].counts[j]))
    assert [each.name for each in hard] == [f"class {j}" for j in order[:3]]
    assert len(hard[0].train) == 4
    predictions, index = rows[0].runs[0].predictions, order[0]
    wrong = predictions.prediction[(predictions.label == index) & (predictions.prediction != index)]
    share = np.bincount(wrong).max() / (predictions.label == index).sum()
    *_, taken_for, errors = hard[0].under[0]
    assert f"({share:.1%})" in taken_for
    assert errors[0].caption == f"class {wrong[0]}"  # the class, and not the configuration


def test_hardly_tested_classes_are_never_called_hard(make_run):
    folder = make_run("ce")
    metrics = json.loads((folder / "metrics.json").read_text())
    worst = min(range(6), key=lambda index: metrics["test"]["per_class"][index]["recall"])
    metrics["test"]["per_class"][worst]["test_count"] = 4
    (folder / "metrics.json").write_text(json.dumps(metrics))
    comparison = compare_runs([folder])
    assert f"class {worst}" not in [each.name for each in hardest_classes(comparison.final, "test")]
    assert "of the 5 classes" in hardest(comparison).sentence
    assert hardest(compare_runs([make_run("small", per_class_test=4)])).partial == ""


def test_of_equally_hard_classes_those_with_pictures_come_first(make_run):
    counts = [1000 - j for j in range(60)]
    rows = compare_runs([make_run("ce", counts=counts, slope=9.0, per_class_test=5)]).final
    pictured = {rows[0].runs[0].counts.names[example.label] for example in rows[0].runs[0].examples}
    hard = hardest_classes(rows, "test")
    assert {recall for each in hard for _, recall, *_ in each.under} == {0.0}
    assert {each.name for each in hard} <= pictured
