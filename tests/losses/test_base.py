"""What all losses share: the manners of torch's CrossEntropyLoss, progress, clear errors, and how means add up."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from longtail import ClassCounts
from longtail.losses import CrossEntropyLoss, DeferredReweighting, FBLoss, GCLLoss, LDAMLoss, WeightedLoss

COUNTS = [100, 20, 3, 40]
WEIGHT = [1.0, 0.5, 4.0, 2.0]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGETS = {
    "indices": (rand(6, 4), torch.tensor([0, 1, 2, 3, 2, 2])),
    "ignored": (rand(6, 4), torch.tensor([0, -100, 2, 3, -100, 2])),
    "probabilities": (rand(6, 4), rand(6, 4, seed=1).softmax(1)),
    "image": (rand(2, 4, 3, 5), torch.arange(30).reshape(2, 3, 5) % 4),
    "image-probabilities": (rand(2, 4, 3), rand(2, 4, 3, seed=1).softmax(1)),
    "one": (rand(4), torch.tensor(2)),
    "one-probabilities": (rand(4), rand(4, seed=1).softmax(0)),
}


class Shifted(CrossEntropyLoss):
    """Cross-entropy with a margin of zero, so that the general path is taken and nothing changes."""

    def adjust_logits(self, logits: torch.Tensor, _features: torch.Tensor | None, /) -> Any:
        changed = super().adjust_logits(logits, None)
        return changed._replace(target_logits=changed.logits.clone())


class Scaled(Shifted):
    """The same through the path that gives each label its own scale."""

    def adjust_logits(self, logits: torch.Tensor, _features: torch.Tensor | None, /) -> Any:
        return super().adjust_logits(logits, None)._replace(label_scale=torch.ones(4, dtype=logits.dtype))


@pytest.mark.parametrize("make", [CrossEntropyLoss, Shifted, Scaled])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("name", TARGETS)
def test_behaves_as_torch(make: Any, weight: Any, reduction: Any, smoothing: float, name: str) -> None:
    logits, target = TARGETS[name]
    loss = make(COUNTS, weight=weight, reduction=reduction, label_smoothing=smoothing)
    table = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    expected = nn.CrossEntropyLoss(table, reduction=reduction, label_smoothing=smoothing)(logits, target)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("make", [CrossEntropyLoss, Shifted])
def test_another_ignored_label(make: Any) -> None:
    logits, target = TARGETS["indices"]
    expected = nn.CrossEntropyLoss(ignore_index=2)(logits, target)
    torch.testing.assert_close(make(COUNTS, ignore_index=2)(logits, target), expected)
    with pytest.raises(ValueError, match="ignore_index"):
        make(COUNTS, ignore_index=2)(*TARGETS["probabilities"])


@pytest.mark.parametrize("counts", [COUNTS, tuple(COUNTS), torch.tensor(COUNTS), ClassCounts(COUNTS)])
def test_takes_counts_in_any_form(counts: Any) -> None:
    assert LDAMLoss(counts).class_counts.tolist() == COUNTS


def test_progress_is_settable_between_forward_and_backward() -> None:
    loss = FBLoss(COUNTS, curriculum="linear")
    logits, features = rand(3, 4).requires_grad_(), rand(3, 5).requires_grad_()
    value = loss(logits, torch.tensor([0, 1, 2]), features)
    loss.progress = 1.0
    value.backward()
    assert loss.progress == 1.0
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_progress_outside_its_range(value: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        GCLLoss(COUNTS).progress = value


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"reduction": "average"}, "reduction"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"weight": [1.0, 2.0]}, "4 classes"),
        ({"weight": [1.0, 2.0, math.nan, 1.0]}, "finite"),
        ({"weight": [1.0, 2.0, -1.0, 1.0]}, "finite"),
        ({"scale": -1.0}, "scale"),
        ({"scale": 0.0}, "above 0"),
        ({"scale": math.inf}, "scale"),
    ],
)
def test_wrong_options(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        CrossEntropyLoss(COUNTS, **options)


@pytest.mark.parametrize(
    ("logits", "target", "error", "word"),
    [
        (rand(2, 5), torch.tensor([0, 1]), ValueError, "4 classes"),
        (rand(2, 4), torch.tensor([0, 1, 2]), ValueError, r"\(2,\)"),
        (rand(2, 4), torch.tensor([0.0, 1.0]), TypeError, "long"),
        (rand(2, 4), torch.zeros(2, 4, dtype=torch.int64), TypeError, "probabilities"),
        (torch.zeros(2, 4, dtype=torch.int64), torch.tensor([0, 1]), TypeError, "floating"),
    ],
)
def test_wrong_inputs(logits: Any, target: Any, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        CrossEntropyLoss(COUNTS)(logits, target)


def test_features_must_be_given_and_fit() -> None:
    loss, target = FBLoss(COUNTS), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="features"):
        loss(rand(2, 4), target)
    with pytest.raises(ValueError, match="features"):
        loss(rand(2, 4), target, rand(3, 4))


def test_a_classifier_is_refused_where_none_is_read() -> None:
    with pytest.raises(ValueError, match="GCLLoss"):
        GCLLoss(COUNTS).attach_classifier(nn.Linear(3, 4))


@pytest.mark.parametrize("make", [lambda: WeightedLoss(COUNTS), lambda: deferred_ldam()])
def test_weighted_means_of_parts_are_not_the_mean_of_the_whole(make: Any) -> None:
    """As documented: sums over the summed divisors are exact for micro-batches and ranks, means of means are not."""
    logits, target = rand(8, 4).tanh(), torch.tensor([0, 0, 0, 1, 2, 2, 3, 2])
    loss = make()
    whole = loss(logits, target)
    parts = [(logits[:4], target[:4]), (logits[4:], target[4:])]
    assert not torch.isclose(torch.stack([loss(*part) for part in parts]).mean(), whole)
    inner = getattr(loss, "loss", loss)
    inner.reduction = loss.reduction = "sum"
    total = torch.stack([loss(*part) for part in parts]).sum()
    divisor = torch.stack([loss.mean_divisor(labels) for _, labels in parts]).sum()
    torch.testing.assert_close(total / divisor, whole)


def test_means_of_equal_parts_add_up_for_probabilities() -> None:
    logits, target, loss = rand(8, 4), rand(8, 4, seed=2).softmax(1), WeightedLoss(COUNTS)
    halves = [loss(logits[rows], target[rows]) for rows in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.stack(halves).mean(), loss(logits, target))
    assert loss.mean_divisor(target).item() == 8


def deferred_ldam() -> DeferredReweighting:
    loss = DeferredReweighting(LDAMLoss(COUNTS), COUNTS, beta=0.99)
    loss.progress = 1.0
    return loss


def test_repr_shows_the_options() -> None:
    assert "noise=0.5" in repr(GCLLoss(COUNTS))


def test_import_needs_torch_and_numpy_alone() -> None:
    heavy = ["datasets", "timm", "torchvision", "torchmetrics", "accelerate", "pandas", "sklearn", "PIL", "yaml"]
    code = f"import sys\nfor name in {heavy}: sys.modules[name] = None\nimport longtail.losses as l; l.GCLLoss([2, 1])"
    subprocess.run([sys.executable, "-c", code], check=True)
