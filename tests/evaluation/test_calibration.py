"""Calibration bins: where the edges are, that they add up, and the error against torchmetrics."""

from __future__ import annotations

import pytest
import torch

from longtail.evaluation.summary import bin_confidences, expected_calibration_error
from longtail.models.timm import prepare_torchvision

prepare_torchvision()
from torchmetrics.functional.classification import multiclass_calibration_error  # noqa: E402


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
