"""A run on two hosts, in two network namespaces joined by a veth pair, of which one process is killed in the middle."""

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


def test_a_killed_run_goes_on_by_itself_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    try:
        cable = ["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"]
        subprocess.run([*APART, *cable], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets no test make a network namespace: {getattr(error, 'stderr', '') or error}")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent / "src", TESTS / "support")))}
    command = [*APART, sys.executable, str(WORKER), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    straight, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "killed"))
    assert straight.keys() == killed.keys()
    assert all(torch.equal(straight[name], killed[name]) for name in straight)
    assert len(list(tmp_path.glob("killed-*"))) == 1
