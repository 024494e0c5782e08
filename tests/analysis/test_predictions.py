"""Margins, calibration, coverage and accuracy under other priors, from the predictions of a split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from longtail.analysis.predictions import (
    EXPONENTS,
    FLOOR,
    LEAST,
    accuracy_at_coverage,
    effective_images,
    group_margins,
    margin_distribution,
    margins_of_predictions,
    prior_shift,
    reliability,
    shared_edges,
    shifted_prior,
)
from longtail.counts import ClassCounts
from longtail.evaluation.metrics import bin_confidences, class_weights, expected_calibration_error


def margins_from(scores, label):
    probabilities = softmax(scores, axis=1)
    ranked = -np.sort(-probabilities, axis=1)
    prediction = probabilities.argmax(axis=1)
    true = probabilities[np.arange(len(label)), label]
    return margins_of_predictions(label, prediction, ranked[:, 0], ranked[:, 1], true)


def test_the_margin_of_probabilities_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    scores, label = 3 * rng.normal(size=(200, 7)), rng.integers(7, size=200)
    true = scores[np.arange(200), label]
    rest = np.where(np.arange(7) == label[:, None], -np.inf, scores).max(axis=1)
    np.testing.assert_allclose(margins_from(scores, label), true - rest, rtol=1e-6)


def test_a_perfect_and_a_wrong_certainty_have_finite_margins():
    result = margins_of_predictions(np.array([0, 1]), np.array([0, 0]), [1.0, 1.0], [0.0, 0.0], [1.0, 0.0])
    assert result.tolist() == [pytest.approx(-np.log(FLOOR)), pytest.approx(np.log(FLOOR))]


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
    result = margin_distribution([-5.0, -1.0, 0.5, 3.0], edges)
    assert (result.density * np.diff(edges)).tolist() == [0.25, 0.25, 0.25]
    assert result.negative == 0.5


def test_groups_are_told_apart_and_an_empty_one_is_unknown():
    label = np.array([0, 0, 2])
    result = group_margins(np.array([1.0, 3.0, -4.0]), label, ["many", "medium", "few"], shared_edges([[-4.0, 3.0]]))
    assert result["many"].median == 2.0
    assert result["few"].negative == 1.0
    assert result["few"].images == 1
    assert result["medium"].images == 0
    assert np.isnan(result["medium"].median)
    assert np.isnan(result["medium"].negative)
    assert np.isnan(result["medium"].density).all()


def sample(images, over=0.0, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(2.5, 1.5, images)
    return confidence, rng.random(images) < np.clip(confidence - over, 0, 1)


def test_the_error_is_that_of_the_evaluation():
    confidence, right = sample(500, 0.1)
    bins = bin_confidences(torch.as_tensor(confidence), torch.as_tensor(right))
    result = reliability(confidence, right, draws=0)
    assert result.ece == pytest.approx(expected_calibration_error(bins).item())
    assert result.count.tolist() == bins[0].tolist()
    assert result.interval is None


def test_a_perfect_and_a_constant_predictor():
    perfect = reliability(np.ones(50), np.ones(50, dtype=bool))
    assert (perfect.ece, perfect.interval) == (0.0, (0.0, 0.0))
    wrong = reliability(np.ones(50), np.zeros(50, dtype=bool))
    assert (wrong.ece, wrong.interval) == (1.0, (1.0, 1.0))
    assert wrong.accuracy[-1] == 0.0
    assert np.isnan(wrong.accuracy[:-1]).all()


def test_no_image_is_unknown_and_one_image_has_no_interval():
    nothing = reliability([], [])
    assert np.isnan(nothing.ece)
    assert nothing.interval is None
    assert np.isnan(nothing.accuracy).all()
    single = reliability([0.8], [True])
    assert single.ece == pytest.approx(0.2)
    assert single.interval is None


@pytest.mark.parametrize("over", [0.0, 0.1])
def test_the_interval_holds_the_true_error(over):
    true = reliability(*sample(200_000, over, seed=99), draws=0).ece
    result = [reliability(*sample(300, over, seed), draws=100).interval for seed in range(25)]
    assert sum(low <= true <= high for low, high in result) >= 20


def test_the_interval_holds_the_measured_error_and_narrows_with_images():
    few, many = (reliability(*sample(images, 0.1), draws=100) for images in (60, 3000))
    for result in (few, many):
        assert 0 <= result.interval[0] <= result.ece <= result.interval[1] <= 1
    assert many.interval[1] - many.interval[0] < 0.4 * (few.interval[1] - few.interval[0])


def test_images_of_one_unit_are_drawn_together():
    confidence, right = sample(60, 0.2)
    frames = [np.repeat(values, 20) for values in (confidence, right)]
    apart = reliability(*frames)
    together = reliability(*frames, unit=np.repeat(np.arange(60), 20))
    alone = reliability(confidence, right)
    assert together.ece == pytest.approx(alone.ece)
    assert np.ptp(together.interval) == pytest.approx(np.ptp(alone.interval), rel=0.25)
    assert np.ptp(apart.interval) < 0.5 * np.ptp(together.interval)


def test_too_few_units_have_no_interval_however_many_images():
    confidence, right = sample(1000)
    assert reliability(confidence, right, unit=np.arange(1000) % (LEAST - 1)).interval is None
    assert reliability(confidence, right, unit=np.arange(1000) % LEAST, draws=20).interval is not None


def test_the_same_seed_gives_the_same_interval():
    assert reliability(*sample(100), seed=3).interval == reliability(*sample(100), seed=3).interval


def test_coverage_is_read_between_ties_by_their_share_of_right_ones():
    confidence, right = [0.9, 0.5, 0.5, 0.5, 0.5], [True, True, False, False, False]
    result = accuracy_at_coverage(confidence, right, np.array([0.2, 0.6, 1.0]))
    assert result.tolist() == pytest.approx([1.0, 0.5, 0.4])


def test_coverage_agrees_with_counting_the_surest_images():
    confidence, right = sample(200, 0.1)
    order = np.argsort(-confidence)
    grid = np.array([0.1, 0.5, 1.0])
    expected = [right[order[: round(share * 200)]].mean() for share in grid]
    assert accuracy_at_coverage(confidence, right, grid).tolist() == pytest.approx(expected)


def test_a_single_image_is_covered_at_every_coverage():
    assert accuracy_at_coverage([0.7], [True], np.array([0.02, 1.0])).tolist() == [1.0, 1.0]


def test_weights_make_every_class_count_the_same_where_all_images_are_answered():
    confidence, right, weight = [0.9, 0.8, 0.7, 0.6], [True, True, True, False], [1 / 3, 1 / 3, 1 / 3, 1]
    assert accuracy_at_coverage(confidence, right, np.array([0.5, 1.0]), weight).tolist() == pytest.approx([1.0, 0.5])


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


def test_untested_classes_are_left_out_and_the_rest_renormalized():
    result = prior_shift([0.8, np.nan, 0.2], [10, 0, 10], COUNTS, np.array([0.0, 1.0]))
    assert result.accuracy.tolist() == pytest.approx([0.5, (0.8 * 400 + 0.2 * 4) / 404])


def test_nothing_tested_is_unknown():
    result = prior_shift([np.nan] * 3, [0, 0, 0], COUNTS)
    assert np.isnan(result.accuracy).all()
    assert np.isnan(result.error).all()


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
    result = prior_shift([0.5, 0.5, 1.0], [100, 100, 1], COUNTS)
    assert result.error[-1] > 0.2
    assert result.error[0] < 0.06


def test_a_curve_is_read_at_the_nearest_exponent():
    result = prior_shift([1, 0, 0], [1, 1, 1], COUNTS)
    assert result.at(0.01) == pytest.approx(1 / 3)


def test_the_effective_images_of_a_mean_over_classes() -> None:
    label = np.repeat([0, 1, 2], [25, 25, 1000])
    whole = effective_images(np.ones(len(label)), np.array([0.5, 1.0]), class_weights(label))
    assert whole[1] == pytest.approx(9 / (1 / 25 + 1 / 25 + 1 / 1000))
    assert whole[0] < whole[1]


def test_the_error_under_a_prior_is_that_of_the_effective_images() -> None:
    frames, films = np.array([400, 400]), np.array([20, 20])
    plain, grouped = (prior_shift([0.9, 0.1], images, ClassCounts([90, 10])) for images in (frames, films))
    clustered = prior_shift([0.9, 0.1], frames, ClassCounts([90, 10]), effective=films)
    np.testing.assert_array_equal(clustered.error, grouped.error)
    assert (clustered.error > plain.error).all()
