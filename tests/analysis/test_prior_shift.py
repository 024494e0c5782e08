"""Accuracy under other test priors: known mixes, importance weights, untested classes, the standard error."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.analysis.prior_shift import EXPONENTS, prior_shift, shifted_prior
from longtail.counts import ClassCounts

COUNTS = ClassCounts([400, 40, 4])


def test_the_family_runs_from_the_training_prior_over_uniform_to_the_inverse():
    np.testing.assert_allclose(shifted_prior(COUNTS, 1), COUNTS.prior)
    np.testing.assert_allclose(shifted_prior(COUNTS, 0), [1 / 3] * 3)
    np.testing.assert_allclose(shifted_prior(COUNTS, -1), COUNTS.prior[::-1])


def test_a_perfect_predictor_does_not_care_and_a_constant_one_follows_the_prior():
    assert prior_shift([1, 1, 1], [9, 9, 9], COUNTS).accuracy == pytest.approx(1)
    constant = prior_shift([1, 0, 0], [9, 9, 9], COUNTS)
    np.testing.assert_allclose(constant.accuracy, [shifted_prior(COUNTS, t)[0] for t in EXPONENTS])
    assert (np.diff(constant.accuracy) < 0).all()


def test_it_is_importance_weighting_of_the_test_images():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), [50, 30, 20])
    right = rng.random(100) < np.array([0.9, 0.5, 0.2])[label]
    images = np.bincount(label)
    recall = np.bincount(label, weights=right) / images
    weight = (shifted_prior(COUNTS, -0.5) / (images / images.sum()))[label]
    expected = (weight * right).sum() / weight.sum()
    assert prior_shift(recall, images, COUNTS, np.array([-0.5])).accuracy[0] == pytest.approx(expected)


def test_untested_classes_are_left_out_and_the_rest_renormalised():
    found = prior_shift([0.8, np.nan, 0.2], [10, 0, 10], COUNTS, np.array([0.0, 1.0]))
    assert found.accuracy.tolist() == pytest.approx([0.5, (0.8 * 400 + 0.2 * 4) / 404])


def test_nothing_tested_is_unknown():
    found = prior_shift([np.nan] * 3, [0, 0, 0], COUNTS)
    assert np.isnan(found.accuracy).all()
    assert np.isnan(found.error).all()


def test_a_class_without_training_images_counts_as_one_image():
    np.testing.assert_allclose(shifted_prior(ClassCounts([3, 0]), -1), [0.25, 0.75])


def test_equal_classes_give_a_flat_line():
    assert np.ptp(prior_shift([0.9, 0.1], [5, 5], ClassCounts([7, 7])).accuracy) < 1e-12


def test_the_standard_error_is_that_of_repeated_tests():
    rng = np.random.default_rng(1)
    rate, images = np.array([0.9, 0.6, 0.3]), np.array([200, 100, 50])
    drawn = rng.binomial(images, rate, size=(4000, 3)) / images
    for exponent in (1.0, 0.0, -1.0):
        spread = (drawn @ shifted_prior(COUNTS, exponent)).std()
        assert prior_shift(rate, images, COUNTS, np.array([exponent])).error[0] == pytest.approx(spread, rel=0.06)


def test_the_error_is_large_where_the_prior_rests_on_one_image():
    found = prior_shift([0.5, 0.5, 1.0], [100, 100, 1], COUNTS)
    assert found.error[-1] > 0.2
    assert found.error[0] < 0.06


def test_a_curve_is_read_at_the_nearest_exponent():
    found = prior_shift([1, 0, 0], [1, 1, 1], COUNTS)
    assert found.at(0.01) == pytest.approx(1 / 3)
