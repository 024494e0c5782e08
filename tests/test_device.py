"""The share of the machine that a process has, generators that are put back, and devices by name."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from longtail import device
from longtail.errors import LongtailError

CPU = torch.device("cpu")


def be_in_cgroups(own: str, files: dict[str, dict[str, str]], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put this process into cgroups: the lines of ``/proc/self/cgroup``, and the files of each folder."""
    (root / "own").write_text(own)
    for folder, texts in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (root / folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(device, "_OWN_CGROUPS", root / "own")
    monkeypatch.setattr(device, "_CGROUPS", root)


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


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"": {"cpu.max": "max 100000"}}, 8),
        ("0::/job/step", {"job/step": {"cpu.max": "max 100000"}, "job": {"cpu.max": "150000 100000"}}, 2),
        ("0::/x", {"": {"cpu.max": "1000 100000"}}, 1),
        (
            "4:memory:/x\n3:cpu,cpuacct:/docker/of-the-host\n0::/",
            {"cpu,cpuacct": {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}},
            3,
        ),
        ("1:cpu:/", {"cpu": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}}, 8),
    ],
)
def test_cores_are_those_of_the_container_or_job(
    own: str, files: dict[str, dict[str, str]], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_in_cgroups(own, files, tmp_path, monkeypatch)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(8)), raising=False)
    assert device.cores() == cores


def test_cores_are_those_of_the_machine_where_it_has_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_in_cgroups("", {}, tmp_path, monkeypatch)
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    assert device.cores() == os.cpu_count()


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/", {"": {"memory.max": "8000", "memory.current": "7000"}}),
        (
            "0::/job/step",
            {
                "job/step": {"memory.max": "max", "memory.current": "6000"},
                "job": {"memory.max": "8000", "memory.current": "7000"},
            },
        ),
        (
            "3:cpu:/x\n2:memory:/docker/of-the-host",
            {"memory": {"memory.limit_in_bytes": "8000", "memory.usage_in_bytes": "7000"}},
        ),
    ],
)
def test_memory_is_what_the_container_leaves(
    own: str, files: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = "inactive_anon 5\ninactive_file 400\nactive_file 100\ntotal_inactive_file 400\ntotal_active_file 100"
    with_parts = {folder: texts | {"memory.stat": parts} for folder, texts in files.items()}
    be_in_cgroups(own, with_parts, tmp_path, monkeypatch)
    assert device.memory_budget(CPU) == (8000 - 7000 + 500) / 2
    (tmp_path / "own").unlink()
    assert device.memory_budget(CPU) > 8000


@pytest.mark.parametrize(("is_there", "kind"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_accelerator_with_the_oldest_pytorch_too(
    is_there: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))  # takes no argument
    assert device.named_device("auto").type == kind


@pytest.mark.parametrize(("text", "number"), [("4", 4), ("0", 1), ("", 1), ("many", 1)])
def test_a_number_of_processes_that_is_none_counts_as_one(
    monkeypatch: pytest.MonkeyPatch, text: str, number: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    assert device.processes() == number


@pytest.mark.parametrize(("has_float64", "kind"), [(True, "xpu"), (False, "cpu")])
def test_float64_is_computed_where_there_is_any(has_float64: bool, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _: SimpleNamespace(has_fp64=has_float64))
    assert device.float64_device(torch.device("xpu")).type == kind


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
