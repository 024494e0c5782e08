"""Compiled once, a loss serves the whole training: neither progress nor noise, nor a label, compiles it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from longtail.losses import LOSSES, DeferredReweighting, KPSLoss, LDAMLoss, LongTailLoss

COUNTS, BATCH, FEATURES = [500, 30, 120, 5, 30], 6, 7


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build(name: str) -> LongTailLoss:
    if name == "deferred":
        return DeferredReweighting(LDAMLoss(COUNTS), COUNTS)
    loss = LOSSES[name](COUNTS)
    if loss.needs_classifier:
        loss.attach_classifier(torch.nn.Linear(FEATURES, len(COUNTS)))
    return loss


def step(loss: object, logits: torch.Tensor, target: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, target, features).backward()
    return leaf.grad


@pytest.mark.parametrize("name", [*LOSSES, "deferred"])
def test_progress_noise_and_labels_do_not_recompile(name: str) -> None:
    loss = build(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    logits, features = torch.randn(BATCH, len(COUNTS)).tanh(), torch.randn(BATCH, FEATURES)
    target = torch.arange(BATCH) % len(COUNTS)
    step(compiled, logits, target, features)
    noisy = not torch.equal(loss.sample_noise(logits), loss.sample_noise(logits))
    with torch.compiler.set_stance("fail_on_recompile"):
        for progress in (0.0, 0.3, 0.9, 1.0):
            loss.progress = progress
            gradients = [step(compiled, logits, target.roll(shift), features) for shift in (1, 1, 2)]
            assert torch.equal(gradients[0], gradients[1]) == (not noisy)
            assert not torch.equal(gradients[1], gradients[2])
            if not noisy:
                torch.testing.assert_close(gradients[0], step(loss, logits, target.roll(1), features))


def test_a_changed_option_does_recompile() -> None:
    loss = build("ldam")
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    logits, target, features = torch.zeros(2, len(COUNTS)), torch.tensor([0, 1]), torch.zeros(2, FEATURES)
    step(compiled, logits, target, features)
    loss.scale = 7.0
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
        step(compiled, logits, target, features)


def test_mixed_targets_under_gradient_adjustment_compile_nothing_anew() -> None:
    """Each label has a scale of its own there, and how many labels a batch has differs from batch to batch."""
    from torch._dynamo.utils import counters

    loss = KPSLoss([500, 50, 5, 2])
    loss.progress = 0.9
    compiled = torch.compile(loss, dynamic=False, backend="aot_eager")
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for _ in range(6):
        cosine = (torch.rand(16, 4, generator=generator) * 2 - 1).requires_grad_()
        labels = torch.nn.functional.one_hot(torch.randint(0, 4, (16,), generator=generator), 4).float()
        target = 0.7 * labels + 0.3 * labels[torch.randperm(16, generator=generator)]
        torch.testing.assert_close(compiled(cosine, target), loss(cosine, target))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1]
