"""Ablations: which options vary, and whether their values are numbers."""

from __future__ import annotations

from ablation_grid import grid

from longtail.compare.ablations import find_ablations


def test_null_and_false_are_words_and_not_numbers(make_run):
    comparison = grid(make_run, [{"method.start": None}, {"method.start": 0.6}])
    (varied,), _ = find_ablations(comparison.final)
    assert not varied.is_numeric
    assert [value for value, _ in varied.lines[0].points] == ["none", "0.6"]


def test_options_that_change_together_are_one(make_run):
    both = [{"a.scale": value, "b.scale": value} for value in (10.0, 20.0)]
    (varied,), refused = find_ablations(grid(make_run, both).final)
    assert (varied.option, refused) == ("scale", [])
