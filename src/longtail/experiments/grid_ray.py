"""RayPool: the runs of a grid on the machines of a Ray cluster, each a task with the resources that it states."""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from longtail.console import Reporter
from longtail.device import cores
from longtail.errors import LongtailError, first_line
from longtail.experiments.grid_plan import PlannedRun, state_of
from longtail.experiments.grid_process import RunProcess, shared_environment, train_command
from longtail.experiments.grid_runner import POLL_SECONDS, SMALL_IMAGE, Begun, Command, Ended
from longtail.ray_cluster import Machine, Watch, board_of, connected, machines
from longtail.run.layout import METRICS_FILE

RETRIES: Final = 20
"""How often a run goes on elsewhere after its machine, or the process that watches over it, was lost."""
_SMALL_SHARE: Final = 0.25  # of a GPU, for runs on small images
_PATIENCE: Final = 10.0  # seconds for the result of a task that has ended


@dataclass(frozen=True)
class Resources:
    """What a run takes of a machine.

    Attributes:
        cpus: Cores, which are its threads too.
        gpus: Share of a GPU, 0 to 1.
    """

    cpus: int
    gpus: float

    def __str__(self) -> str:
        """Return it in words.

        Example:
            >>> str(Resources(2, 0.25)), str(Resources(1, 0))
            ('2 cores and 0.25 GPU', '1 core')
        """
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus} core{'s' * (self.cpus != 1)}{gpus}"

    def fits(self, machine: Machine) -> bool:
        """Whether a machine has that much."""
        return machine.get("CPU", 0) >= self.cpus and machine.get("GPU", 0) >= self.gpus


def choose_resources(
    runs: Sequence[PlannedRun], machines: Sequence[Machine], cpus: int | None, gpus: float | None
) -> Resources:
    """Return what each run takes of a machine, where that is not asked for.

    One core without GPUs. With GPUs, unless all runs are on CPUs: a GPU, or a quarter of one where no image is larger
    than 64 pixels; and of the cores next to a GPU the same share, by the machine that has the fewest.

    Args:
        runs: The runs.
        machines: What each machine of the cluster has: ``CPU`` and ``GPU``.
        cpus: Cores that were asked for.
        gpus: GPUs that were asked for.

    Example:
        >>> choose_resources([], [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], None, 0.5)
        Resources(cpus=2, gpus=0.5)
    """
    with_gpus = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    if gpus is None:
        is_small = all(run.config.data.image_size <= SMALL_IMAGE for run in runs)
        is_on_cpu = all(run.config.training.device == "cpu" for run in runs)
        gpus = 0.0 if is_on_cpu or not with_gpus else _SMALL_SHARE if is_small else 1.0
    if cpus is None:
        shares = [machine.get("CPU", 1) / machine["GPU"] * gpus for machine in with_gpus if gpus]
        cpus = max(1, math.floor(min(shares, default=1)))
    return Resources(cpus, gpus)


@contextmanager
def ray_pool(
    address: str,
    reporter: Reporter,
    *,
    cpus: int | None = None,
    gpus: float | None = None,
    command: Command = train_command,
) -> Iterator[RayPool]:
    """Connect to a Ray cluster, and give the pool of its machines.

    Args:
        address: As for :func:`longtail.ray_cluster.connected`.
        reporter: Receives what the user should know.
        cpus: Cores of a run; None takes :func:`choose_resources`.
        gpus: Share of a GPU of a run; None takes that too.
        command: Returns the command that trains a run.

    Raises:
        LongtailError: Ray is not installed, or there is no such cluster.
    """
    with connected(address) as ray:
        pool = RayPool(ray, reporter, cpus=cpus, gpus=gpus, command=command, can_grow=bool(address))
        yield pool
        pool.close()


