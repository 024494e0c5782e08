"""Pictures in the page: light, and under captions that can be told apart."""

from __future__ import annotations

import base64

from longtail.compare.comparison import compare_runs
from longtail.report.pictures import data_uri, short_names


def test_large_pictures_are_made_light_and_broken_ones_are_left_out(make_run, two):
    assert data_uri(b"small").startswith("data:image/png")
    assert data_uri(b"x" * 9_000) == "data:,"
    heavy = compare_runs([make_run("big", image_side=96)]).rows[0].runs[0].examples[0].image
    uri = data_uri(heavy)
    assert uri.startswith("data:image/webp")
    assert len(base64.b64decode(uri.split(",")[1])) < len(heavy)


def test_names_that_begin_alike_can_be_told_apart_under_their_pictures():
    names = [f"siphonophora physonect {kind}" for kind in ("young", "adult", "colony")]
    names += ["x" * 20 + middle + "y" * 20 for middle in ("ab", "cd")]
    short = short_names(names, 16)
    assert len(set(short)) == len(names)
    assert all(len(text) <= 16 for text in short[:3])
