"""A Ray cluster of several nodes on this machine, and the moment at which one of them is taken away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def ray_nodes(number: int, cores: int) -> Iterator[Any]:
    """Start a head without cores and nodes with some, and connect to it.

    Their processes ignore SIGINT, as those that a script has begun in the background.
    """
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(Path(__file__).parent)]))  # of their processes
    small = {"object_store_memory": 100 * 2**20}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    for _ in range(number):
        cluster.add_node(num_cpus=cores, **small)
    signal.signal(signal.SIGINT, handler)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        os.environ["PYTHONPATH"] = before
        ray.shutdown()
        cluster.shutdown()


Step = tuple[Callable[[], bool], Callable[[], object]]


@contextmanager
def when(*steps: Step) -> Iterator[list[int]]:
    """While the block runs, act as soon as a condition holds, then wait for the next; gives the steps that were taken.

    Args:
        steps: Conditions, each with what is done then.
    """
    done: list[int] = []
    left = threading.Event()

    def watch() -> None:
        for number, (condition, action) in enumerate(steps):
            while not condition():
                if left.wait(0.02):
                    return
            action()
            done.append(number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        left.set()
        thread.join(60)
