"""Train the runs of a grid, each in its own process, several at once; one that fails does not stop the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from longtail.console import Interrupted, InterruptGuard, Reporter
from longtail.device import accelerator_name, memory_budget
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import Grid, PlannedRun, state_of
from longtail.experiments.grid_process import RunProcess, shared_environment, train_command
from longtail.experiments.grid_view import GridView
from longtail.run.layout import write_grid

POLL_SECONDS = 0.2
# Several small runs share one GPU, as none of them keeps it busy; large ones would only take each other's memory.
SMALL_IMAGE, GPU_JOBS, GPU_BYTES = 64, 6, 4 * 2**30

Command: TypeAlias = Callable[[PlannedRun], list[str]]
Begun: TypeAlias = list[tuple[PlannedRun, str]]
"""Runs that have begun, each with the machine that trains it; empty where that is this one."""
Ended: TypeAlias = list[tuple[PlannedRun, str | None]]
"""Runs that have ended, each with the reason of its failure: empty if it finished, None if it was stopped."""


class Pool(Protocol):
    """What trains runs: processes of this machine, or of the machines of a cluster."""

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Train runs, in this order, as soon as there is room."""

    def begun(self) -> Begun:
        """Return the runs that have begun since the last call; one of them again if it was begun again."""

    def ended(self) -> Ended:
        """Return the runs that have ended since the last call; wait a moment if there are none."""

    def stop(self) -> None:
        """Ask the active runs to save and stop, and begin no others."""

    def kill(self) -> None:
        """End what is active at once."""


def run_grid(
    grid: Grid,
    reporter: Reporter,
    *,
    jobs: int | None = None,
    command: Command | None = None,
    pool: Pool | None = None,
) -> dict[Path, str]:
    """Train the runs that are not finished; a run that was started continues from its checkpoint.

    Args:
        grid: The planned grid.
        reporter: Shows the progress.
        jobs: Runs at once on this machine; None takes :func:`default_jobs`.
        command: Returns the command that trains a run, whose folder holds its configuration by then;
            :func:`~longtail.experiments.grid_process.train_command` when not given.
        pool: What trains the runs; processes of this machine when not given.

    Returns:
        The problem of each run that failed, in a sentence, by its folder. A run that fails does not stop the others.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the active runs have saved their checkpoints.
        LongtailError: A folder holds another run, or a cluster was lost.
    """
    todo = [run for run in grid.runs if state_of(run) != "finished"]  # every folder is checked before one is written
    if grid.spec:  # the folds of one configuration have none
        write_grid(grid.out, grid.spec)
    if len(todo) < len(grid.runs):
        reporter.say(f"{len(grid.runs) - len(todo)} of {len(grid.runs)} runs are finished already")
    with GridView(reporter, len(grid.runs), len(grid.runs) - len(todo)) as view:
        if pool is None:
            pool = LocalPool(max(1, min(jobs or default_jobs(todo), len(todo))), command or train_command)
        return _train(todo, pool, view)


def default_jobs(runs: Sequence[PlannedRun]) -> int:
    """Return the number of runs to train at once: one on a CPU; on a GPU up to six where images and runs are small.

    Small means at most 64 pixels, and half of the GPU's free memory has to hold 4 GiB for each.

    Example:
        >>> default_jobs([])
        1
    """
    if not runs or max(run.config.data.image_size for run in runs) > SMALL_IMAGE:
        return 1
    from longtail.training.engine import Engine

    device = Engine(runs[0].config.training).device
    jobs = int(memory_budget(device) // GPU_BYTES) if accelerator_name(device) else 1
    return max(1, min(GPU_JOBS, jobs))


def _train(todo: Sequence[PlannedRun], pool: Pool, view: GridView) -> dict[Path, str]:
    left, stopped, problems, stopping = {run.folder for run in todo}, 0, dict[Path, str](), False
    with InterruptGuard() as guard:
        try:
            pool.submit(todo)
            while left:
                if guard.requested and not stopping:
                    stopping = True
                    view.reporter.say("stopping: each run finishes its step and saves; Ctrl-C once more stops at once")
                    pool.stop()
                ended = pool.ended()
                for run, machine in pool.begun():
                    if run.folder in left:  # a cluster may tell late
                        view.started(run, machine)
                for run, problem in ended:
                    left.remove(run.folder)
                    was_stopped = problem is None or (stopping and bool(problem))  # it was told to
                    view.ended(run, None if was_stopped else problem)
                    stopped += was_stopped
                    if problem and not was_stopped:
                        problems[run.folder] = problem
                view.show()
        finally:
            if left:  # a second Ctrl-C, or an error of ours
                pool.kill()
    if stopped:
        raise Interrupted
    return problems


class LocalPool:
    """Processes of this machine, some at once.

    Args:
        jobs: Runs at once.
        command: Returns the command that trains a run.
    """

    def __init__(self, jobs: int, command: Command) -> None:
        self._jobs, self._command, self._environment = jobs, command, shared_environment(jobs)
        self._waiting: deque[PlannedRun] = deque()
        self._active: list[RunProcess] = []
        self._begun: Begun = []
        self._ended: Ended = []

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Train runs."""
        self._waiting.extend(runs)

    def begun(self) -> Begun:
        """Return the runs that have begun."""
        begun, self._begun = self._begun, []
        return begun

    def ended(self) -> Ended:
        """Begin runs for which there is room, and return those that have ended."""
        while self._waiting and len(self._active) < self._jobs:
            run = self._waiting.popleft()
            try:
                self._active.append(RunProcess(run, self._command(run), self._environment))
                self._begun.append((run, ""))
            except (LongtailError, OSError) as error:  # its log cannot be written, or no process was to be had
                self._ended.append((run, str(error)))
        for process in [process for process in self._active if process.has_ended]:
            self._active.remove(process)
            self._ended.append((process.run, process.wait()))
        if not self._ended:
            time.sleep(POLL_SECONDS)
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Ask the active runs to save and stop."""
        self._ended += [(run, None) for run in self._waiting]
        self._waiting.clear()
        for process in self._active:
            process.stop()

    def kill(self) -> None:
        """End the active processes at once."""
        for process in self._active:
            process.kill()
