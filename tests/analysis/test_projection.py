"""Projections on features whose layout is known, and samples that keep every class."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from longtail.analysis.projection import drawn_sample, project
from longtail.errors import LongtailError


def clusters(each: int, dimensions: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), each)
    return 20 * np.eye(3, dimensions)[labels] + rng.normal(size=(3 * each, dimensions)), labels


def separation(points: np.ndarray, labels: np.ndarray) -> float:
    """Least distance between means of clusters by the mean distance within."""
    means = np.stack([points[labels == c].mean(0) for c in range(3)])
    within = np.linalg.norm(points - means[labels], axis=1).mean()
    return min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2))) / within


def test_pca_keeps_what_lies_in_a_plane() -> None:
    plane = np.random.default_rng(1).normal(size=(40, 2)) @ np.array([[1.0, 0, 2], [0, 1, 0]])
    measured = project(plane)
    assert measured.points.dtype == np.float32
    assert sum(measured.explained or ()) == pytest.approx(1)
    distances = [np.linalg.norm(points[3] - points[5]) for points in (plane, measured.points)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_clusters_stay_apart_and_a_seed_repeats(method: str) -> None:
    features, labels = clusters(25)
    measured = project(features, method, seed=3)
    assert separation(measured.points, labels) > 4
    assert np.array_equal(measured.points, project(features, method, seed=3).points)
    assert (measured.explained is None) == (method == "tsne")


def test_umap_lays_out_or_says_what_it_needs() -> None:
    features, labels = clusters(25)
    if importlib.util.find_spec("umap") is None:
        with pytest.raises(LongtailError, match=r"'longtail\[umap\]'"):
            project(features, "umap")
    else:
        assert separation(project(features, "umap").points, labels) > 2


def test_an_unknown_method_and_too_few_images() -> None:
    with pytest.raises(LongtailError, match="tsne"):
        project(np.ones((9, 3)), "tnse")
    assert np.isnan(project(np.ones((2, 3)), "tsne").points).all()
    assert project(np.ones((5, 3))).explained == (0.0, 0.0)  # all the same: no variance to explain


def test_every_class_is_drawn_and_keeps_what_it_can() -> None:
    labels = np.random.default_rng(2).permutation(np.repeat([0, 1, 2, 4], [500, 30, 5, 1]))
    rows = drawn_sample(labels, 100, seed=1)
    assert np.bincount(labels[rows]).tolist() == [64, 30, 5, 0, 1]
    assert len(set(rows)) == 100
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, drawn_sample(labels, 100, seed=1))
    assert not np.array_equal(rows, drawn_sample(labels, 100, seed=2))


def test_nothing_is_left_out_where_there_is_room_and_classes_where_there_is_none() -> None:
    labels = np.repeat(np.arange(50), 3)
    assert drawn_sample(labels, 150).tolist() == list(range(150))
    few = drawn_sample(labels, 20)
    assert len(few) == len(set(labels[few].tolist())) == 20
    assert drawn_sample(np.zeros(0, np.int64), 5).size == 0
    assert np.bincount(np.repeat([0, 1], [9, 1])[drawn_sample(np.repeat([0, 1], [9, 1]), 5)]).tolist() == [4, 1]
