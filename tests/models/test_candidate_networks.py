"""The table of candidate networks against timm's registry, and which of them are offered."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from longtail.models.candidate_networks import (
    CANDIDATE_NETWORKS,
    UNASKED_MEGABYTES,
    CandidateNetwork,
    candidate_networks,
    find_candidate,
)
from longtail.models.timm import TIMM_PREFIX, timm_module

NAMES = [network.name for network in CANDIDATE_NETWORKS]
LITE = "timm:tf_efficientnet_lite0"
SMALL = "timm:mobilenetv4_conv_small.e2400_r224_in1k"


@functools.cache
def without_weights(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = timm_module().create_model(name.removeprefix(TIMM_PREFIX), **options)
    return network.eval()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A hub that answers, in place of the network; returns how often it was asked."""
    asked: list[float] = []
    monkeypatch.setattr(
        "longtail.data.sources.huggingface.reachable", lambda seconds: asked.append(seconds) or bool(asked)
    )
    return asked


@pytest.fixture
def one_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.models.candidate_networks.has_weights", lambda name: name == LITE)


def names(networks: list[CandidateNetwork]) -> set[str]:
    return {network.name for network in networks}


@pytest.mark.parametrize("network", CANDIDATE_NETWORKS, ids=NAMES)
def test_the_table_agrees_with_timm(network: CandidateNetwork) -> None:
    config = timm_module().get_pretrained_cfg(network.name.removeprefix(TIMM_PREFIX))
    assert (network.license, network.native_size) == (config.license, config.input_size[-1])
    assert network.asks_for_more == (config.license not in {"apache-2.0", "mit", "bsd-3-clause"})
    assert network.is_transformer == config.fixed_input_size
    backbone = without_weights(network.name, num_classes=0)
    assert sum(value.numel() for value in backbone.parameters()) == network.parameters
    stored = without_weights(network.name).state_dict().values()
    assert sum(value.nbytes for value in stored) / 1e6 == pytest.approx(network.megabytes, abs=0.1)
    if network.is_transformer:
        assert backbone.patch_embed.patch_size == (network.size_step,) * 2
    assert network.takes(network.smallest_size)
    assert network.takes(network.native_size)


@pytest.mark.parametrize("network", CANDIDATE_NETWORKS, ids=NAMES)
def test_multiply_adds_are_those_of_a_forward_pass(network: CandidateNetwork) -> None:
    backbone = without_weights(network.name, num_classes=0)
    images = torch.zeros(1, 3, network.native_size, network.native_size, device="meta")
    with FlopCounterMode(display=False) as counted, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        backbone(images)
    assert counted.get_total_flops() / 2 == network.multiply_adds


@pytest.mark.parametrize("name", [LITE, "timm:vit_small_patch14_dinov2.lvd142m"])
def test_a_smaller_image_costs_no_more_than_is_told(name: str) -> None:
    network = find_candidate(name)
    assert network is not None
    side = network.smallest_size
    options = {"img_size": side} if network.is_transformer else {}
    backbone = without_weights(name, num_classes=0, **options)
    with FlopCounterMode(display=False) as counted, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        backbone(torch.zeros(1, 3, side, side, device="meta"))
    assert 0.5 * network.multiply_adds_at(side) < counted.get_total_flops() / 2 <= 1.1 * network.multiply_adds_at(side)


def test_without_download_only_weights_on_this_machine_and_no_network(hub: list[float], one_installed: None) -> None:
    assert names(candidate_networks(ask=lambda _: True)) == {LITE}
    assert not hub


def test_a_license_that_asks_for_more_needs_the_user(hub: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    own = {network.name for network in CANDIDATE_NETWORKS if network.asks_for_more}
    assert own
    monkeypatch.setattr("longtail.models.candidate_networks.has_weights", lambda name: name in own)
    assert not own & names(candidate_networks(download=True))


def test_large_files_are_asked_for_once(hub: list[float], one_installed: None) -> None:
    questions: list[str] = []
    chosen = candidate_networks(download=True, ask=lambda question: bool(questions.append(question)))
    assert names(chosen) == {LITE, SMALL}
    assert len(questions) == 1
    large = [network.name for network in CANDIDATE_NETWORKS if network.megabytes > UNASKED_MEGABYTES]
    assert [name in questions[0] for name in large] == ["dinov3" not in name for name in large]
    assert SMALL not in questions[0]
    assert names(candidate_networks(download=True, ask=lambda _: True)) == names(candidate_networks(download=True))
    assert len(candidate_networks(download=True)) == len(CANDIDATE_NETWORKS) - 1


def test_a_hub_out_of_reach_leaves_what_is_here(one_installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.data.sources.huggingface.reachable", lambda seconds: False)
    assert names(candidate_networks(download=True, ask=lambda _: pytest.fail("asked"))) == {LITE}
