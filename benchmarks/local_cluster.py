"""LocalCluster: a Ray cluster on this machine, a head without cores and nodes that are ended as a power cut would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import psutil

STORE = 100 * 2**20
FILL = """
import sys, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=0)
class Holder:
    def fill(self, size):
        self.held = []
        try:
            while size >= 2**16:
                piece = min(size, 2**20)
                self.held.append(ray.put(bytes(piece)))
                size -= piece
        except ray.exceptions.RayError:
            pass
        return len(self.held)
holders = []
for node in ray.nodes():
    if node["Alive"]:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        holders.append(Holder.options(scheduling_strategy=there).remote())
        size = int(node["Resources"]["object_store_memory"] * float(sys.argv[2]))
        print(ray.get(holders[-1].fill.remote(size)), flush=True)
print("full", flush=True)
sys.stdin.read()
"""
"""Another client of a cluster, which holds a share of every object store until its standard input ends."""


class LocalCluster:
    """A head and some nodes, each a set of processes; to be used in a ``with`` statement.

    Args:
        nodes: Number of nodes.
        cores: Cores that each has for Ray.
        pinned: Keep node I on core I of this machine.
        spills: Whether objects go to the disk when the memory for them is full.
    """

    def __init__(self, nodes: int = 2, cores: int = 1, *, pinned: bool = False, spills: bool = True) -> None:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        from ray.cluster_utils import Cluster

        self.number, self._cores, self._pinned = nodes, cores, pinned
        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        if not spills:
            head["_system_config"] = {"automatic_object_spilling_enabled": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        self.restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut_down()

    def shut_down(self) -> None:
        """End all of it."""
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """Where its head listens."""
        return str(self._cluster.address)

    def restore(self) -> None:
        """Have all nodes again."""
        everywhere = os.sched_getaffinity(0)
        while len(self.nodes) < self.number:
            if self._pinned:
                os.sched_setaffinity(0, {sorted(everywhere)[len(self.nodes)]})
            self.nodes.append(self._cluster.add_node(num_cpus=self._cores, object_store_memory=STORE))
            os.sched_setaffinity(0, everywhere)

    def remove(self, number: int) -> None:
        """End all processes of a node at once."""
        self._cluster.remove_node(self.nodes.pop(number), allow_graceful=False)

    @contextmanager
    def filled(self, share: float) -> Iterator[None]:
        """Hold a share of every object store for another client while the block runs."""
        words = [sys.executable, "-c", FILL, self.address, str(share)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            for line in client.stdout:
                if line.strip() == "full":
                    break
            yield
            client.communicate("")

    def kill_head(self) -> None:
        """End all processes of the head at once."""
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)


AGENTS = "ray::DashboardAgent", "ray::RuntimeEnvAgent"  # of a node, which does not outlive them
NO_TASKS = *AGENTS, "ray::IDLE", "ray::Board"


def agents() -> list[psutil.Process]:
    """Return the agents of the nodes of a cluster of this process, the oldest first."""
    return [process for process, name in _processes() if name.startswith(AGENTS)]


def busy_workers() -> list[psutil.Process]:
    """Return the processes that do a task of a cluster of this process, the oldest first."""
    return [process for process, name in _processes() if not name.startswith(NO_TASKS)]


def _processes() -> list[tuple[psutil.Process, str]]:
    """Return the processes below this one that Ray has named, with their names."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append((process, " ".join(process.cmdline())))
    return sorted((pair for pair in found if pair[1].startswith("ray::")), key=lambda pair: pair[0].pid)
