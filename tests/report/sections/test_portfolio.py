"""The classifiers that were tried: all are drawn and listed, and the sentence says what was chosen and why."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fake_portfolio import candidate, fake_portfolio

from longtail.compare.comparison import compare_runs
from longtail.errors import LongtailError
from longtail.report.plots import INK
from longtail.report.sections import portfolio
from longtail.report.sections.order import build_sections
from longtail.run import read
from longtail.run.portfolio import write_portfolio


def section_of(make_run, *portfolios, **options):
    folders = [make_run(f"run{number}", **options) for number in range(len(portfolios))]
    for folder, each in zip(folders, portfolios, strict=True):
        write_portfolio(folder, each)
    section = portfolio.build(compare_runs(folders, names=[f"run{number}" for number in range(len(folders))]))
    assert section is not None
    return section


def traces(drawing):
    return {trace.name: trace for trace in drawing.figure.data}


def test_a_run_without_a_portfolio_has_no_such_section(make_run):
    comparison = compare_runs([make_run("ce")])
    assert portfolio.build(comparison) is None
    assert "portfolio" not in [section.id for section in build_sections(comparison)]


def test_whoever_uses_the_model_sees_it_after_the_results(make_run):
    folder = make_run("ce")
    write_portfolio(folder, fake_portfolio())
    sections = build_sections(compare_runs([folder]))
    assert [section.id for section in sections][:3] == ["results", "groups", "portfolio"]
    assert not sections[2].for_researchers


def test_finalists_have_whiskers_and_names_and_the_ends_are_marked(make_run):
    (drawing,) = section_of(make_run, fake_portfolio()).drawings
    drawn = traces(drawing)
    assert list(drawn["finalists"].x) == [0.75, 0.70]
    assert list(drawn["finalists"].y) == [0.80, 0.77]
    assert drawn["finalists"].text == ("kps", "gcl")
    assert drawn["finalists"].marker.color == INK
    for trace in (drawn["finalists"], drawn["chosen"]):
        assert list(trace.error_x.array) == pytest.approx([0.02] * len(trace.x))
        assert list(trace.error_y.arrayminus) == pytest.approx([0.02] * len(trace.x))
    assert (*drawn["chosen"].x, *drawn["chosen"].y) == (0.78, 0.798)
    assert (*drawn["other end"].x, *drawn["other end"].y) == (0.86, 0.70)
    assert drawn["chosen"].marker.symbol != drawn["other end"].marker.symbol
    assert [note.text for note in drawing.figure.layout.annotations] == ["<b>weighted</b>", "<b>gcl</b>"]
    hover = drawn["chosen"].hovertext[0]
    assert all(words in hover for words in ("weighted", "tau 0.5", "few 70.0%", "3 of 3 folds", "1.5 s"))
    assert "tau 0<" in drawn["other end"].hovertext[0]


def test_of_many_finalists_the_best_are_named_so_that_names_do_not_hide_each_other(make_run):
    many = tuple(candidate(f"loss-{rank}", 0.9 - rank / 100, 0.9 - rank / 100) for rank in range(20))
    crowded = fake_portfolio(candidates=many, first_round=many, chosen=0)
    (drawing,) = section_of(make_run, crowded).drawings
    drawn = traces(drawing)["finalists"]
    assert len(drawn.x) == len(drawn.text) == len(drawn.textposition) == 19
    assert [name for name in drawn.text if name] == [f"loss-{rank}" for rank in range(1, 1 + portfolio.NAMED)]
    assert all(f"loss-{rank}" in hover for rank, hover in enumerate(drawn.hovertext, start=1))


def test_a_name_that_two_finalists_share_tells_their_learning_rates(make_run):
    shared = tuple(candidate("weighted", 0.8 - lr, 0.8 - lr, lr=lr) for lr in (0.001, 0.003))
    three = (*shared, candidate("kps", 0.7, 0.7))
    (drawing,) = section_of(make_run, fake_portfolio(candidates=three, first_round=three, chosen=0)).drawings
    assert traces(drawing)["finalists"].text == ("weighted, lr 0.003", "kps")
    assert drawing.figure.layout.annotations[0].text == "<b>weighted, lr 0.001</b>"


def test_those_dropped_early_are_paler_and_stand_where_the_finalists_went(make_run, monkeypatch):
    monkeypatch.setattr(portfolio, "FAR", 2.0)
    (drawing,) = section_of(make_run, fake_portfolio()).drawings
    drawn = traces(drawing)
    # The fold they were tried on was easier, by two points and by ten; near 100% less of that is taken off.
    assert list(drawn["dropped"].x) == pytest.approx([0.6975, 0.9944], abs=1e-4)
    assert list(drawn["dropped"].y) == pytest.approx([0.7402, 0.5197], abs=1e-4)
    assert drawn["dropped"].error_x.array is None
    assert drawn["dropped"].marker.opacity < 1
    assert drawn["dropped"].marker.size < drawn["finalists"].marker.size
    assert "about 74.0%" in drawn["dropped"].hovertext[0]


def test_another_adjustment_of_the_finalists_moves_no_one():
    first = [replace(each, tau=1.0, accuracy=0.5, adjustments=each.adjustments) for each in fake_portfolio().finalists]
    moved = portfolio.dropped(replace(fake_portfolio(), first_round=tuple(first)))
    assert [each.accuracy for each in moved] == pytest.approx([0.72, 0.995])


def test_what_is_moved_stays_a_share():
    easy = [replace(each, accuracy=each.accuracy - 0.2) for each in fake_portfolio().first_round]
    moved = portfolio.dropped(replace(fake_portfolio(), first_round=tuple(easy)))
    assert [each.accuracy for each in moved] == sorted(each.accuracy for each in moved)
    assert 0.99 < moved[1].accuracy < 1.0
    assert moved[0].groups == pytest.approx({"many": 0.9, "medium": 0.8, "few": 0.7})


def test_axes_hold_every_point_whisker_and_line(make_run):
    (drawing,) = section_of(make_run, fake_portfolio()).drawings
    (left, right), (low, high) = drawing.figure.layout.xaxis.range, drawing.figure.layout.yaxis.range
    for trace in drawing.figure.data:
        assert all(left < value < right for value in trace.x)
        assert all(low < value < high for value in trace.y)
    assert 0.60 < low < 0.70
    assert high > 0.82


def test_what_was_dropped_far_off_does_not_stretch_the_figure_and_is_in_the_table(make_run):
    section = section_of(make_run, fake_portfolio())
    drawn = traces(section.drawings[0])["dropped"]
    assert list(drawn.x) == pytest.approx([0.6975], abs=1e-4)
    assert "1 of them is too far off for the figure, and in the table." in section.sentence
    assert any("fbl" in str(row) for row in section.table.rows)


def test_the_lines_lead_from_each_finalist_to_its_most_accurate_adjustment(make_run):
    (drawing,) = section_of(make_run, fake_portfolio()).drawings
    lines = [trace for trace in drawing.figure.data if trace.name == "adjustments"]
    assert {(trace.x[0], trace.x[-1]) for trace in lines} == {(0.75, 0.82), (0.78, 0.80), (0.70, 0.86)}


def test_the_sentence_says_what_was_compared_chosen_and_why(make_run):
    sentence = section_of(make_run, fake_portfolio()).sentence
    for words in ("5 classifiers", "balanced accuracy", "3-fold", "1,200", "best 3", "weighted, tau 0.5"):
        assert words in sentence
    assert "0.2 ± 1.0 points behind kps" in sentence
    assert "simpler" in sentence
    assert "gcl, tau 0: 86.0% accuracy, 8.0 points higher, and 70.0% balanced accuracy, 9.8 points lower" in sentence
    highest = portfolio.verdict(fake_portfolio(chosen=0))
    assert "simpler" not in highest
    assert "highest with 80.0% (78.0–82.0)" in highest


def test_where_accuracy_was_asked_for_the_other_end_is_the_balanced_one():
    by_accuracy = sorted(fake_portfolio().candidates[:3], key=lambda each: -each.accuracy)
    asked = fake_portfolio(
        metric="accuracy",
        candidates=tuple(replace(each, score=each.accuracy) for each in by_accuracy),
        first_round=tuple(by_accuracy),
        chosen=0,
    )
    assert asked.other_end.name == "kps"
    text = portfolio.verdict(asked)
    assert "--metric balanced" in text
    assert "80.0% balanced accuracy, 0.2 points higher, and 75.0% accuracy, 3.0 points lower" in text


def test_a_choice_that_is_best_by_both_has_no_other_end(make_run):
    alone = (candidate("kps", 0.9, 0.9, behind=0.0, behind_error=0.0),)
    section = section_of(make_run, fake_portfolio(candidates=alone, first_round=alone, chosen=0))
    assert "No other" in section.sentence
    assert [key.text for key in section.legend].count("Most accurate") == 0
    assert "other end" not in traces(section.drawings[0])
    assert len(section.table.rows) == 1


def test_the_table_lists_all_with_what_is_an_estimate_marked(make_run):
    section = section_of(make_run, fake_portfolio())
    rows = {row[0]: dict(zip(section.table.heads, row, strict=True)) for row in section.table.rows}
    assert list(rows) == [
        "kps, tau 0.5",
        "weighted, tau 0.5 (chosen)",
        "gcl, tau 0.5",
        "ldam-drw, tau 0.5",
        "fbl, tau 0.5",
    ]
    chosen, dropped = rows["weighted, tau 0.5 (chosen)"], rows["ldam-drw, tau 0.5"]
    assert chosen["Balanced"] == ("79.8", "77.8–81.8")
    assert chosen["Accuracy"] == ("78.0", "76.0–80.0")
    assert (chosen["Few"], chosen["Behind"], chosen["Folds"], chosen["Seconds"]) == ("70.0", "0.2 ± 1.0", "3", "1.5")
    assert dropped["Balanced"] == ("≈ 74.0", "")
    assert (dropped["Behind"], dropped["Folds"]) == ("n/a", "1")
    assert "weighted, tau 0.5 (chosen), cosine: balanced 79.8 (77.8–81.8)" in section.drawings[0].alt


def test_a_metric_of_its_own_has_a_column_of_its_own(make_run):
    worst = tuple(replace(each, score=0.5) for each in fake_portfolio().candidates)
    heads = section_of(make_run, fake_portfolio(metric="worst-group", candidates=worst)).table.heads
    assert heads[2:5] == ("Worst group", "Balanced", "Accuracy")


def test_of_several_configurations_the_first_run_with_one_is_drawn_and_named(make_run):
    recipe = {"recipe": "images/portfolio"}
    seeds = [make_run(f"seed{seed}", seed=seed, **recipe) for seed in (0, 1, 2)]
    other = make_run("other", recipe="cifar-lt/gcl")
    for folder in (*seeds[1:], other):
        write_portfolio(folder, fake_portfolio())
    section = portfolio.build(compare_runs([*seeds, other, make_run("ce", recipe="cifar-lt/ce")]))
    titles = [drawing.title for drawing in section.drawings]
    assert len(titles) == 2
    assert titles[0].endswith("seed 1")
    assert all(title in section.sentence for title in titles)
    assert "Of several seeds" in section.sentence
    assert len({drawing.figure.layout.xaxis.range for drawing in section.drawings}) == 1
    assert section.table.heads[0] == "Configuration"
    assert section.table.labels == 3
    assert len(section.table.rows) == 10


def test_configurations_with_other_metrics_and_groups_share_a_table(make_run):
    worst = tuple(replace(each, groups={"many": 0.9}) for each in fake_portfolio().candidates)
    section = section_of(make_run, fake_portfolio(), fake_portfolio(metric="macro-f1", candidates=worst))
    assert {len(row) for row in section.table.rows} == {len(section.table.heads)}
    last = dict(zip(section.table.heads, section.table.rows[-1], strict=True))
    assert last["Few"] == "n/a"


@pytest.mark.parametrize(
    "change",
    [{"chosen": 3}, {"chosen": -1}, {"first_round": []}, {"folds": 7}, {"candidates": []}, {"candidates": "kps"}],
)
def test_a_damaged_file_is_refused_by_name(make_run, change):
    folder = make_run("ce")
    write_portfolio(folder, fake_portfolio())
    path = folder / "portfolio.json"
    assert read(folder).portfolio == fake_portfolio()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LongtailError, match=r"portfolio\.json"):
        _ = read(folder).portfolio
