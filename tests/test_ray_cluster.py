"""The connection to a cluster: what is said of one that takes this process with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = "import os; from longtail.ray_cluster import last_words\nwith last_words('repeat it'):\n    {}"


@pytest.mark.parametrize(
    ("work", "status", "said"), [("os._exit(1)", 1, "longtail: repeat it\n"), ("os.kill(os.getpid(), 0)", 0, "")]
)
def test_a_process_that_is_ended_at_once_leaves_a_sentence(work: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCK.format(work)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)
