"""The share of the machine that a process has, generators that are put back, and devices by name."""

from __future__ import annotations

import pytest
import torch

from longtail import device
from longtail.errors import LongtailError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("variables", "workers"), [({}, 16), ({"LOCAL_WORLD_SIZE": "4"}, 4), ({device.JOBS: "3"}, 5)])
def test_workers_are_the_cores_shared_by_processes_and_runs(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], workers: int
) -> None:
    for name in ("LOCAL_WORLD_SIZE", device.JOBS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(device, "cores", lambda: 16)
    assert device.default_workers() == workers


@pytest.mark.parametrize(("text", "number"), [("4", 4), ("0", 1), ("", 1), ("many", 1)])
def test_a_number_of_processes_that_is_none_counts_as_one(
    monkeypatch: pytest.MonkeyPatch, text: str, number: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    assert device.processes() == number


def test_generators_are_as_they_were_after_a_seeded_block() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with device.seeded(CPU, 0):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with device.seeded(CPU, 0):
        assert torch.equal(torch.rand(3), first)


def test_seeds_of_steps_do_not_collide_and_fit_a_generator() -> None:
    seeds = {device.step_seed(seed, epoch, step) for seed in range(5) for epoch in range(20) for step in range(20)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(LongtailError, match=repr(name)):
        device.named_device(name)
