"""Train the runs of a grid, each in its own process, several at once; one that fails does not stop the others."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from longtail.console import Interrupted, InterruptGuard, Reporter
from longtail.device import JOBS, accelerator_name, cores, memory_budget
from longtail.experiments.grid_plan import Grid, PlannedRun, state_of
from longtail.run.layout import lock_file, log_file, write_config, write_grid
from longtail.run.tables import read_history

POLL_SECONDS = 0.2
PLAIN_SECONDS = 60.0
# Several small runs share one GPU, as none of them keeps it busy; large ones would only take each other's memory.
SMALL_IMAGE, GPU_JOBS, GPU_BYTES = 64, 6, 4 * 2**30

Command = Callable[[PlannedRun], list[str]]


class GridView:
    """The progress of a grid, to be used in a ``with`` statement: a line per run on a terminal, plain lines elsewhere.

    Args:
        reporter: Receives the messages.
        total: Runs of the grid.
        finished: Number of them that are finished already.
    """

    def __init__(self, reporter: Reporter, total: int, finished: int) -> None:
        self.reporter = reporter
        self.total = total
        self.finished = finished
        self.failed = 0
        self._runs: Sequence[PlannedRun] = ()
        self._begun: dict[Path, float] = {}
        self._last_lines = time.monotonic()
        console = reporter.console
        self._live = Live(console=console, transient=True, refresh_per_second=2, get_renderable=self._table)

    def __enter__(self) -> GridView:
        if self.reporter.console.is_terminal and not self.reporter.quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, run: PlannedRun) -> None:
        """Report that the training of a run begins."""
        self._begun[run.folder] = time.monotonic()
        self.reporter.say(f"{run.title}: training")

    def ended(self, run: PlannedRun, problem: str) -> None:
        """Report the end of a run."""
        if problem:
            self.failed += 1
            self.reporter.say(f"{run.title}: failed: {problem}")
        else:
            self.finished += 1
            seconds = time.monotonic() - self._begun[run.folder]
            self.reporter.say(f"{run.title}: finished in {seconds:.0f} s; {self._count()}")

    def show(self, runs: Sequence[PlannedRun]) -> None:
        """Show the progress of the active runs."""
        self._runs = runs
        if not self._live.is_started and time.monotonic() - self._last_lines >= PLAIN_SECONDS:
            self._last_lines = time.monotonic()
            for run in runs:
                self.reporter.say(f"{run.title}: {progress_of(run)}")

    def _count(self) -> str:
        return f"{self.finished} of {self.total} runs finished" + (f", {self.failed} failed" if self.failed else "")

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for run in self._runs:
            table.add_row(run.title, progress_of(run))
        table.add_row(self._count(), "")
        return table


def progress_of(run: PlannedRun) -> str:
    """Return the progress of a run, by the last line of its history."""
    epochs = read_history(run.folder)
    if not epochs:
        return "starting"
    last = epochs[-1]
    stage = run.config.stages[last.stage]
    return (
        f"stage {last.stage}, epoch {last.epoch}/{stage.epochs}, "
        f"loss {math.nan if last.train_loss is None else last.train_loss:.3f}, "
        f"{last.images_per_second or math.nan:,.0f} images/s"
    )


def run_grid(
    grid: Grid, reporter: Reporter, *, jobs: int | None = None, command: Command | None = None
) -> dict[Path, str]:
    """Train the runs that are not finished; a run that was started continues from its checkpoint.

    Args:
        grid: The planned grid.
        reporter: Shows the progress.
        jobs: Runs at once; None takes :func:`default_jobs`.
        command: Returns the command that trains a run, whose folder holds its configuration by then;
            :func:`train_command` when not given.

    Returns:
        The problem of each run that failed, in a sentence, by its folder. A run that fails does not stop the others.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the active runs have saved their checkpoints.
        LongtailError: A folder holds another run.
    """
    todo = [run for run in grid.runs if state_of(run) != "finished"]  # every folder is checked before one is written
    if grid.spec:  # the folds of one configuration have none
        write_grid(grid.out, grid.spec)
    if len(todo) < len(grid.runs):
        reporter.say(f"{len(grid.runs) - len(todo)} of {len(grid.runs)} runs are finished already")
    at_once = max(1, min(jobs or default_jobs(todo), len(todo)))
    with GridView(reporter, len(grid.runs), len(grid.runs) - len(todo)) as view:
        return _train(todo, at_once, command or train_command, view)


def train_command(run: PlannedRun) -> list[str]:
    """Return the command that trains a run, from its start or from its checkpoint."""
    lock = str(lock_file(run.folder))
    return [sys.executable, "-m", "longtail", "--grid-lock", lock, "train", "--resume", str(run.folder)]


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


def _train(todo: Sequence[PlannedRun], jobs: int, command: Command, view: GridView) -> dict[Path, str]:
    waiting, active, problems, stopping = list(todo), list[_Worker](), dict[Path, str](), False
    with InterruptGuard() as guard:
        try:
            while active or (waiting and not stopping):
                if guard.requested and not stopping:
                    stopping = True
                    view.reporter.say("stopping: each run finishes its step and saves; Ctrl-C once more stops at once")
                    for worker in active:
                        worker.stop()
                while waiting and len(active) < jobs and not stopping:
                    active.append(_Worker(waiting.pop(0), command, jobs))
                    view.started(active[-1].run)
                time.sleep(POLL_SECONDS)
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
    return problems


class _Worker:
    """The process that trains one run."""

    def __init__(self, run: PlannedRun, command: Command, jobs: int) -> None:
        self.run = run
        # Options of speed may have changed since the run was started; the others are the same.
        write_config(run.folder, run.config)
        self._log = log_file(run.folder)
        with self._log.open("ab") as log:
            self._begin = log.tell()
            # A group of its own: Ctrl-C reaches the grid alone, which then tells its workers. They stop by themselves
            # when their standard input closes, as it does when the grid is killed.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command(run),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(jobs),
                start_new_session=True,
            )

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
        """Return the reason of its failure in one sentence; empty where it did not fail."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.returncode
        if status == 0:
            return ""
        output = self._log.read_bytes()[self._begin :].decode(errors="replace").splitlines()
        messages = [line.removeprefix("longtail: ") for line in output if line.startswith("longtail: ")]
        if messages:
            return messages[-1]
        if status < 0:
            return f"its process was killed by signal {-status}, perhaps for want of memory: try fewer --jobs."
        last = next((line.strip() for line in reversed(output) if line.strip()), f"it ended with status {status}")
        return f"{last} (its output is in {self._log})"


def _environment(jobs: int) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # its output is a file
    if jobs > 1:
        threads = max(1, cores() // jobs)
        limit = environment.get("OMP_NUM_THREADS", "")
        environment["OMP_NUM_THREADS"] = str(min(threads, int(limit)) if limit.isdigit() else threads)
        environment[JOBS] = str(jobs)
    return environment
