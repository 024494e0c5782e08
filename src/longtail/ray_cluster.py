"""The connection to a Ray cluster: made or found by its address, watched, and closed."""

from __future__ import annotations

import logging
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from longtail.device import cores
from longtail.errors import LongtailError, UsageError, first_line

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its own lines go to its log files
}
_LAST_WORDS = "import sys; sys.stdin.read(1) or print(sys.argv[1], file=sys.stderr)"  # its input ends with this process
_SECONDS_BETWEEN_CHECKS = 5.0
_CHECKS = 4  # in a row without an answer
_SECONDS_TO_ANSWER = 10.0
_SECONDS_WITHOUT_MACHINES = 300.0
Machine: TypeAlias = Mapping[str, float]
"""What a machine of a cluster has, by names such as ``CPU`` and ``GPU``."""


class ClusterLostError(LongtailError):
    """The cluster does not answer any more."""


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, and give the module ``ray``; disconnect afterwards.

    A cluster that this process is connected to already is used as it is, and stays connected.

    Args:
        address: The cluster, such as ``auto`` or ``head:6379``; a new one on this machine when empty.

    Raises:
        LongtailError: Ray is not installed, or there is no such cluster.
        UsageError: The address is that of Ray's client, for which workers could not call this process back.
    """
    place = latest() if address == "auto" else address
    if place.startswith("ray://"):
        raise UsageError(
            f"{place} is for clients outside of a cluster, and this command is a part of it: give the command on one "
            "of its machines with --ray auto, or with the address of the head, such as head:6379."
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise LongtailError(f"Ray is not installed ({first_line(error)}): pip install 'longtail[ray]'.") from error
    if ray.is_initialized():
        yield ray
        return
    local: dict[str, Any] = {} if address else {"num_cpus": cores(), "include_dashboard": False}
    try:
        if re.fullmatch(r"[^/]+:\d{1,5}", place) and not answers(place):  # Ray itself would try for minutes
            raise ConnectionError(f"{place} does not answer")
        ray.init(address=place or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # Ray raises them of many classes, some of Exception itself
        where = address or "on this machine"
        raise LongtailError(
            f"no Ray cluster {where} ({first_line(error)}): check its address and its token."
        ) from error
    try:
        with last_words("the command was ended, perhaps together with its node: repeat it; what is finished is kept."):
            yield ray
    except ClusterLostError:  # there is nothing to shut down
        raise
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


@contextmanager
def last_words(sentence: str) -> Iterator[None]:
    """Have a sentence said if this process ends within the block without a chance to say it.

    Ray ends the process of a driver at once when the node that it is on is lost.

    Args:
        sentence: What to say on the standard error.
    """
    words = [sys.executable, "-I", "-S", "-c", _LAST_WORDS, f"longtail: {sentence}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as heir:  # noqa: S603 - our own
        try:
            yield
        finally:
            heir.communicate(b".")


def latest() -> str:
    """Return the address that ``auto`` stands for: RAY_ADDRESS, or the cluster that ``ray start`` has begun last here.

    ``auto`` itself if there is neither: Ray then looks for processes of a cluster.
    """
    default = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else "/tmp"  # noqa: S108 - Ray's
    file = Path(os.environ.get("RAY_TMPDIR", default), "ray", "ray_current_cluster")
    with suppress(OSError):
        return os.environ.get("RAY_ADDRESS") or file.read_text().strip() or "auto"
    return "auto"


def answers(address: str) -> bool:
    """Whether something listens at an address.

    Example:
        >>> answers("127.0.0.1:1")
        False
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError):
        return False
    return True


