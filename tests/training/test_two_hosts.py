"""A run on two hosts, in two network namespaces joined by a veth pair, where a host or the cable is lost on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("two_hosts_worker.py")
TESTS = WORKER.parents[1]
APART = ("unshare", "--user", "--map-root-user", "--net", "--kill-child")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to, and of one for each loss."""
    folder = tmp_path_factory.mktemp("runs")
    try:
        cable = ["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"]
        subprocess.run([*APART, *cable], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets no test make a network namespace: {getattr(error, 'stderr', '') or error}")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent / "src", TESTS / "support")))}
    command = [*APART, sys.executable, str(WORKER), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_run_that_loses_a_host_or_the_cable_goes_on_by_itself_and_ends_with_the_same_weights(runs: Path) -> None:
    for loss in ("lost", "cut"):
        straight, continued = (load_file(runs / name / "model.safetensors") for name in ("straight", loss))
        assert straight.keys() == continued.keys()
        assert all(torch.equal(straight[name], continued[name]) for name in straight)
        assert (runs / f"{loss}-happened").exists()
