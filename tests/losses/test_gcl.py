"""GCL, its angular form and the feature form: noise, margins and where the cloud falls."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from longtail.losses import AngularGCLLoss, FeatureNoiseLoss, GCLLoss, agcl
from longtail.losses.agcl import add_angle

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


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.5, -0.7])
def test_add_angle_is_the_cosine_of_the_sum(angle: float) -> None:
    theta = torch.linspace(0.01, math.pi - 0.01, 50, dtype=torch.float64)
    turned = add_angle(theta.cos()[None], torch.full((1, 50), angle, dtype=torch.float64))[0]
    beyond = theta + angle > math.pi
    expected = torch.where(beyond, theta.cos() - math.sin(angle), (theta + angle).cos())
    torch.testing.assert_close(turned, expected)
    easy = add_angle(theta.cos()[None], torch.full((1, 50), angle, dtype=torch.float64), easy_margin=True)[0]
    torch.testing.assert_close(easy, torch.where(theta < math.pi / 2, (theta + angle).cos(), theta.cos()))


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000001, 0.0])
@pytest.mark.parametrize("easy", [True, False])
def test_add_angle_has_a_finite_slope_at_the_ends(cosine: float, easy: bool) -> None:
    values = torch.tensor([[cosine]], requires_grad=True)
    add_angle(values, torch.tensor([[0.3]]), easy_margin=easy).backward()
    assert values.grad is not None
    assert values.grad.isfinite().item()


@pytest.mark.parametrize("easy", [True, False])
def test_add_angle_works_in_blocks_of_rows(easy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    angle, outputs = torch.rand(7, 5) * 2, []
    for cached in (1 << 16, 10):  # all rows at once, and two at a time with one left over
        monkeypatch.setattr(agcl, "CACHED", cached)
        cosine = torch.linspace(-1, 1, 35).view(7, 5).requires_grad_()
        turned = agcl.add_angle(cosine, angle, easy_margin=easy)
        turned.sum().backward()
        outputs.append((turned.detach(), cosine.grad))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    (slope,) = torch.autograd.grad(agcl.add_angle(cosine, angle).square().sum(), cosine, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):  # no second slope, rather than a wrong one
        slope.sum().backward()


def test_angular_margin_turns_the_label_only() -> None:
    loss = frozen(AngularGCLLoss([7, 7], margin=0.2), torch.ones(1, 2))
    cosine = torch.tensor([[0.5, 0.5]])
    expected = functional.cross_entropy(torch.tensor([[30 * math.cos(math.pi / 3 + 0.2), 15.0]]), torch.tensor([0]))
    torch.testing.assert_close(loss(cosine, torch.tensor([0])), expected)


@pytest.mark.parametrize("options", [{"noise": 1.5}, {"noise": -0.1}, {"margin": 2.0}, {"focal_gamma": -1.0}])
def test_angular_options_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AngularGCLLoss(COUNTS, **options)


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
