"""The connection to a cluster: what is said of one that takes this process with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from longtail.errors import UsageError
from longtail.ray_cluster import connected

BLOCK = "import os; from longtail.ray_cluster import last_words\nwith last_words('repeat it'):\n    {}"


@pytest.mark.parametrize(
    ("work", "status", "said"), [("os._exit(1)", 1, "longtail: repeat it\n"), ("os.kill(os.getpid(), 0)", 0, "")]
)
def test_a_process_that_is_ended_at_once_leaves_a_sentence(work: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCK.format(work)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("address", ["ray://head:10001", "auto"])
def test_an_address_for_clients_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match="auto"), connected(address):
        pass