class RayPool:
    """The machines of a Ray cluster. The folders of the runs are the same for all of them, and longtail is installed.

    Args:
        ray: The module, connected.
        reporter: Receives what the user should know.
        cpus: Cores of a run, if asked for.
        gpus: Share of a GPU of a run, if asked for.
        command: Returns the command that trains a run.
        can_grow: Whether machines may be added that have more than those of now.
    """

    def __init__(
        self,
        ray: Any,
        reporter: Reporter,
        *,
        cpus: int | None = None,
        gpus: float | None = None,
        command: Command = train_command,
        can_grow: bool = True,
    ) -> None:
        self._ray, self._reporter, self._cpus, self._gpus = ray, reporter, cpus, gpus
        self._command, self._can_grow = command, can_grow
        self._watch: Watch | None = None
        self._board = board_of(ray)
        self._news: Any = None  # what the board is being asked for
        self._tasks: dict[Any, PlannedRun] = {}
        self._runs: list[PlannedRun] = []
        self._is_one_machine = True

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Train runs.

        Raises:
            LongtailError: No machine has what they take, and none can be added.
        """
        present = machines(self._ray)
        needs = choose_resources(runs, present, self._cpus, self._gpus)

        def can_run(machines: list[Machine]) -> bool:
            return any(map(needs.fits, machines))

        if not self._can_grow and not can_run(present):
            raise LongtailError(f"this machine does not have {needs} for a run: lower --run-cpus or --run-gpus.")
        self._is_one_machine = len(present) == 1 and not self._can_grow
        self._watch = Watch(self._ray, can_run, f"{needs} for a run", self._reporter.say)
        train = self._ray.remote(
            num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"
        )(_train)
        for run in runs:
            absolute = replace(run, folder=run.folder.absolute())
            self._tasks[train.remote(absolute, len(self._runs), self._board, self._command, needs.cpus)] = run
            self._runs.append(run)
        self._reporter.say(f"{len(runs)} runs on the Ray cluster, {needs} each")

    def begun(self) -> Begun:
        """Return the runs that have begun, with the names of their machines where there are several."""
        self._news = self._news or self._board.take.remote()
        if not self._ray.wait([self._news], timeout=0)[0]:
            return []
        asked, self._news = self._news, None
        try:
            begun = self._ray.get(asked)
        except self._ray.exceptions.RayError:  # the board was lost: Ray starts another one, and only the view has a gap
            return []
        return [(self._runs[number], "" if self._is_one_machine else machine) for number, machine in begun]

    def ended(self) -> Ended:
        """Return the runs that have ended.

        Raises:
            LongtailError: The cluster is lost, or has no machine left that has what the runs need.
        """
        tasks = list(self._tasks)
        done, _ = self._ray.wait(tasks, num_returns=min(1, len(tasks)), timeout=POLL_SECONDS)
        if self._watch:
            self._watch.check()
        return [(run := self._tasks.pop(task), self._problem(task, run)) for task in done]

    def _problem(self, task: Any, run: PlannedRun) -> str | None:
        try:
            problem = str(self._ray.get(task, timeout=_PATIENCE))
            if not problem and not any(path.name == METRICS_FILE for path in _listed(run.folder)):
                return f"it finished, and {run.folder} is not here: --out is a folder that all machines share."
            return problem
        except self._ray.exceptions.TaskCancelledError:
            return None
        except (self._ray.exceptions.NodeDiedError, self._ray.exceptions.WorkerCrashedError) as error:
            return f"its machine was lost {RETRIES} times ({first_line(error)}): repeat the command."
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            return str(cause) if isinstance(cause, LongtailError) else f"its task failed: {first_line(cause or error)}"

    def stop(self) -> None:
        """Ask the active runs to save and stop: Ray raises KeyboardInterrupt in their tasks."""
        for task in self._tasks:
            self._ray.cancel(task)

    def kill(self) -> None:
        """End the tasks at once; the processes of their runs save and stop when they notice."""
        if self._watch and self._watch.is_lost:
            return
        with suppress(self._ray.exceptions.RayError):
            for task in self._tasks:
                self._ray.cancel(task, force=True)

    def close(self) -> None:
        """Leave nothing in the cluster."""
        self._ray.kill(self._board)


def _listed(folder: Path) -> list[Path]:
    """List a folder; unlike asking for a file, that asks the server of a shared folder again."""
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _train(run: PlannedRun, number: int, board: Any, command: Command, cpus: int) -> str:
    """Train a run in a process of its own, and return the reason of its failure: the task, on some machine."""
    # Processes that a script has begun in the background ignore SIGINT, and Ray's cancel does nothing in them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    board.add.remote((number, socket.gethostname()))
    if not Path(run.folder.parent.parent).is_dir():
        return f"{socket.gethostname()} has no folder {run.folder.parent.parent}: --out is the same on every machine."
    if state_of(run) == "finished":  # its machine was lost before it could tell
        return ""
    process = RunProcess(run, command(run), shared_environment(max(1, cores() // cpus), cpus))
    try:
        while not process.has_ended:  # a wait would not be interrupted
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:  # of Ray's cancel
        process.stop()
        process.wait()
        raise
    return process.wait()
