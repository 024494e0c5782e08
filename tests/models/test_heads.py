"""The heads: cosines that stay cosines, whatever the precision, and heads by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longtail.errors import LongtailError
from longtail.models import CosineHead, LinearHead, ScaledHead, build_head
from longtail.models.heads import classify, folded, linear_map


def test_cosine_head_agrees_with_torch() -> None:
    head = CosineHead(8, 5)
    features = torch.randn(7, 8)
    expected = F.cosine_similarity(features[:, None], head.weight[None], dim=-1)
    torch.testing.assert_close(head(features), expected)


def test_cosine_weights_start_as_unit_vectors() -> None:
    norms = CosineHead(16, 40).weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(40))


def test_cosine_never_leaves_the_unit_interval() -> None:
    torch.manual_seed(0)
    head = CosineHead(64, 500)
    same = head(head.weight.detach() * 3.7)
    assert same.abs().max() <= 1
    torch.testing.assert_close(same.diagonal(), torch.ones(500))
    assert head(-head.weight.detach()).min() >= -1


def test_cosine_ignores_the_length_of_feature_and_weight() -> None:
    head = CosineHead(4, 3)
    features = torch.randn(2, 4)
    before = head(features)
    with torch.no_grad():
        head.weight *= torch.tensor([[0.1], [1.0], [50.0]])
    torch.testing.assert_close(head(features * 1000), before)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20])
def test_zero_and_tiny_features_have_ordinary_gradients(scale: float) -> None:
    head = CosineHead(4, 3)
    features = (torch.ones(2, 4) * scale).requires_grad_()
    cosine = head(features)
    cosine.sum().backward()
    assert cosine.isfinite().all()
    assert features.grad is not None
    assert features.grad.abs().max() < 10  # dividing by a tiny floor would give 1e12 and more
    assert head.weight.grad is not None
    assert head.weight.grad.isfinite().all()


def test_zero_class_weight_is_finite() -> None:
    head = CosineHead(4, 3)
    torch.nn.init.zeros_(head.weight)
    head(torch.randn(2, 4)).sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosine_is_float32_under_half_precision(dtype: torch.dtype) -> None:
    head = CosineHead(32, 10)
    features = torch.randn(6, 32)
    exact = head(features.to(dtype).float())
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype=dtype):
            under_autocast = head(features.to(dtype))
        assert under_autocast.dtype == torch.float32
        torch.testing.assert_close(under_autocast, exact)
    whole = CosineHead(32, 10).to(dtype)
    assert whole(features.to(dtype)).dtype == torch.float32


def test_cosine_keeps_double_precision() -> None:
    head = CosineHead(5, 3).double()
    features = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert head(features).dtype == torch.float64
    assert torch.autograd.gradcheck(head, features)


def test_scaled_head_trains_only_its_scales() -> None:
    inner = LinearHead(4, 3)
    head = ScaledHead(inner, 3)
    features = torch.randn(2, 4)
    assert torch.equal(head(features), inner(features))
    with torch.no_grad():
        head.scale_logits.copy_(torch.tensor([1.0, 2.0, 0.0]))
    torch.testing.assert_close(head(features), inner(features) * torch.tensor([1.0, 2.0, 0.0]))
    assert [name for name, value in head.named_parameters() if value.requires_grad] == ["scale_logits"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("linear", LinearHead), ("cosine", CosineHead), ("scaled-linear", ScaledHead), ("scaled-cosine", ScaledHead)],
)
def test_heads_by_name(name: str, kind: type) -> None:
    head = build_head(name, 6, 4)
    assert isinstance(head, kind)
    assert head(torch.zeros(2, 6)).shape == (2, 4)


def test_a_misspelled_head_names_the_nearest() -> None:
    with pytest.raises(LongtailError, match="cosine"):
        build_head("cosin", 6, 4)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_standardized_head_sees_features_without_offset_and_unit(kind: str) -> None:
    torch.manual_seed(0)
    rows, labels = torch.randn(50, 6), torch.arange(50) % 3
    plain, changed = (build_head(f"standardized-{kind}", 6, 3) for _ in range(2))
    plain.start_from(rows, labels)
    changed.start_from(rows * 1000 + 5, labels)
    torch.testing.assert_close(changed.head.weight, plain.head.weight, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(changed(rows * 1000 + 5), plain(rows), atol=1e-3, rtol=1e-3)


def test_folding_keeps_the_logits_of_a_linear_head_and_leaves_a_cosine_head() -> None:
    torch.manual_seed(0)
    rows, labels = 7 + 3 * torch.randn(50, 6), torch.arange(50) % 3
    linear, cosine = (build_head(f"standardized-{kind}", 6, 3) for kind in ("linear", "cosine"))
    for head in (linear, cosine):
        head.start_from(rows, labels)
        nn.init.normal_(head.head.weight)
        head.offset.normal_()
    assert isinstance(folded(linear), LinearHead)
    torch.testing.assert_close(folded(linear)(rows), linear(rows), atol=1e-5, rtol=1e-5)
    assert folded(cosine) is cosine
    weight, bias = linear_map(linear)
    torch.testing.assert_close(rows @ weight.T + bias, linear(rows), atol=1e-5, rtol=1e-5)


def test_logits_and_features_of_a_head_belong_together() -> None:
    torch.manual_seed(0)
    rows, head = 7 + 3 * torch.randn(50, 6), build_head("standardized-cosine", 6, 3)
    head.start_from(rows, torch.arange(50) % 3)
    logits, features = classify(head, rows)
    torch.testing.assert_close(logits, head(rows))
    torch.testing.assert_close(F.cosine_similarity(features[:, None], linear_map(head)[0][None], dim=-1), logits)


def test_a_cosine_head_starts_at_the_mean_direction_and_keeps_that_of_an_empty_class() -> None:
    head = CosineHead(2, 3)
    before = head.weight[2].clone()
    head.start_from(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(head.weight, torch.stack([torch.eye(2)[0], torch.eye(2)[1], before]))
