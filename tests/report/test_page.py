"""The page: one file, no request, every section, and readable by a parser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from longtail.compare.comparison import compare_runs
from longtail.errors import LongtailError
from longtail.report import write_report
from longtail.report.page import render_report


class Outline(HTMLParser):
    """Collects headings, ids, links and attributes, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(folders, tmp_path):
    return write_report(folders, tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_page_holds_every_section_and_the_numbers(two, tmp_path):
    text = page_of(two, tmp_path)
    outline = Outline(text)
    sections = [attrs["id"] for attrs in outline.all("section")]
    assert sections == [
        "results",
        "groups",
        "hardest",
        "confusions",
        "errors",
        "mislabeled",
        "classes",
        "accuracy",
        "destinations",
        "prior",
        "calibration",
        "coverage",
        "curves",
        "made",
    ]
    assert text.index('id="mislabeled"') < text.index('<details id="research"') < text.index('<section id="classes"')
    best = compare_runs(two).rows[1]
    assert f"{100 * best.values['few'].mean:.1f}" in outline.text
    for words in ("after stage 1", "stage1.loss.name", "sha256 a1b2c3d4a1b2", "torch 2.13.0", "2 cores", "13 min 32 s"):
        assert words in outline.text.replace(". ", ".")


def test_the_page_asks_the_network_for_nothing(two, tmp_path):
    outline = Outline(page_of(two, tmp_path))
    for tag, attrs in outline.tags:
        for name in ("src", "href", "action", "poster", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    (policy,) = [attrs["content"] for attrs in outline.all("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_plotly_is_embedded_once_and_the_page_stays_small(make_run, cifar_counts, tmp_path):
    runs = [
        make_run(name, recipe=f"cifar-lt/{name}", counts=cifar_counts, epochs=200, image_side=96)
        for name in ("ce", "kps", "gcl")
    ]
    text = page_of(runs, tmp_path)
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert len(text.encode()) < 6_000_000


def test_headings_descend_without_a_gap_and_ids_are_unique(two, tmp_path):
    outline = Outline(page_of(two, tmp_path))
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"][1:] for attrs in outline.all("a")]
    assert set(links) <= set(ids)


def test_every_picture_and_figure_has_words(two, tmp_path):
    outline = Outline(page_of(two, tmp_path))
    pictures, plots = outline.all("img"), [attrs for attrs in outline.all("div") if attrs.get("class") == "plot"]
    assert len(pictures) > 20
    assert all(len(attrs["alt"]) > 5 for attrs in pictures)
    assert len(plots) == 4 + 2 + 1 + 2 + 3 + 1 + 2 + 4 + 3
    assert all(len(attrs["aria-label"]) > 20 for attrs in plots)


def test_every_embedded_figure_is_valid_json(two, tmp_path):
    figures = re.findall(
        r'<script type="application/json" data-figure="([\w-]+)">(.*?)</script>', page_of(two, tmp_path)
    )
    assert len(figures) == 22
    for _, content in figures:
        assert set(json.loads(content)) >= {"data", "layout"}


def test_a_hostile_class_name_cannot_leave_its_place(make_run, tmp_path):
    names = ["</script><script>alert(1)</script>", "<img src=x>", "a&b", '"quoted"', "ß — 猫", "f"]
    outline = Outline(page_of([make_run("ce", names=names)], tmp_path))
    assert not [attrs for attrs in outline.all("img") if attrs["src"] == "x"]
    assert "alert(1)" not in outline.all("script").__str__()
    assert "猫" in outline.text
    assert len([attrs for attrs in outline.all("script") if not attrs]) == 2


def test_seeds_are_folded_and_said_so(make_run, tmp_path):
    folders = [make_run(f"ce{seed}", seed=seed) for seed in range(3)]
    text = Outline(page_of(folders, tmp_path)).text
    assert "±" in text
    assert "over seeds" in text
    assert "ce, seed 2" in text


def test_a_run_without_test_split_still_has_a_page(make_run, tmp_path):
    outline = Outline(page_of([make_run("ce", test=False)], tmp_path))
    assert [attrs["id"] for attrs in outline.all("section")] == ["results", "classes", "curves", "made"]
    assert "No run" in outline.text


def test_a_run_without_examples_history_or_a_few_group_still_has_a_page(make_run, tmp_path):
    folder = make_run("ce", counts=(300, 200, 150))
    for name in ("history.csv", "examples.parquet", "predictions.parquet"):
        (folder / name).unlink()
    outline = Outline(page_of([folder], tmp_path))
    assert "n/a" in outline.text
    assert "curves" not in [attrs["id"] for attrs in outline.all("section")]


def test_differences_in_the_data_are_written_on_the_page(make_run, tmp_path):
    text = Outline(page_of([make_run("ce"), make_run("kps", recipe="cifar-lt/kps", data_hash="x:y")], tmp_path)).text
    assert "same images" in text


def test_two_training_sets_get_a_histogram_each(make_run, tmp_path):
    folders = [make_run("ce"), make_run("milder", counts=(300, 250, 200, 150, 100, 50), data_hash="x:y")]
    outline = Outline(page_of(folders, tmp_path))
    assert {"histogram-0", "histogram-1"} <= {attrs.get("id") for attrs in outline.all("div")}
    assert "ce (milder)" in outline.text


def test_thousands_of_classes_stay_light_and_quick(make_run, tmp_path):
    counts = [max(2, 1000 - j) for j in range(3000)]
    folders = [make_run(name, recipe=name, counts=counts, per_class_test=3) for name in ("ce", "gcl")]
    begun = time.perf_counter()
    text = page_of(folders, tmp_path)
    assert time.perf_counter() - begun < 30
    assert len(text.encode()) < 8_000_000
    assert "the 500 hardest of 3,000" in text


def test_an_unwritable_page_is_named_and_leaves_nothing_behind(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LongtailError, match="be written"):
        write_report([make_run("ce")], tmp_path / "file" / "report.html")
    assert not list(tmp_path.glob(".*"))


def test_a_hardly_tested_class_is_marked_in_words_wherever_it_is_listed(make_run: Callable[..., Path]) -> None:
    small, enough = make_run("small", per_class_test=4), make_run("enough", per_class_test=5)
    page, notes = render_report(compare_runs([small])), compare_runs([small]).notes
    assert "class 5 *" in page
    assert "No class" in page  # and so none is called hard
    assert any("fewer than 5" in note for note in notes)
    page = render_report(compare_runs([enough]))
    assert "class 5 *" not in page
    assert not any("fewer than 5" in note for note in compare_runs([enough]).notes)
