"""Features read where the classifier gets them, for losses that need them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from longtail.integrations.features import ReadFeatures
from longtail.losses import FBLoss, FeatureNoiseLoss

COUNTS = [50, 10, 2]


def test_features_are_those_the_classifier_was_given() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    plain, pixels, target = FBLoss(COUNTS), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    reading = ReadFeatures(FBLoss(COUNTS), network[-1])
    plain.progress = reading.progress = 0.7
    assert reading.progress == plain.progress == pytest.approx(0.7)
    features = network[:2](pixels)
    expected = torch.autograd.grad(plain(network[2](features), target, features), network[0].weight)
    gradients = torch.autograd.grad(reading(network(pixels), target), network[0].weight)
    assert torch.equal(gradients[0], expected[0])


def test_a_loss_that_reads_the_classifier_is_given_it() -> None:
    classifier = nn.Linear(8, 3)
    loss = ReadFeatures(FeatureNoiseLoss(COUNTS, strength=0.5), classifier)
    value = loss(classifier(torch.ones(2, 8)), torch.tensor([0, 2]))
    assert value.isfinite()
    assert list(loss.parameters()) == []  # the classifier is trained once, with its network


def test_a_network_is_copied_and_pickled_between_steps() -> None:
    network, target = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.tensor([0, 1, 2, 0, 1])
    loss = ReadFeatures(FBLoss(COUNTS), network[-1])
    loss(network(torch.randn(5, 4)), target).backward()
    twin, pixels = copy.deepcopy(network), torch.randn(500, 4)
    size = len(pickle.dumps(network))
    assert torch.equal(twin(pixels), network(pixels))
    assert len(pickle.dumps(network)) == size
    assert loss(network(pixels[:5]), target).isfinite()  # the original still has its features


def test_the_network_comes_before_the_loss() -> None:
    with pytest.raises(ValueError, match="network"):
        ReadFeatures(FBLoss(COUNTS), nn.Linear(8, 3))(torch.zeros(1, 3), torch.tensor([0]))
