"""The toy: a page that is whole, with the same axes in every picture, and the files of a paper."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from toy.__main__ import main
from toy.page import toy_drawings, toy_legend, toy_picture, toy_sentences, toy_table
from toy.plane import Plane
from toy.train import ToyResult

from longtail.counts import ClassCounts
from longtail.report.plots import THEME

ANGLE = 2 * np.pi * np.arange(6) / 6
DIRECTIONS = np.stack([np.sin(ANGLE), np.cos(ANGLE)], axis=1)
COUNTS = ClassCounts([90, 40, 20, 9, 4, 2], names=["a", "b", "c", "d", "e", "<f>"])


def even(*, cosine: bool, wrong: int = 0) -> Plane:
    """Every class at its own weight, except the images of the last ``wrong`` classes, which lie at the first."""
    labels = np.repeat(np.arange(6), 4)
    places = np.where(labels >= 6 - wrong, 0, labels)
    return Plane(DIRECTIONS[places], labels, DIRECTIONS, np.zeros(6), cosine)


def result(**planes: tuple[Plane, ...]) -> ToyResult:
    names = {name.replace("_", "-"): made for name, made in planes.items()}
    return ToyResult("digits", COUNTS, names, {name: name.upper() for name in names}, 5)


def test_the_page_of_a_tiny_toy(capsys, tmp_path):
    out = tmp_path / "new" / "toy.html"
    assert main(["--losses", "ce,fbl", "--seeds", "1", "--epochs", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"toy: {out}\n"
    page = (tmp_path / "new" / "toy.html").read_text(encoding="utf-8")
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "://" not in outside
    assert "142, 64, 29, 13, 6 and 2 images" in outside
    assert "one seed" in outside
    figures = re.findall(r'data-figure="toy-(.*?)">(.*?)</script>', page, flags=re.DOTALL)
    assert [name for name, _ in figures] == ["ce", "fbl"]
    ranges = {
        json.dumps(json.loads(text)["layout"][axis]["range"]) for _, text in figures for axis in ("xaxis", "yaxis")
    }
    assert len(ranges) == 1


def test_a_wrong_word_is_said_before_anything_is_trained(capsys, tmp_path):
    assert main(["--losses", "ce,gclx"]) == 1
    assert "'gcl'" in capsys.readouterr().err
    assert main(["--seed", "-1"]) == 1
    assert "--seed " in capsys.readouterr().err
    assert main(["--out", str(tmp_path)]) == 1
    assert "folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sentences_say_no_difference_where_there_is_none():
    same = result(ce=(even(cosine=False),), ce_cosine=(even(cosine=True),), gcl=(even(cosine=True),))
    sentences = toy_sentences(same)
    assert sentences[0].startswith("Area ")
    assert re.search(r"CE-COSINE 0\.0 .*one seed.*; GCL 0\.0 .*one seed", sentences[0])
    assert re.search(r"GCL no .*\(0\.0 points, 95% interval −", sentences[1])  # of accuracy the images give one
    assert all("higher" not in text and "lower" not in text for text in sentences)
    better = result(ce=(even(cosine=False, wrong=2),) * 2, fbl=(even(cosine=False, wrong=1),) * 2)
    assert any(re.search(r"accuracy.*FBL 50\.0 points higher .*images", text) for text in toy_sentences(better))
    assert toy_sentences(result(fbl=(even(cosine=False),) * 2)) == []


def test_the_table_has_the_share_of_the_small_classes():
    row = toy_table(result(ce=(even(cosine=False, wrong=1),)))["ce"]
    assert row["many"].mean == 1.0
    assert row["few"].mean == 0.5
    assert row["area"].mean == pytest.approx(1 / 3, abs=1e-3)


def test_pictures_use_colors_that_the_page_can_exchange_and_escape_names():
    made = result(ce=(even(cosine=False),), gcl=(even(cosine=True),))
    light = {color for color, _ in THEME.values()}
    for drawing in [*toy_drawings(made), toy_picture(made)]:
        assert set(re.findall(r"#[0-9a-f]{6}", drawing.json)) <= light
        assert "<f>" not in drawing.json
        assert "&lt;f" in json.dumps(drawing.figure.to_plotly_json(), default=str)
    keys = toy_legend(made)
    assert len({key.color for key in keys}) == 6
    assert keys[0].text == "a: 90 training images"
    assert "a 16.7%" in toy_drawings(made)[0].alt
