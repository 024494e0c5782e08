"""The arithmetic shared by all losses, checked against the definition in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from longtail.losses.soft_targets import AdjustedLogits, ReductionOptions, _log_sum_of_others, soft_cross_entropy


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
    changed = AdjustedLogits(logits, target_logits=logits - 3.0)
    value = soft_cross_entropy(changed, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), ReductionOptions(reduction="none"))
    torch.testing.assert_close(value.detach(), torch.tensor([1001.5, 503.0]))
    value.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def maybe_compiled(compiled: bool) -> Callable[..., torch.Tensor]:
    torch._dynamo.reset()
    return torch.compile(soft_cross_entropy, backend="aot_eager", fullgraph=True) if compiled else soft_cross_entropy


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("compiled", [False, True])
def test_focal_form(gamma: float, detached: bool, compiled: bool) -> None:
    logits, target = rand(6, 4).requires_grad_(), torch.arange(6) % 4
    options = ReductionOptions(focal_gamma=gamma, focal_detached=detached)
    plain = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    miss = 1 - torch.exp(-plain)
    expected = ((miss.detach() if detached else miss) ** gamma * plain).mean()
    value = maybe_compiled(compiled)(AdjustedLogits(logits), target, options)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (value, expected)))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("compiled", [False, True])
def test_focal_form_is_finite_where_the_loss_is_zero(gamma: float, compiled: bool) -> None:
    logits, options = (
        torch.tensor([[200.0, 0.0]], requires_grad=True),
        ReductionOptions(focal_gamma=gamma, focal_detached=False),
    )
    value = maybe_compiled(compiled)(AdjustedLogits(logits), torch.tensor([0]), options)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_label_scale_multiplies_all_logits_of_a_sample() -> None:
    logits, scale = rand(4, 3), torch.tensor([1.0, 5.0, 20.0], dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 1])
    expected = torch.nn.functional.cross_entropy(logits * scale[target, None], target)
    torch.testing.assert_close(
        soft_cross_entropy(AdjustedLogits(logits, label_scale=scale), target, ReductionOptions()), expected
    )


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["labels", "smoothed", "probabilities"])
def test_a_shift_of_the_label_is_that_own_logit(kind: str, scaled: bool) -> None:
    given, shift = rand(6, 4).requires_grad_(), rand(4, seed=1)
    scale = torch.tensor([1.0, 5.0, 0.5, 2.0], dtype=torch.float64) if scaled else None
    target = rand(6, 4, seed=2).softmax(1) if kind == "probabilities" else torch.tensor([0, 3, -100, 1, 2, 0])
    options = ReductionOptions(label_smoothing=0.2 if kind == "smoothed" else 0.0)
    by_label = soft_cross_entropy(
        AdjustedLogits(given * 3, target_logits=given * 3 + shift, label_scale=scale), target, options
    )
    shifted = soft_cross_entropy(AdjustedLogits(given * 3, label_scale=scale, label_shift=shift), target, options)
    torch.testing.assert_close(shifted, by_label)
    torch.testing.assert_close(*(torch.autograd.grad(each, given)[0] for each in (shifted, by_label)))


@pytest.mark.parametrize("ignored", [-100, 255, 2])
def test_an_ignored_label_may_be_any_number(ignored: int) -> None:
    logits, shift = rand(3, 4), rand(4, seed=1)
    options = ReductionOptions(ignore_index=ignored)
    expected = soft_cross_entropy(AdjustedLogits(logits[:2].clone(), label_shift=shift), torch.tensor([0, 3]), options)
    given = soft_cross_entropy(AdjustedLogits(logits, label_shift=shift), torch.tensor([0, 3, ignored]), options)
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_label_out_of_range_is_refused(wrong: int) -> None:
    changed = AdjustedLogits(rand(2, 4), label_shift=rand(4, seed=1))
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        soft_cross_entropy(changed, torch.tensor([0, wrong]), ReductionOptions())


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize("labels", [[], [-100, -100]])
def test_the_mean_of_nothing_is_no_number(labels: list[int], gamma: float) -> None:
    changed = AdjustedLogits(rand(len(labels), 4))
    value = soft_cross_entropy(changed, torch.tensor(labels, dtype=torch.int64), ReductionOptions(focal_gamma=gamma))
    assert bool(value.isnan())


def test_compiled_focal_form_refuses_a_second_derivative() -> None:
    """Its slope is a number: a second derivative would be silently wrong."""
    options = ReductionOptions(focal_gamma=2.0, focal_detached=False)
    torch._dynamo.reset()
    target = torch.tensor([0, 1])
    hessian = torch.func.hessian(lambda logits: soft_cross_entropy(AdjustedLogits(logits), target, options))
    with pytest.raises(RuntimeError):
        torch.compile(hessian, backend="eager")(rand(2, 3))
