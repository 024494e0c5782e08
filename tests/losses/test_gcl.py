"""GCL, its angular form and the feature form: noise, margins and where the cloud falls."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from longtail.losses import AngularGCLLoss, FeatureNoiseLoss, GCLLoss

COUNTS = [500, 50, 5]


def frozen(loss: Any, noise: torch.Tensor) -> Any:
    loss.sample_noise = lambda _: noise
    return loss


@pytest.mark.parametrize("make", [GCLLoss, AngularGCLLoss])
def test_noise_is_a_clamped_gaussian(make: Any) -> None:
    torch.manual_seed(0)
    noise = make(COUNTS).sample_noise(torch.empty(200_000, 3))
    assert noise.shape == (200_000, 3)
    assert noise.abs().max() == 1.0
    assert noise.mean().abs() < 1e-2
    assert noise.std().item() == pytest.approx(1 / 3, rel=0.01)


def test_euclidean_cloud_by_hand() -> None:
    noise = torch.tensor([[0.9, -0.4, 0.5]])
    cosine, target = torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([2])
    one_sided = torch.tensor([[0.1, 0.2 - 0.5 * 0.4 * 0.5, 0.3 - 0.5 * 0.5 - 0.1]])
    signed = torch.tensor([[0.1, 0.2 + 0.5 * 0.4 * 0.5, 0.3 - 0.5 * 0.5 - 0.1]])
    for is_signed, changed in ((False, one_sided), (True, signed)):
        loss = frozen(GCLLoss(COUNTS, margin=0.1, signed=is_signed), noise)
        torch.testing.assert_close(loss(cosine, target), functional.cross_entropy(30 * changed, target))


def test_feature_noise_moves_each_logit_by_its_own_share_of_one_vector() -> None:
    classifier = nn.Linear(4, 3)
    loss = FeatureNoiseLoss(COUNTS, strength=0.3)
    loss.attach_classifier(classifier)
    noise, features, target = torch.randn(2, 4), torch.randn(2, 4), torch.tensor([0, 2])
    frozen(loss, noise)
    logits = classifier(features)
    deficit = torch.log(torch.tensor([1.0, 10.0, 100.0]))
    expected = functional.cross_entropy(logits - 0.3 * deficit * (noise @ classifier.weight.T).abs(), target)
    torch.testing.assert_close(loss(logits, target, features), expected)


def test_feature_noise_needs_a_classifier_that_fits() -> None:
    loss, features = FeatureNoiseLoss(COUNTS), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="attach_classifier"):
        loss(torch.zeros(2, 3), torch.tensor([0, 1]), features)
    for wrong in (nn.Linear(4, 5), nn.ReLU()):
        with pytest.raises(ValueError, match="shape"):
            loss.attach_classifier(wrong)
    loss.attach_classifier(nn.Linear(5, 3))
    with pytest.raises(ValueError, match="5 inputs"):
        loss(torch.zeros(2, 3), torch.tensor([0, 1]), features)


def test_the_classifier_is_not_part_of_the_loss() -> None:
    loss = FeatureNoiseLoss(COUNTS, classifier=nn.Linear(4, 3))
    assert list(loss.parameters()) == []
    assert not any("classifier" in key for key in loss.state_dict())


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch's compiler for the CPU needs a C++ compiler")
def test_inductor_gives_the_same_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contracts compile every loss up to code generation; this one, with all there is to generate, goes on."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    loss = frozen(AngularGCLLoss(COUNTS, margin=0.1, focal_gamma=1.0), torch.rand(4, 3))
    cosine, target = torch.rand(4, 3) * 2 - 1, torch.tensor([0, 1, 2, 2])
    torch.testing.assert_close(torch.compile(loss)(cosine, target), loss(cosine, target))
