"""The arithmetic shared by all losses, checked against the definition in float64."""

from __future__ import annotations

import pytest
import torch

from longtail.losses.expectation import Averaging, ChangedLogits, _log_sum_of_others, expected_loss


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_log_sum_of_others_is_the_definition(classes: int) -> None:
    logits = rand(20, classes) * 5
    others = [torch.cat([logits[:, :c], logits[:, c + 1 :]], 1).logsumexp(1) for c in range(classes)]
    torch.testing.assert_close(_log_sum_of_others(logits), torch.stack(others, 1), rtol=1e-12, atol=1e-12)


def test_log_sum_of_others_keeps_precision_where_one_class_dominates() -> None:
    logits = torch.tensor([[80.0, 1.0, 2.0]])
    expected = torch.tensor([[torch.tensor([1.0, 2.0]).logsumexp(0), 80.0, 80.0]])
    torch.testing.assert_close(_log_sum_of_others(logits), expected)


def test_log_sum_of_others_with_equal_largest_logits() -> None:
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    others = _log_sum_of_others(logits)
    torch.testing.assert_close(others, torch.zeros(1, 2, dtype=torch.float64))
    others.sum().backward()
    torch.testing.assert_close(logits.grad, torch.ones(1, 2, dtype=torch.float64))


def test_expectation_of_a_margin_is_stable_at_extreme_logits() -> None:
    logits = torch.tensor([[1000.0, -1000.0], [0.0, 500.0]], requires_grad=True)
    changed = ChangedLogits(logits, own=logits - 3.0)
    value = expected_loss(changed, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), Averaging(reduction="none"))
    torch.testing.assert_close(value.detach(), torch.tensor([1001.5, 503.0]))
    value.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("detached", [True, False])
def test_focal_form(gamma: float, detached: bool) -> None:
    logits, target = rand(6, 4).requires_grad_(), torch.arange(6) % 4
    how = Averaging(focal_gamma=gamma, focal_detached=detached)
    plain = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    miss = 1 - torch.exp(-plain)
    expected = ((miss.detach() if detached else miss) ** gamma * plain).mean()
    value = expected_loss(ChangedLogits(logits), target, how)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (value, expected)))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_form_is_finite_where_the_loss_is_zero(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    value = expected_loss(ChangedLogits(logits), torch.tensor([0]), Averaging(focal_gamma=gamma, focal_detached=False))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_label_scale_multiplies_all_logits_of_a_sample() -> None:
    logits, scale = rand(4, 3), torch.tensor([1.0, 5.0, 20.0], dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 1])
    expected = torch.nn.functional.cross_entropy(logits * scale[target, None], target)
    torch.testing.assert_close(expected_loss(ChangedLogits(logits, label_scale=scale), target, Averaging()), expected)
