"""Histograms of p_y: groups, shares and quantiles of images whose probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.analysis.saturation import (
    BINS,
    EDGES,
    THRESHOLDS,
    group_histograms,
    group_means,
    histogram_quantiles,
    share_past,
)


def histogram(values: list[float]) -> np.ndarray:
    return np.histogram(values, EDGES)[0]


def test_the_edges_are_fit_for_the_thresholds() -> None:
    assert np.all(np.diff(EDGES) > 0)
    assert (EDGES[0], EDGES[-1], len(EDGES)) == (0.0, 1.0, BINS + 1)
    assert set(THRESHOLDS) <= set(EDGES)


def test_shares_past_the_thresholds() -> None:
    counts = histogram([0.5, 0.89, 0.9, 0.95, 0.9899, 0.99, 0.9995, 1.0])
    assert [share_past(counts, threshold) for threshold in THRESHOLDS] == [6 / 8, 3 / 8, 2 / 8]
    assert np.isnan(share_past(np.zeros(BINS, int), 0.9))
    with pytest.raises(ValueError, match="is no edge"):
        share_past(counts, 0.91)


def test_quantiles_are_within_a_bin_of_the_true_ones() -> None:
    values = np.random.default_rng(0).beta(2, 2, 5000)
    found = histogram_quantiles(histogram(values.tolist()), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(found, np.quantile(values, [0.1, 0.5, 0.9]), atol=0.01)


def test_quantiles_of_one_bin_stay_in_it_and_skip_empty_ones() -> None:
    one = histogram_quantiles(histogram([0.9999] * 4 + [1.0]), [0.0, 0.5, 1.0])
    assert 0.9999 <= one.min() <= one.max() <= 1.0
    two = histogram_quantiles(histogram([0.02] * 10 + [0.97] * 10), [0.25, 0.75])
    assert 0.01 <= two[0] <= 0.05
    assert 0.95 <= two[1] <= 0.98


def test_groups_without_classes_or_images_are_empty_not_zero() -> None:
    counts = np.stack([histogram([0.5, 0.6]), histogram([]), histogram([0.999])])[None]
    groups = group_histograms(counts, ["many", "few", "few"])
    assert groups.shape == (1, 3, BINS)
    np.testing.assert_array_equal(groups.sum(axis=2), [[2, 0, 1]])
    np.testing.assert_array_equal(share_past(groups, 0.9), [[0.0, np.nan, 1.0]])
    assert np.isnan(histogram_quantiles(groups)[0, 1]).all()


def test_means_weigh_by_images() -> None:
    images = np.array([[3, 1, 0], [0, 0, 0]])
    values = np.array([[0.2, 0.6, np.nan], [np.nan] * 3])
    found = group_means(values, images, ["many", "many", "few"])
    np.testing.assert_allclose(found, [[0.3, np.nan, np.nan], [np.nan] * 3])
