"""Margins from probabilities, and their distribution by group, on inputs with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from longtail.analysis.margins import (
    FLOOR,
    group_margins,
    margin_distribution,
    margins_of_predictions,
    shared_edges,
)


def margins_from(scores, label):
    probabilities = softmax(scores, axis=1)
    ranked = -np.sort(-probabilities, axis=1)
    prediction = probabilities.argmax(axis=1)
    true = probabilities[np.arange(len(label)), label]
    return margins_of_predictions(label, prediction, ranked[:, 0], ranked[:, 1], true)


def test_the_margin_of_probabilities_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    scores, label = 3 * rng.normal(size=(200, 7)), rng.integers(7, size=200)
    own = scores[np.arange(200), label]
    rest = np.where(np.arange(7) == label[:, None], -np.inf, scores).max(axis=1)
    np.testing.assert_allclose(margins_from(scores, label), own - rest, rtol=1e-6)


def test_a_perfect_and_a_wrong_certainty_have_finite_margins():
    found = margins_of_predictions(np.array([0, 1]), np.array([0, 0]), [1.0, 1.0], [0.0, 0.0], [1.0, 0.0])
    assert found.tolist() == [pytest.approx(-np.log(FLOOR)), pytest.approx(np.log(FLOOR))]


def test_a_constant_prediction_is_right_on_its_own_class_only():
    scores = np.tile([2.0, 0.0, 0.0], (3, 1))
    assert margins_from(scores, np.array([0, 1, 2])).round(6).tolist() == [2.0, -2.0, -2.0]


def test_edges_are_shared_hold_zero_and_reach_over_the_bulk():
    edges = shared_edges([np.linspace(-3, -1, 500), np.linspace(2, 7, 500)], bins=20)
    assert 0.0 in edges
    assert edges[0] == pytest.approx(-3, abs=0.6)
    assert edges[-1] == pytest.approx(7, abs=0.6)
    assert np.ptp(np.diff(edges)) < 1e-9


@pytest.mark.parametrize("margins", [[[]], [[0.0, 0.0]], [[1.5]], [[-1.5]]])
def test_edges_exist_for_hardly_any_margins(margins):
    edges = shared_edges(margins)
    assert len(edges) >= 2
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= 0 <= edges[-1]


def test_one_outlier_does_not_stretch_the_edges():
    assert shared_edges([np.append(np.linspace(-1, 1, 5000), 80.0)])[-1] < 2


def test_a_density_integrates_to_what_lies_within_the_edges():
    edges = np.array([-2.0, 0.0, 1.0, 4.0])
    found = margin_distribution([-5.0, -1.0, 0.5, 3.0], edges)
    assert (found.density * np.diff(edges)).tolist() == [0.25, 0.25, 0.25]
    assert found.negative == 0.5


def test_groups_are_told_apart_and_an_empty_one_is_unknown():
    label = np.array([0, 0, 2])
    found = group_margins(np.array([1.0, 3.0, -4.0]), label, ["many", "medium", "few"], shared_edges([[-4.0, 3.0]]))
    assert found["many"].median == 2.0
    assert found["few"].negative == 1.0
    assert found["few"].images == 1
    assert found["medium"].images == 0
    assert np.isnan(found["medium"].median)
    assert np.isnan(found["medium"].negative)
    assert np.isnan(found["medium"].density).all()
