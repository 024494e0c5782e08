"""Two hosts with a network namespace each, joined by a cable; on each torchrun's agent starts one process of a run.

The first run is left alone. In the second epoch of the next one, all processes of a host are killed, and the host is
started again; in that of the last one, the cable is cut, for longer than the processes wait for each other.

To be started in a user and network namespace of its own: ``unshare --user --map-root-user --net python ...``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import PartialState
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from two_processes import end_after

from longtail.cli import main
from longtail.training.experiment import Experiment
from longtail.training.loop import Progress, StageRun

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
RUNS = ("straight", "lost", "cut")
HOSTS = {"left": "10.99.0.1", "right": "10.99.0.2"}
"""Address of each host; its end of the cable has its name."""
TIMEOUT_SECONDS, CUT_SECONDS = 10, 15
TRAIN = (
    *("train", "digits", "--recipe", "cifar-lt/ce", "--model.name", "plain-cnn", "--stage1.epochs", "2"),
    *("--stage1.epoch_share", "0.2", "--training.timeout", f"{TIMEOUT_SECONDS}s"),
    *("--quiet", "--resume", "auto", "--out"),
)


def train(out: str, run: str, host: str) -> None:
    """Train one process of a run; what happens to it comes once, from the right host."""
    torch.set_num_threads(1)
    own, happened = Experiment.on_step_end, Path(f"{out}-happened")

    def on_step_end(self: Experiment, stage: StageRun, progress: Progress) -> None:
        own(self, stage, progress)
        is_time = host == "right" and (progress.epoch, progress.step) == (1, 3) and not happened.exists()
        if is_time and run != "straight":
            happened.touch()
            if run == "lost":
                os.killpg(os.getpgrp(), signal.SIGKILL)
            cut = f"ip link set {host} down; sleep {CUT_SECONDS}; ip link set {host} up"
            subprocess.Popen(["sh", "-c", cut], start_new_session=True)

    Experiment.on_step_end = on_step_end  # type: ignore[method-assign]
    if main([*TRAIN, out]) != 0:
        sys.exit(1)
    PartialState().destroy_process_group()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def live(host: str, folder: str, *runs: str) -> None:
    """Be a host: runs, one after the other, each with an agent that starts its process again where it fails."""
    os.setpgrp()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # PyTorch 2.13 lets a host that is started again wait for an address that it tells in the first round only.
    os.environ |= {"GLOO_SOCKET_IFNAME": host, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    for name in runs:
        config = LaunchConfig(
            min_nodes=2,
            max_nodes=2,
            nproc_per_node=1,
            run_id=name,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HOSTS['left']}:{29500 + RUNS.index(name)}",
            rdzv_configs={"is_host": host == "left", "keep_alive_interval": 1, "keep_alive_max_attempt": 5},
            local_addr=HOSTS[host],
            max_restarts=3,
            monitor_interval=0.1,
            start_method="fork",
        )
        elastic_launch(config, train)(f"{folder}/{name}", name, host)


def wire(host: str) -> int:
    """Put an end of the cable into a network namespace of its own, and return that as an open file.

    It is there as long as the file is open, whatever becomes of the processes in it.
    """
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(LIBC.unshare(CLONE_NEWNET))
    inside = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(LIBC.setns(outside, CLONE_NEWNET))
    ip("link", "set", host, "netns", f"/proc/{os.getpid()}/fd/{inside}")
    enter(LIBC.setns(inside, CLONE_NEWNET))
    ip("address", "add", f"{HOSTS[host]}/24", "dev", host)
    ip("link", "set", host, "up")
    ip("link", "set", "lo", "up")
    enter(LIBC.setns(outside, CLONE_NEWNET))
    return inside


def enter(status: int) -> None:
    """Check that a change of the network namespace succeeded."""
    if status != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")


def boot(host: str, network: int, folder: str, runs: Sequence[str]) -> int:
    """Start a host in its network namespace; return its process."""
    child = os.fork()
    if not child:
        enter(LIBC.setns(network, CLONE_NEWNET))
        end_after(live, host, folder, *runs)
    return child


if __name__ == "__main__":
    import sklearn.datasets  # noqa: F401 - what a run imports on its way, once for all processes

    import longtail.evaluation.tallies  # noqa: F401

    sys.modules["longtail.report.page"] = SimpleNamespace(write_report=lambda *_: None)  # type: ignore[assignment]
    left, right = HOSTS
    ip("link", "add", left, "type", "veth", "peer", "name", right)
    folder, networks = sys.argv[1], {host: wire(host) for host in HOSTS}
    hosts = {boot(host, network, folder, RUNS): host for host, network in networks.items()}
    while hosts:
        ended, status = os.wait()
        host = hosts.pop(ended)
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            hosts[boot(host, networks[host], folder, RUNS[RUNS.index("lost") :])] = host
        elif status != 0:
            sys.exit(1)
