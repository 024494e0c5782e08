"""Metrics of the tallies of classes and of calibration bins, against two libraries and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from longtail.device import prepare_torchvision
from longtail.evaluation.metrics import (
    accuracy,
    bin_confidences,
    expected_calibration_error,
    f1_per_class,
    group_mean,
    harmonic_mean,
    precision_per_class,
    recall_per_class,
    tally_classes,
)

prepare_torchvision()
from torchmetrics.functional.classification import multiclass_calibration_error  # noqa: E402

NAN = float("nan")


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 7, 500)
    prediction = np.where(rng.random(500) < 0.6, target, rng.integers(0, 7, 500))
    return target, prediction


def test_agrees_with_scikit_learn(labels: tuple[np.ndarray, np.ndarray]) -> None:
    target, prediction = labels
    tallies = tally_classes(torch.from_numpy(target), torch.from_numpy(prediction), 7)
    precision, recall, f1, _ = precision_recall_fscore_support(target, prediction)
    np.testing.assert_allclose(recall_per_class(tallies), recall, rtol=1e-12)
    np.testing.assert_allclose(precision_per_class(tallies), precision, rtol=1e-12)
    np.testing.assert_allclose(f1_per_class(tallies), f1, rtol=1e-12)
    assert accuracy(tallies).item() == pytest.approx(np.mean(target == prediction), rel=1e-12)
    mean = group_mean(recall_per_class(tallies), range(7))
    assert mean == pytest.approx(balanced_accuracy_score(target, prediction), rel=1e-12)


def test_empty_class_and_class_never_predicted() -> None:
    # Class 1 has no image but one prediction; class 2 has images and no prediction.
    tallies = tally_classes(torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([0, 0, 0, 1, 0, 0]), 3)
    assert tallies.tolist() == [[3, 0, 0], [4, 0, 2], [5, 1, 0]]
    assert recall_per_class(tallies).tolist() == pytest.approx([0.75, NAN, 0.0], nan_ok=True)
    assert precision_per_class(tallies).tolist() == pytest.approx([0.6, 0.0, NAN], nan_ok=True)
    assert f1_per_class(tallies).tolist() == pytest.approx([2 / 3, NAN, 0.0], nan_ok=True)


def test_group_is_the_mean_over_classes_with_images() -> None:
    recall = torch.tensor([0.2, NAN, 0.6], dtype=torch.float64)
    assert group_mean(recall, [0, 1, 2]) == pytest.approx(0.4)
    assert math.isnan(group_mean(recall, [1]))
    assert math.isnan(group_mean(recall, []))


def test_harmonic_mean_is_zero_when_one_class_is_never_right() -> None:
    assert harmonic_mean(torch.tensor([0.9, 0.0, 0.8]).double()).item() == 0.0
    assert harmonic_mean(torch.tensor([0.5, 0.25]).double()).item() == pytest.approx(1 / 3)
    assert math.isnan(harmonic_mean(torch.tensor([NAN, NAN]).double()).item())


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_agrees_with_torchmetrics(num_bins: int) -> None:
    torch.manual_seed(0)
    probabilities, target = torch.randn(400, 5).mul(2).softmax(1), torch.randint(0, 5, (400,))
    confidence, prediction = probabilities.max(1)
    bins = bin_confidences(confidence, prediction == target, num_bins=num_bins)
    expected = multiclass_calibration_error(probabilities, target, num_classes=5, n_bins=num_bins, norm="l1")
    assert expected_calibration_error(bins).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_edge_belongs_to_the_bin_below() -> None:
    confidence = torch.tensor([0.0, 0.25, 0.2500001, 0.5, 1.0], dtype=torch.float64)
    assert bin_confidences(confidence, torch.ones(5), num_bins=4)[0].tolist() == [2, 2, 0, 1]


def test_bins_of_parts_add_up() -> None:
    torch.manual_seed(0)
    confidence, correct = torch.rand(50), torch.rand(50) < 0.5
    parts = bin_confidences(confidence[:13], correct[:13]) + bin_confidences(confidence[13:], correct[13:])
    torch.testing.assert_close(parts, bin_confidences(confidence, correct))


def test_perfectly_calibrated_and_perfectly_wrong() -> None:
    certain = torch.ones(4)
    assert expected_calibration_error(bin_confidences(certain, certain)).item() == 0
    assert expected_calibration_error(bin_confidences(certain, torch.zeros(4))).item() == 1
    assert expected_calibration_error(bin_confidences(torch.empty(0), torch.empty(0))).isnan()
