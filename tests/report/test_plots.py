"""The figures show the numbers they are given, at any size, in colors that everyone can tell apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from longtail.counts import ClassCounts
from longtail.report import plots
from longtail.report.plots import GROUP_COLORS, THEME


def test_accuracy_leaves_untested_classes_out_and_keeps_the_class_index():
    counts = ClassCounts([300, 50, 5])
    figure = plots.class_accuracy(counts, counts.group_of(), np.array([0.9, np.nan, 0.1]))
    points = {
        int(c): (x, y) for trace in figure.data for c, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    assert points == {0: (300, 0.9), 2: (5, 0.1)}


def test_accuracy_places_a_class_without_images_on_the_logarithmic_axis():
    counts = ClassCounts([300, 0])
    figure = plots.class_accuracy(counts, counts.group_of(), np.array([0.9, 0.0]))
    assert min(x for trace in figure.data for x in trace.x) > 0
    assert figure.layout.xaxis.ticktext[0] == "0"


def test_the_smoothed_mean_of_a_constant_is_that_constant(cifar_counts):
    counts = ClassCounts(cifar_counts)
    figure = plots.class_accuracy(counts, counts.group_of(), np.full(100, 0.37))
    (trend,) = [trace for trace in figure.data if trace.name == plots.TREND]
    np.testing.assert_allclose(trend.y, 0.37)


def test_the_smoothed_mean_invents_nothing_between_the_steps_of_a_step_profile():
    counts = ClassCounts([500] * 10 + [5] * 10)
    figure = plots.class_accuracy(counts, counts.group_of(), np.repeat([0.8, 0.2], 10))
    (trend,) = [trace for trace in figure.data if trace.name == plots.TREND]
    assert np.isnan(np.asarray(trend.y, dtype=float)).any()


def test_many_classes_are_drawn_by_webgl(cifar_counts):
    counts = ClassCounts(cifar_counts * 30)
    figure = plots.class_accuracy(counts, counts.group_of(), np.full(3000, 0.5))
    assert {trace.type for trace in figure.data if trace.mode == "markers"} == {"scattergl"}


# Machado, Oliveira, Fernandes (2009), severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color):
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_group_colors_are_apart_for_every_kind_of_color_vision(kind, theme):
    seen = [lab(np.array(BLINDNESS[kind]) @ linear(THEME[name][theme])) for name in GROUP_COLORS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_run_colors_are_apart_for_every_kind_of_color_vision(kind, theme):
    seen = [lab(np.array(BLINDNESS[kind]) @ linear(THEME[f"run{index}"][theme])) for index in range(8)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_their_ground(theme):
    def contrast(name):
        light = [0.2126, 0.7152, 0.0722] @ linear(THEME[name][theme])
        ground = [0.2126, 0.7152, 0.0722] @ linear(THEME["ground"][theme])
        return (max(light, ground) + 0.05) / (min(light, ground) + 0.05)

    assert min(contrast(name) for name in ("ink", "muted", "few")) >= 4.5
    assert min(contrast(name) for name in THEME if name.startswith("run") or name in GROUP_COLORS) >= 3


def test_light_colors_are_unique_so_that_figures_can_be_recolored():
    lights = [light for light, _ in THEME.values()]
    assert len(set(lights)) == len(lights)
