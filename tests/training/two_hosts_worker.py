"""Two hosts with a network namespace each, joined by a cable; on each torchrun's agent starts one process of a run.

To be started in a user and network namespace of its own: ``unshare --user --map-root-user --net python ...``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
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
HOSTS = {"left": "10.99.0.1", "right": "10.99.0.2"}
"""Address of each host; its end of the cable has its name."""
TRAIN = (
    *("train", "digits", "--recipe", "cifar-lt/ce", "--model.name", "plain-cnn", "--stage1.epochs", "2"),
    *("--stage1.epoch_share", "0.2", "--training.timeout", "15s", "--quiet", "--resume", "auto", "--out"),
)


def train(out: str, is_killed: bool) -> None:
    """Train one process of a run; the second one is killed in the second epoch, the first time."""
    torch.set_num_threads(1)
    own = Experiment.on_step_end

    def on_step_end(self: Experiment, stage: StageRun, progress: Progress) -> None:
        own(self, stage, progress)
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if is_killed and first and os.environ["RANK"] == "1" and (progress.epoch, progress.step) == (1, 3):
            Path(f"{out}-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    Experiment.on_step_end = on_step_end  # type: ignore[method-assign]
    if main([*TRAIN, out]) != 0:
        sys.exit(1)
    PartialState().destroy_process_group()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def live(host: str, address: str, folder: str) -> None:
    """Be a host: both runs, one after the other, each with an agent that starts its process again where it fails."""
    ip("address", "add", f"{address}/24", "dev", host)
    ip("link", "set", host, "up")
    ip("link", "set", "lo", "up")
    os.environ["GLOO_SOCKET_IFNAME"] = host
    for port, name in enumerate(("straight", "killed"), start=29500):
        config = LaunchConfig(
            min_nodes=2,
            max_nodes=2,
            nproc_per_node=1,
            run_id=name,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HOSTS['left']}:{port}",
            rdzv_configs={"is_host": host == "left"},
            local_addr=address,
            max_restarts=3,
            monitor_interval=0.1,
            start_method="fork",
        )
        elastic_launch(config, train)(f"{folder}/{name}", name == "killed")


def boot(host: str, address: str, folder: str) -> int:
    """Start a host in a namespace of its own and plug its end of the cable in; return its process."""
    (unplugged, plugged), (absent, present) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        end_after(plug_in, host, address, folder, str(present), str(unplugged))
    os.read(absent, 1)
    ip("link", "set", host, "netns", str(child))
    os.write(plugged, b".")
    return child


def plug_in(host: str, address: str, folder: str, present: str, unplugged: str) -> None:
    """Leave the network namespace, wait for the cable, and be a host; the last two are open files."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    os.write(int(present), b".")
    os.read(int(unplugged), 1)
    live(host, address, folder)


if __name__ == "__main__":
    import sklearn.datasets  # noqa: F401 - what a run imports on its way, once for all processes

    import longtail.evaluation.tallies  # noqa: F401

    sys.modules["longtail.report.page"] = SimpleNamespace(write_report=lambda *_: None)  # type: ignore[assignment]
    left, right = HOSTS
    ip("link", "add", left, "type", "veth", "peer", "name", right)
    hosts = [boot(host, address, sys.argv[1]) for host, address in HOSTS.items()]
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(host, 0)[1]) for host in hosts))
