"""Trains the runs of a grid in processes of their own: so many at once, whatever stops or fails beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from longtail.console import Reporter
from longtail.cores import JOBS, cores
from longtail.errors import UsageError
from longtail.experiments.grid_plan import Grid, PlannedRun, state_of
from longtail.experiments.grid_view import GridView
from longtail.run.folder import CONFIG_FILE, GRID_FILE, log_file
from longtail.run.write import write_yaml
from longtail.training.interrupt import Interrupted, InterruptGuard

LOOK_SECONDS = 0.2
# Several small runs share one GPU, as none of them keeps it busy; large ones would only take each other's memory.
SMALL_IMAGE, GPU_JOBS, GPU_BYTES = 64, 6, 4 * 2**30

Command = Callable[[PlannedRun], list[str]]


@dataclass(frozen=True)
class Outcome:
    """How a run of the grid ended; ``problem`` is empty where it is finished, else one sentence."""

    run: PlannedRun
    problem: str = ""


def run_grid(
    grid: Grid, reporter: Reporter, *, jobs: int | None = None, command: Command | None = None
) -> list[Outcome]:
    """Train what is not finished; a run that was started goes on from its checkpoint.

    Args:
        grid: The planned grid.
        reporter: Tells the user what happens.
        jobs: Runs at once; None takes :func:`default_jobs`.
        command: The words that train a run, whose folder holds its configuration by then; :func:`train_words` when not
            given.

    Returns:
        One outcome per run, in the order of the grid. A run that fails does not stop the others.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the runs that were going on have saved their checkpoints.
        LongtailError: A folder holds another run, or ``jobs`` is below one.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {jobs}.")
    todo = [run for run in grid.runs if state_of(run) != "finished"]  # every folder is looked at before one is written
    if grid.spec:  # the folds of one configuration have none: its config.yaml says all
        write_yaml(grid.out / GRID_FILE, grid.spec)
    if len(todo) < len(grid.runs):
        reporter.say(f"{len(grid.runs) - len(todo)} of {len(grid.runs)} runs are finished already")
    at_once = max(1, min(jobs or default_jobs(todo), len(todo)))
    problems: dict[Path, str] = {}
    with GridView(reporter, len(grid.runs), len(grid.runs) - len(todo)) as view:
        _train(todo, at_once, command or train_words, view, problems)
    return [Outcome(run, problems.get(run.folder, "")) for run in grid.runs]


def train_words(run: PlannedRun) -> list[str]:
    """The words of the process that trains a run, from its start or from its checkpoint."""
    lock = run.folder.with_name(f".{run.folder.name}.lock")
    return [sys.executable, "-m", "longtail.worker", str(lock), "train", "--resume", str(run.folder)]


def default_jobs(runs: Sequence[PlannedRun]) -> int:
    """How many runs to train at once: one on a CPU; on a GPU up to six where images and thus runs are small.

    Small means at most 64 pixels, and half of the GPU's free memory has to hold 4 GiB for each.

    Example:
        >>> default_jobs([])
        1
    """
    if not runs or max(run.config.data.image_size for run in runs) > SMALL_IMAGE:
        return 1
    from longtail.device import is_accelerator, memory_budget
    from longtail.training.engine import Engine

    device = Engine(runs[0].config.training).device
    if not is_accelerator(device):
        return 1
    return max(1, min(GPU_JOBS, int(memory_budget(device) // GPU_BYTES)))


def _train(
    todo: Sequence[PlannedRun], jobs: int, command: Command, view: GridView,
    problems: dict[Path, str],
) -> None:  # fmt: skip
    waiting, active, stopping = list(todo), list[_Worker](), False
    with InterruptGuard() as guard:
        try:
            while active or (waiting and not stopping):
                if guard.requested and not stopping:
                    stopping = True
                    view.stopping()
                    for worker in active:
                        worker.stop()
                while waiting and len(active) < jobs and not stopping:
                    active.append(_Worker(waiting.pop(0), command, jobs))
                    view.started(active[-1].run)
                time.sleep(LOOK_SECONDS)
                for worker in [worker for worker in active if worker.has_ended]:
                    active.remove(worker)
                    problem = worker.problem()
                    if problem and stopping:  # it was told to
                        waiting.append(worker.run)
                        continue
                    if problem:
                        problems[worker.run.folder] = problem
                    view.ended(worker.run, problem)
                view.show([worker.run for worker in active])
        finally:
            for worker in active:  # a second Ctrl-C, or an error of ours
                worker.kill()
    if waiting:
        raise Interrupted


class _Worker:
    """The process that trains one run."""

    def __init__(self, run: PlannedRun, command: Command, jobs: int) -> None:
        self.run = run
        # Options of speed may have changed since the run was started; the others are the same.
        write_yaml(run.folder / CONFIG_FILE, asdict(run.config))
        self._log = log_file(run.folder)
        with self._log.open("ab") as log:
            self._begin = log.tell()
            # A group of its own: Ctrl-C reaches the grid alone, which then tells its workers. They stop by themselves
            # when their standard input closes, as it does when the grid is killed.
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                command(run), stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment(jobs),
                start_new_session=True,
            )  # fmt: skip

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask it to save and stop."""
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def problem(self) -> str:
        """Why it failed, in one sentence; empty where it did not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.returncode
        if status == 0:
            return ""
        said = self._log.read_bytes()[self._begin :].decode(errors="replace").splitlines()
        ours = [line.removeprefix("longtail: ") for line in said if line.startswith("longtail: ")]
        if ours:
            return ours[-1]
        if status < 0:
            return f"its process was killed by signal {-status}, perhaps for want of memory: try fewer --jobs."
        last = next((line.strip() for line in reversed(said) if line.strip()), f"it ended with status {status}")
        return f"{last} (all that it said is in {self._log})"


def _environment(jobs: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # its output is a file
    if jobs == 1:
        return kept
    threads = max(1, cores() // jobs)
    asked = kept.get("OMP_NUM_THREADS", "")
    return kept | {"OMP_NUM_THREADS": str(min(threads, int(asked)) if asked.isdigit() else threads), JOBS: str(jobs)}
