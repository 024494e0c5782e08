"""KPS: mirrored ranks, margins, and gradient adjustment."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from longtail.losses import KPSLoss
from longtail.losses.kps import kps_scales


def test_scales_span_one_to_the_log_of_the_ratio() -> None:
    scales, mirrored = kps_scales([5, 500, 50])
    top = 1 + math.log(100) / math.log(50)
    middle = 1 + math.log(10) / math.log(50)
    assert scales.tolist() == pytest.approx([1.0, top, middle])
    assert mirrored.tolist() == pytest.approx([top, 1.0, middle])


def test_ties_share_the_mean_and_zero_counts_as_one() -> None:
    scales, mirrored = kps_scales([0, 1, 50, 2500])
    assert scales.tolist() == pytest.approx([1, 1, 2, 3])
    assert mirrored.tolist() == pytest.approx([2.5, 2.5, 1, 1])


def test_largest_margin_is_on_the_smallest_class() -> None:
    loss = KPSLoss([5, 500, 50], max_margin=0.3)
    assert loss._margins.argmax() == 0
    assert loss._margins.max().item() == pytest.approx(0.3)


def test_adjusted_scale_by_hand() -> None:
    loss = KPSLoss([500, 50, 5])
    cosine, target = torch.tensor([[0.2, -0.1, 0.3]], dtype=torch.float64), torch.tensor([2])
    scales, mirrored = (torch.from_numpy(values) for values in kps_scales([500, 50, 5]))
    changed = scales * cosine
    changed[0, 2] -= 0.2
    for progress, scale in ((0.59, 15.0), (0.6, 15 * float(mirrored[2])), (1.0, 15 * float(mirrored[2]))):
        loss.progress = progress
        expected = functional.cross_entropy(scale * changed, target)
        torch.testing.assert_close(loss(cosine, target), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("scale", "top"), [(15.0, 32.658), (30.0, 50.0), (64.0, 64.0)])
def test_adjusted_scale_is_clamped(scale: float, top: float) -> None:
    adjusted = KPSLoss([500, 50, 5], scale=scale)._adjusted
    assert adjusted.min().item() == pytest.approx(scale)
    assert adjusted.max().item() == pytest.approx(top, rel=1e-4)


def test_adjustment_can_be_switched_off_or_moved() -> None:
    cosine, target = torch.tensor([[0.6, 0.1, 0.4]]), torch.tensor([2])
    never, early = (KPSLoss([500, 50, 5], adjust_gradients_from=start) for start in (None, 0.1))
    plain = never(cosine, target)
    never.progress = early.progress = 0.1
    assert never(cosine, target) == plain
    assert early(cosine, target) > plain


def test_a_saturated_tail_sample_keeps_more_gradient_once_adjusted() -> None:
    loss = KPSLoss([500, 50, 5])
    cosine = torch.tensor([[0.31, 0.1, 0.9]], requires_grad=True)
    before = torch.autograd.grad(loss(cosine, torch.tensor([2])), cosine)[0]
    loss.progress = 1.0
    after = torch.autograd.grad(loss(cosine, torch.tensor([2])), cosine)[0]
    assert after[0, 2].abs() > before[0, 2].abs()


def test_compiles_with_probabilities_though_pairs_break_the_graph() -> None:
    loss = KPSLoss([500, 50, 5])
    loss.progress = 1.0
    cosine = torch.tensor([[0.3, 0.1, 0.9], [0.2, -0.5, 0.1]])
    target = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.0, 1.0]])
    compiled = torch.compile(loss, backend="aot_eager")
    torch.testing.assert_close(compiled(cosine, target), loss(cosine, target))


@pytest.mark.parametrize("options", [{"adjust_gradients_from": 1.5}, {"max_margin": 3.0}, {"scale": -2.0}])
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        KPSLoss([5, 3], **options)
