"""AngularGCLLoss: angles added to cosines by hand, at the ends of their range, and in blocks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from longtail.losses import AngularGCLLoss, agcl
from longtail.losses.agcl import add_angle

COUNTS = [500, 50, 5]


def frozen(loss: Any, noise: torch.Tensor) -> Any:
    loss.sample_noise = lambda _: noise
    return loss


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
