"""The ablation: only runs that differ in one option are joined, and the sentence claims no more than the seeds show."""

from __future__ import annotations

import json
import re
from itertools import product

import pytest
from ablation_grid import grid

from longtail.compare.ablations import find_ablations
from longtail.compare.comparison import compare_runs
from longtail.evaluation.significance import Difference
from longtail.report.sections import ablation
from longtail.report.sections.order import build_sections


def noises(*values):
    return [{"method.noise": value} for value in values]


def test_one_option_is_one_line_in_the_order_of_its_values(make_run):
    comparison = grid(make_run, noises(1.0, 0.0, 0.25), seeds=2)
    (varied,), refused = find_ablations(comparison.final)
    assert refused == []
    assert (varied.recipe, varied.option, varied.second, varied.is_numeric) == ("gcl", "noise", "", True)
    assert [value for value, _ in varied.lines[0].points] == [0.0, 0.25, 1.0]
    section = ablation.build(comparison)
    (drawing,) = section.drawings
    assert [trace.name for trace in drawing.figure.data] == ["All images", "Many-shot", "Medium-shot", "Few-shot"]
    row = dict(varied.lines[0].points)[0.25]
    overall = drawing.figure.data[0]
    assert overall.x == (0.0, 0.25, 1.0)
    assert overall.y[1] == pytest.approx(row.values["accuracy"].mean)
    assert overall.error_y.array[1] == pytest.approx(row.values["accuracy"].std)
    assert drawing.figure.layout.xaxis.type == "linear"
    assert "noise, 0.25: all images" in drawing.alt


def test_values_over_decades_stand_on_a_logarithmic_axis_and_words_side_by_side(make_run):
    wide = ablation.build(grid(make_run, noises(5.0, 20.0, 180.0)))
    assert wide.drawings[0].figure.layout.xaxis.type == "log"
    assert wide.drawings[0].figure.layout.xaxis.tickvals == (5.0, 20.0, 180.0)
    words = grid(make_run, [{"stage2.sampler": name} for name in ("cben", "square-root")], recipe="cifar-lt/kps")
    figure = ablation.build(words).drawings[0].figure
    assert figure.layout.xaxis.type == "category"
    assert {trace.mode for trace in figure.data} == {"markers"}


def test_one_option_at_a_time_gives_a_figure_each_and_all_have_the_same_axis(make_run):
    star = [{"m.noise": 0.5, "m.scale": 30.0}, {"m.noise": 0.5, "m.scale": 10.0}, {"m.noise": 0.1, "m.scale": 30.0}]
    section = ablation.build(grid(make_run, star, slopes=[0.8, 0.2, 0.5]))
    assert [drawing.title for drawing in section.drawings] == ["gcl: noise", "gcl: scale"]
    assert len({drawing.figure.layout.yaxis.range for drawing in section.drawings}) == 1


def test_two_crossed_options_are_lines_of_levels_for_each_measure(make_run):
    crossed = [{"m.noise": n, "m.scale": s} for n, s in product((0.0, 0.5, 1.0), (10.0, 30.0))]
    comparison = grid(make_run, crossed)
    (varied,), refused = find_ablations(comparison.final)
    assert (varied.option, varied.second, refused) == ("noise", "scale", [])
    assert [(line.level, len(line.points)) for line in varied.lines] == [("10", 3), ("30", 3)]
    section = ablation.build(comparison)
    assert len(section.drawings) == 4
    assert section.legend == ()
    assert [trace.text[-1] for trace in section.drawings[0].figure.data] == ["10", "30"]


def test_three_crossed_options_are_refused_in_a_sentence(make_run):
    crossed = [{"m.a": a, "m.b": b, "m.c": c} for a, b, c in product((0.0, 1.0), repeat=3)]
    section = ablation.build(grid(make_run, crossed))
    assert section.drawings == ()
    assert all(f"{option} of gcl" in section.sentence for option in "abc")


