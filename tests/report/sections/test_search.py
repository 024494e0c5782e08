"""What was compared before a run: every presentation is drawn and listed, and the sentence says what was chosen."""

from __future__ import annotations

from longtail.compare.comparison import compare_runs
from longtail.report.sections import search
from longtail.report.sections.order import build_sections
from longtail.run.search import Presentation, PresentationResult, Search, WholeNetworkResult, write_search


def result(size, score, minutes, *, fit="crop", **options):
    interval = None if score is None else (score - 0.02, score + 0.02)
    return PresentationResult(Presentation("timm:lite", size, fit), minutes, score, interval, **options)


def fake_search(**options):
    """Two sizes and a fit were tried, and the faster of the best two was taken; there was no time for a third size."""
    shown = (
        result(96, 0.60, 1.0, behind=0.05, behind_error=0.01),
        result(128, 0.648, 2.0, behind=0.002, behind_error=0.01),
        result(128, 0.65, 2.1, fit="pad", behind=0.0, behind_error=0.0),
        result(160, None, 9.0),
    )
    fields = {"metric": "balanced", "images": 2000, "time_limit": 300.0, "presentations": shown, "chosen": 1}
    return Search(**fields | {"seconds": 20.0, "more_time": "more time would buy 160 px."} | options)


def section_of(make_run, *searches):
    folders = [make_run(f"run{number}") for number in range(len(searches))]
    for folder, each in zip(folders, searches, strict=True):
        write_search(folder, each)
    section = search.build(compare_runs(folders, names=[f"run{number}" for number in range(len(folders))]))
    assert section is not None
    return section


def test_a_run_before_which_nothing_was_compared_has_no_such_section(make_run):
    comparison = compare_runs([make_run("ce")])
    assert search.build(comparison) is None
    assert "search" not in [section.id for section in build_sections(comparison)]


def test_every_presentation_that_was_tried_is_a_point_with_whiskers_and_the_choice_is_marked(make_run):
    (drawing,) = section_of(make_run, fake_search()).drawings
    compared, chosen = drawing.figure.data
    assert (list(compared.x), list(compared.y)) == ([1.0, 2.1], [0.60, 0.65])
    assert list(compared.text) == ["96 px", "128 px pad"]
    assert (*chosen.x, *chosen.y, chosen.marker.symbol) == (2.0, 0.648, "diamond")
    assert min(chosen.error_y.array) > 0.019
    assert "chosen" in drawing.alt


def test_the_table_lists_what_there_was_no_time_for(make_run):
    table = section_of(make_run, fake_search()).table
    assert [row[1] for row in table.rows] == ["96", "128", "128", "160"]
    assert "not tried" in table.rows[-1]


def test_the_sentence_says_what_was_chosen_what_fine_tuning_brought_and_what_more_time_buys(make_run):
    trial = WholeNetworkResult(Presentation("timm:lite", 96, "crop"), 500, 3, 50.0, 0.7, 0.66, 0.04, 0.01, 0.5, True)
    sentence = section_of(make_run, fake_search(trials=(trial,))).sentence
    for words in ("timm:lite at 128 px", "behind", "+4.0", "More time"):
        assert words in sentence


def test_several_configurations_have_a_figure_each_and_one_table(make_run):
    section = section_of(make_run, fake_search(), fake_search(chosen=2))
    assert len(section.drawings) == 2
    assert section.table.heads[0] == "Configuration"
