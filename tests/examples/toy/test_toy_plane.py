"""The plane: exact regions against a grid of predictions, and planes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from toy.plane import Plane, group_mean, polygon_area, region_shares, regions, upright

from longtail.counts import ClassCounts

COUNTS = ClassCounts([90, 40, 9, 3])


def plane(*, cosine: bool = False, seed: int = 0, size: int = 4) -> Plane:
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % size
    bias = np.zeros(size) if cosine else rng.normal(size=size)
    return Plane(rng.normal(size=(40, 2)), labels, rng.normal(size=(size, 2)), bias, cosine)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_regions_are_where_their_class_is_predicted(cosine, seed):
    made = plane(cosine=cosine, seed=seed)
    points = np.random.default_rng(9).uniform(-1, 1, (60_000, 2))
    inside = points[np.linalg.norm(points, axis=1) <= 1]
    counted = np.bincount(made.predict(inside), minlength=4) / len(inside)
    np.testing.assert_allclose(region_shares(made), counted, atol=0.01)
    for index, polygon in enumerate(regions(made)):
        if len(polygon):
            assert made.predict(polygon.mean(axis=0, keepdims=True)).tolist() == [index]


def test_directions_alone_decide_for_cosines():
    angle = 2 * np.pi * np.arange(6) / 6
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    long = directions * np.array([9.0, 5, 3, 2, 1, 0.1])[:, None]
    made = Plane(directions, np.arange(6), long, np.zeros(6), is_cosine=True)
    np.testing.assert_allclose(region_shares(made), 1 / 6, atol=1e-3)
    assert made.recalls.tolist() == [1.0] * 6
    linear = Plane(directions, np.arange(6), long, np.zeros(6))
    assert region_shares(linear)[5] == 0 < region_shares(linear)[0]


def test_a_class_that_is_never_predicted_has_no_region():
    made = Plane(np.zeros((1, 2)), np.array([0]), np.zeros((3, 2)), np.array([1.0, 0.0, -1.0]))
    assert [len(polygon) for polygon in regions(made)][1:] == [0, 0]
    assert region_shares(made).tolist() == [1.0, 0.0, 0.0]
    assert polygon_area(np.empty((0, 2))) == 0.0


@pytest.mark.parametrize("cosine", [False, True])
def test_upright_changes_no_decision(cosine):
    made = plane(cosine=cosine, seed=4)
    turned = upright(made, COUNTS)
    assert turned.predict(turned.features).tolist() == made.predict(made.features).tolist()
    assert np.linalg.norm(turned.features, axis=1).max() == pytest.approx(1)
    first, second = turned.means[:2]
    assert first[0] == pytest.approx(0, abs=1e-12)
    assert first[1] > 0 <= second[0]


def test_an_absent_class_is_nan_and_not_zero():
    made = plane()
    seen = made.labels != 3
    fewer = Plane(made.features[seen], made.labels[seen], made.weight, made.bias)
    assert np.isnan(fewer.recalls).tolist() == [False, False, False, True]
    assert np.isnan(fewer.means[3]).all()
    assert group_mean(np.array([1.0, 0.5, np.nan, 0.25]), COUNTS, "many") == 0.75