def test_other_recipes_and_single_rows_are_no_ablation(make_run):
    runs = [make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", options={"m": {"noise": 1.0}})]
    assert ablation.build(compare_runs(runs)) is None
    assert ablation.build(compare_runs(runs[:1])) is None
    assert "ablation" not in [section.id for section in build_sections(compare_runs(runs))]


def test_the_sentence_names_a_clear_best_and_warns_of_the_test_split(make_run):
    comparison = grid(make_run, noises(0.0, 0.5), slopes=[0.8, 0.0], seeds=3)
    sentence = ablation.build(comparison).sentence
    assert sentence.startswith("gcl, noise: best at 0.5 ")
    assert "worse at 0 (" in sentence
    assert "validation" in sentence
    assert "standard deviation" in sentence


def test_the_best_of_many_values_needs_a_larger_lead(make_run, monkeypatch):
    lead = Difference(0.02, None, 1, images=(0.003, 0.037))
    monkeypatch.setattr(ablation, "figure_difference", lambda *_: lead)
    two = ablation.build(grid(make_run, noises(0.0, 0.5), recipe="cifar-lt/kps")).sentence
    six = ablation.build(grid(make_run, noises(0.0, 0.1, 0.2, 0.3, 0.4, 0.5))).sentence
    assert "clearly worse" in two
    assert "no clear difference" in six


def test_the_sentence_says_no_difference_where_seeds_or_images_allow_none(make_run):
    seeds = ablation.build(grid(make_run, noises(0.0, 0.5, 1.0), seeds=3)).sentence
    assert "no clear" in seeds
    single = grid(make_run, noises(0.0, 0.5), slopes=[0.8, 0.79], recipe="cifar-lt/kps")
    sentence = ablation.build(single).sentence
    assert sentence.startswith("kps, noise: no clear")
    assert "3 seeds" in sentence


def test_a_value_that_is_clearly_behind_is_named_though_a_scattered_one_is_lower(make_run, tmp_path):
    grid(make_run, noises(1.0, 2.0, 3.0), seeds=3)
    reached = {1: (0.80, 0.80, 0.80), 2: (0.70, 0.70, 0.701), 3: (0.95, 0.60, 0.50)}
    folders = sorted(tmp_path.glob("gcl-*"), key=lambda path: int(path.name[4:]))
    for folder, figure in zip(folders, [figure for seeds in reached.values() for figure in seeds], strict=True):
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["test"]["balanced_accuracy"] = figure
        (folder / "metrics.json").write_text(json.dumps(metrics))
    sentence = ablation.build(compare_runs(folders)).sentence
    assert re.match(r"gcl, noise: best at 1 .*80\.0%.*worse at 2 \(10\.0 points lower\); 3 ", sentence)


def test_values_are_judged_on_validation_images_where_there_are_any(make_run, tmp_path):
    grid(make_run, noises(0.0, 0.5), slopes=[0.8, 0.0])
    folders = [tmp_path / "gcl-0", tmp_path / "gcl-1"]
    stored = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    for folder, metrics, other in zip(folders, stored, reversed(stored), strict=True):
        (folder / "metrics.json").write_text(json.dumps(metrics | {"validation": other["test"]}))  # the other way round
    sentence = ablation.build(compare_runs(folders)).sentence
    assert sentence.startswith("gcl, noise: best at 0 ")
    assert "Judged" in sentence
    assert "choose" not in sentence


def test_where_the_groups_change_accuracy_alone_is_drawn(make_run):
    runs = [
        make_run("a", options={"data": {"few": 20}}, counts=(300, 120, 60, 30, 25, 22)),
        make_run("b", options={"data": {"few": 40}}, counts=(300, 120, 60, 30, 12, 5)),
    ]
    figure = ablation.build(compare_runs(runs)).drawings[0].figure
    assert [trace.name for trace in figure.data] == ["All images"]


def test_the_page_shows_it_to_researchers(make_run):
    names = [section.id for section in build_sections(grid(make_run, noises(0.0, 0.5)))]
    assert names.index("ablation") > names.index("hardest")
