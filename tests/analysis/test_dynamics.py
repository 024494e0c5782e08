"""Gradients and saturation by class and shot group, from what training records."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.analysis.dynamics import (
    BINS,
    EDGES,
    THRESHOLDS,
    gradient_balance,
    gradient_ratio,
    group_image_means,
    group_sums,
    histogram_quantiles,
    share_past,
)


def test_a_class_without_lowering_gradient_has_no_ratio() -> None:
    np.testing.assert_array_equal(gradient_ratio([0.0, 2.0, 3.0], [0.0, 0.0, 6.0]), [np.nan, np.nan, 0.5])


def test_groups_add_up_before_they_are_divided() -> None:
    """The mean of the ratios 1 and 0.25 would be 0.625; that of the sums is 5 / 8."""
    positive, negative = np.array([[4.0, 1.0, 2.0]]), np.array([[4.0, 4.0, 4.0]])
    measured = gradient_balance(positive, negative, np.full((1, 3), 9), ["many", "many", "few"])
    np.testing.assert_array_equal(measured.classes, [[1.0, 0.25, 0.5]])
    np.testing.assert_array_equal(measured.groups, [[0.625, np.nan, 0.5]])


def test_the_whole_is_that_of_all_epochs_together() -> None:
    positive, negative = np.array([[1.0, 1.0], [9.0, 3.0]]), np.array([[2.0, 4.0], [8.0, 4.0]])
    measured = gradient_balance(positive, negative, np.full((2, 2), 5), ["many", "few"])
    np.testing.assert_array_equal(measured.groups[:, 0], [0.5, 1.125])
    np.testing.assert_array_equal(measured.whole, [1.0, np.nan, 0.5])


def test_an_absent_class_is_nan_and_no_part_of_its_group() -> None:
    """Its logit is only ever lowered, which would make its group look drowned."""
    positive, negative = np.array([[3.0, 0.0]]), np.array([[3.0, 7.0]])
    measured = gradient_balance(positive, negative, np.array([[5, 0]]), ["few", "few"])
    np.testing.assert_array_equal(measured.classes, [[1.0, np.nan]])
    np.testing.assert_array_equal(measured.groups, [[np.nan, np.nan, 1.0]])


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
    with pytest.raises(ValueError, match="edge"):
        share_past(counts, 0.91)


def test_quantiles_are_within_a_bin_of_the_true_ones() -> None:
    values = np.random.default_rng(0).beta(2, 2, 5000)
    measured = histogram_quantiles(histogram(values.tolist()), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(measured, np.quantile(values, [0.1, 0.5, 0.9]), atol=0.01)


def test_quantiles_of_one_bin_stay_in_it_and_skip_empty_ones() -> None:
    sure = histogram_quantiles(histogram([0.9999] * 4 + [1.0]), [0.0, 0.5, 1.0])
    assert 0.9999 <= sure.min() <= sure.max() <= 1.0
    apart = histogram_quantiles(histogram([0.02] * 10 + [0.97] * 10), [0.25, 0.75])
    assert 0.01 <= apart[0] <= 0.05
    assert 0.95 <= apart[1] <= 0.98


def test_groups_without_classes_or_images_are_empty_not_zero() -> None:
    counts = np.stack([histogram([0.5, 0.6]), histogram([]), histogram([0.999])])[None]
    groups = group_sums(counts, ["many", "few", "few"])
    assert groups.shape == (1, 3, BINS)
    np.testing.assert_array_equal(groups.sum(axis=2), [[2, 0, 1]])
    np.testing.assert_array_equal(share_past(groups, 0.9), [[0.0, np.nan, 1.0]])
    assert np.isnan(histogram_quantiles(groups, [0.1, 0.9])[0, 1]).all()


def test_means_weigh_by_images() -> None:
    images = np.array([[3, 1, 0], [0, 0, 0]])
    values = np.array([[0.2, 0.6, np.nan], [np.nan] * 3])
    measured = group_image_means(values, images, ["many", "many", "few"])
    np.testing.assert_allclose(measured, [[0.3, np.nan, np.nan], [np.nan] * 3])
