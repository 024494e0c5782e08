"""The Trainer's accumulation: the losses of parts add up to that of the whole batch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from longtail.losses import BalancedSoftmaxLoss

COUNTS = [50, 10, 2]


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_the_shares_of_accumulated_batches_add_up_to_the_loss_of_the_whole() -> None:
    from longtail.integrations.transformers import TrainerCriterion

    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 0, -100, 1])
    loss = TrainerCriterion(BalancedSoftmaxLoss(COUNTS))
    items = labels.ne(-100).sum()
    parts = [loss({"logits": part}, of, items) for part, of in zip(logits.split(3), labels.split(3), strict=True)]
    assert torch.allclose(sum(parts), loss((logits,), labels))


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("weight", [None, [0.0, 1.0, 1.0]])
def test_a_part_that_is_ignored_is_nothing(ignored: int, weight: list[float] | None) -> None:
    from longtail.integrations.transformers import TrainerCriterion

    torch.manual_seed(0)
    logits = torch.randn(6, 3, requires_grad=True)
    labels = torch.tensor([ignored, ignored, 0, 1, 1, ignored]) if weight is None else torch.tensor([0, 0, 1, 1, 2, 1])
    loss = TrainerCriterion(
        BalancedSoftmaxLoss(COUNTS, ignore_index=ignored if weight is None else -100, weight=weight)
    )
    items = torch.tensor(len(labels))  # as the Trainer counts them, where none is -100
    parts = [loss({"logits": part}, of, items) for part, of in zip(logits.split(2), labels.split(2), strict=True)]
    assert parts[0].item() == 0
    (gradient,) = torch.autograd.grad(parts[0], logits, retain_graph=True)
    assert torch.equal(gradient, torch.zeros(6, 3))
    if weight is None:
        assert torch.allclose(sum(parts), loss({"logits": logits}, labels, items))
    assert loss({"logits": logits[:2]}, labels[:2], torch.tensor(0)).item() == 0
    assert loss({"logits": logits[:2]}, labels[:2]).item() == 0


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize(("step", "steps", "progress"), [(3, 6, 0.5), (0, 0, 0.0), (8, 6, 1.0)])
def test_a_training_without_steps_left_ends(step: int, steps: int, progress: float, tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from longtail.integrations.transformers import TrainerCriterion

    loss = TrainerCriterion(BalancedSoftmaxLoss(COUNTS))
    state = TrainerState(global_step=step, max_steps=steps)
    loss.on_train_end(TrainingArguments(str(tmp_path), report_to="none"), state, TrainerControl())
    assert loss.loss.progress == progress
