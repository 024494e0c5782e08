"""Ratios of raising to lowering gradient on sums with known answers."""

from __future__ import annotations

import numpy as np

from longtail.analysis.gradients import gradient_balance, gradient_ratio


def test_a_class_without_lowering_gradient_has_no_ratio() -> None:
    np.testing.assert_array_equal(gradient_ratio([0.0, 2.0, 3.0], [0.0, 0.0, 6.0]), [np.nan, np.nan, 0.5])


def test_groups_add_up_before_they_are_divided() -> None:
    """The mean of the ratios 1 and 0.25 would be 0.625; that of the sums is 5 / 8."""
    positive, negative = np.array([[4.0, 1.0, 2.0]]), np.array([[4.0, 4.0, 4.0]])
    found = gradient_balance(positive, negative, np.full((1, 3), 9), ["many", "many", "few"])
    np.testing.assert_array_equal(found.classes, [[1.0, 0.25, 0.5]])
    np.testing.assert_array_equal(found.groups, [[0.625, np.nan, 0.5]])


def test_the_whole_is_that_of_all_epochs_together() -> None:
    positive, negative = np.array([[1.0, 1.0], [9.0, 3.0]]), np.array([[2.0, 4.0], [8.0, 4.0]])
    found = gradient_balance(positive, negative, np.full((2, 2), 5), ["many", "few"])
    np.testing.assert_array_equal(found.groups[:, 0], [0.5, 1.125])
    np.testing.assert_array_equal(found.whole, [1.0, np.nan, 0.5])


def test_an_absent_class_is_nan_and_no_part_of_its_group() -> None:
    """Its logit is only ever lowered, which would make its group look drowned."""
    positive, negative = np.array([[3.0, 0.0]]), np.array([[3.0, 7.0]])
    found = gradient_balance(positive, negative, np.array([[5, 0]]), ["few", "few"])
    np.testing.assert_array_equal(found.classes, [[1.0, np.nan]])
    np.testing.assert_array_equal(found.groups, [[np.nan, np.nan, 1.0]])