class Watch:
    """Looks now and then whether a cluster can still do what it was given.

    Ray ends the process of a driver when the head has been gone for a minute, and waits for machines without end: the
    user is told before.

    Args:
        ray: The module, connected.
        can_run: Whether machines with such resources, for example ``{"CPU": 8.0}`` each, can run the tasks.
        needs: What the tasks need, in words, for the messages.
        say: Receives what the user should know.
    """

    def __init__(
        self, ray: Any, can_run: Callable[[list[Machine]], bool], needs: str, say: Callable[[str], object]
    ) -> None:
        self._ray, self._can_run, self._needs, self._say = ray, can_run, needs, say
        context = ray.get_runtime_context()
        self._address, self._own_node = context.gcs_address, context.get_node_id()
        self._looked = time.monotonic()
        self._silent = 0
        self._had_machines = can_run(machines(ray))
        self._alone_since: float | None = None
        self.is_lost = False
        if not self._had_machines:
            say(f"note: the cluster has no machines with {needs} now; waiting for them")

    def check(self) -> None:
        """Look, if the last time is a while ago.

        Raises:
            ClusterLostError: The head has not answered several times, or takes this machine for lost.
            LongtailError: The machines for the tasks have been lost, five minutes ago.
        """
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_CHECKS:
            return
        present = _nodes_in_time(self._ray) if answers(self._address) else None
        self._silent = 0 if present is not None else self._silent + 1
        if self._silent >= _CHECKS:
            self.is_lost = True
            raise ClusterLostError(stopped("its head does not answer"))
        if present is not None:
            self._judge(present)
        self._looked = time.monotonic()

    def _judge(self, present: dict[str, Machine]) -> None:
        if self._own_node not in present:  # tasks are submitted through it, and it does not come back
            self.is_lost = True
            raise ClusterLostError(stopped("it takes this machine for lost"))
        if self._can_run(list(present.values())):
            self._had_machines, self._alone_since = True, None
        elif not self._had_machines:  # the first ones may be on their way
            return
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
            self._say(f"note: the cluster has lost its machines with {self._needs}; waiting five minutes for others")
        elif time.monotonic() - self._alone_since > _SECONDS_WITHOUT_MACHINES:
            raise LongtailError(stopped(f"it has lost its machines with {self._needs}"))


def machines(ray: Any) -> list[Machine]:
    """Return what each machine of a cluster has."""
    return list(_nodes(ray).values())


def _nodes(ray: Any) -> dict[str, Machine]:
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _nodes_in_time(ray: Any) -> dict[str, Machine] | None:
    """Return what each node has by its ID, or None where the head takes the question and does not answer for a while.

    Ray waits for the answer without end, and without hearing Ctrl-C.
    """
    answer: queue.Queue[dict[str, Machine] | None] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(_nodes(ray))
        except Exception:  # Ray has many; an error is no answer either
            answer.put(None)

    threading.Thread(target=ask, daemon=True).start()
    with suppress(queue.Empty):
        return answer.get(timeout=_SECONDS_TO_ANSWER)
    return None


class Board:
    """What tasks of a cluster tell the command that has submitted them.

    Example:
        >>> board = Board()
        >>> board.add("a task has begun")
        >>> board.take(), board.take()
        (['a task has begun'], [])
    """

    def __init__(self) -> None:
        self._news: list[Any] = []

    def add(self, news: Any) -> None:
        """Tell something."""
        self._news.append(news)

    def take(self) -> list[Any]:
        """Return what was told since the last call."""
        news, self._news = self._news, []
        return news


def board_of(ray: Any) -> Any:
    """Start a :class:`Board` as an actor on the machine of this process, where it lives as long as the command.

    If its process is lost, Ray starts another one, without the news of before.
    """
    affinity = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    here = affinity(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Board).remote()


def failed(reason: object) -> str:
    """Return what to do after Ray has given up something.

    Example:
        >>> failed("the object store is full")
        'Ray failed (the object store is full): repeat the command; what is finished is kept.'
    """
    return f"Ray failed ({reason}): repeat the command; what is finished is kept."


def stopped(reason: object) -> str:
    """Return what to do after a cluster has stopped.

    Example:
        >>> stopped("its head does not answer")
        'the Ray cluster has stopped (its head does not answer): repeat the command; what is finished is kept.'
    """
    return f"the Ray cluster has stopped ({reason}): repeat the command; what is finished is kept."
