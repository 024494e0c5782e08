"""Train the runs of a grid, each in its own process, several at once; one that fails does not stop the others."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol, Self, TypeAlias

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
        if pool is not None:
            return _train(todo, pool, view)
        with LocalPool(max(1, min(jobs or default_jobs(todo), len(todo))), command or train_command) as local:
            return _train(todo, local, view)


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
    """Processes of this machine, some at once; to be used in a ``with`` statement.

    Args:
        jobs: Runs at once.
        command: Returns the command that trains a run.
    """

    def __init__(self, jobs: int, command: Command) -> None:
        self._command, self._environment = command, shared_environment(jobs)
        self._threads = ThreadPoolExecutor(jobs)  # each waits for one process
        self._runs: dict[Future[str], PlannedRun] = {}
        self._active: list[RunProcess] = []
        self._begun: queue.SimpleQueue[PlannedRun] = queue.SimpleQueue()
        self._stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Train runs."""
        self._runs |= {self._threads.submit(self._train, run): run for run in runs}

    def _train(self, run: PlannedRun) -> str:
        process = RunProcess(run, self._command(run), self._environment)
        self._active.append(process)
        self._begun.put(run)
        if self._stopping:  # between its start and its entry
            process.stop()
        try:
            return process.wait()
        finally:
            self._active.remove(process)

    def begun(self) -> Begun:
        """Return the runs that have begun."""
        return [(self._begun.get(), "") for _ in range(self._begun.qsize())]

    def ended(self) -> Ended:
        """Return the runs that have ended."""
        done = [future for future in self._runs if future.cancelled()]  # which a wait does not see
        done = done or list(wait(self._runs, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done)
        return [(self._runs.pop(future), _problem(future)) for future in done]

    def stop(self) -> None:
        """Ask the active runs to save and stop."""
        self._stopping = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._active):
            process.stop()

    def kill(self) -> None:
        """End the active processes at once."""
        self.stop()
        for process in list(self._active):
            process.kill()


def _problem(future: Future[str]) -> str | None:
    try:
        return future.result()
    except CancelledError:
        return None
    except (LongtailError, OSError) as error:  # its folder or log cannot be written, or no process was to be had
        return str(error)
