"""Classifiers that train together: each as it would alone, folds apart, stages one after the other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from longtail.config.stage import OptimizerConfig
from longtail.counts import ClassCounts
from longtail.losses import LOSSES, build_loss
from longtail.models.heads import CosineHead, LinearHead
from longtail.training.optimizers import make_optimizer
from longtail.training.parallel_heads import HeadPlan, train_heads

CLASSES, FEATURES, ROWS, BATCH = 5, 7, 60, 16


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % CLASSES
    centers = torch.randn(CLASSES, FEATURES, generator=generator)
    return centers[labels] + torch.randn(ROWS, FEATURES, generator=generator), labels


def alone(plan, features, labels, counts, *, epochs, seed):
    """Train one classifier by itself, with an optimizer of PyTorch."""
    head = (CosineHead if plan.head == "cosine" else LinearHead)(FEATURES, CLASSES)
    head.start_from(features, labels)
    loss = build_loss(plan.loss, counts, plan.options)
    optimizer = make_optimizer(OptimizerConfig(plan.optimizer, plan.lr, weight_decay=plan.weight_decay), head)
    order = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(labels) / BATCH)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for step, part in enumerate(torch.randperm(len(labels), generator=order).split(BATCH)):
            loss.progress = (epoch + step / steps) / epochs
            needed = features[part] if loss.needs_features else None
            optimizer.zero_grad()
            loss(head(features[part]), labels[part], needed).backward()
            optimizer.step()
    return head


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"gcl", "agcl", "feature-noise"}))
def test_a_classifier_is_what_it_would_be_alone(name, rows) -> None:
    features, labels = rows
    counts = ClassCounts([30, 20, 10, 6, 3])
    head = LOSSES[name].head
    plan = HeadPlan(
        name, head, lr=0.02, weight_decay=0.1, options={"deferred_reweighting": 0.5} if name == "ldam" else {}
    )
    plans = [HeadPlan("cross-entropy", head, lr=0.05), plan, replace(plan, optimizer="adam")]
    trained = train_heads(plans, features, labels, counts, epochs=3, batch_size=BATCH, seed=4)

    for each, weights in zip(plans, trained, strict=True):
        expected = alone(each, features, labels, counts, epochs=3, seed=4)
        with torch.no_grad():
            assert torch.allclose(weights.logits(0, features), expected(features), atol=2e-5)


def test_rows_held_out_of_a_fold_have_no_influence_on_it(rows) -> None:
    features, labels = rows
    counts = ClassCounts(np.bincount(labels))
    folds = torch.ones(2, ROWS, dtype=torch.bool)
    folds[1, ::3] = False
    plans = [HeadPlan(name, "cosine", lr=0.02) for name in ("ldam", "kps")]
    changed = features.clone()
    changed[::3] = 100 * torch.randn(len(features[::3]), FEATURES)

    before, after = (
        train_heads(plans, each, labels, counts, epochs=2, batch_size=BATCH, seed=0, folds=folds)
        for each in (features, changed)
    )

    for first, second in zip(before, after, strict=True):
        assert torch.allclose(first.weight[1], second.weight[1], atol=1e-6)
        assert not torch.allclose(first.weight[0], second.weight[0], atol=1e-2)


def test_a_second_stage_goes_on_from_the_first_and_weighs_its_rows(rows) -> None:
    features, labels = rows
    counts = ClassCounts(np.bincount(labels))
    plan = HeadPlan("cross-entropy", "linear", lr=0.02)
    train = {"features": features, "labels": labels, "counts": counts, "batch_size": BATCH, "seed": 0}
    first = train_heads([plan], epochs=2, **train)
    frozen = train_heads([HeadPlan("cross-entropy", "linear", lr=0.0)], epochs=1, start=first, **train)
    assert torch.equal(frozen[0].weight, first[0].weight)

    only_last = (labels == CLASSES - 1).float()
    second = train_heads([plan], epochs=5, start=first, row_weights=only_last, **train)
    answers = second[0].logits(0, features).softmax(dim=1)[:, CLASSES - 1].mean()
    assert answers > first[0].logits(0, features).softmax(dim=1)[:, CLASSES - 1].mean()


def test_the_same_seed_gives_the_same_weights_where_losses_are_random(rows) -> None:
    features, labels = rows
    plan = HeadPlan("gcl", "cosine", lr=0.02)
    first, second, third = (
        train_heads([plan], features, labels, ClassCounts([9] * 5), epochs=2, batch_size=BATCH, seed=seed)[0].weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
