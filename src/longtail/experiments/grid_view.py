"""GridView: the progress of a grid, one line a run on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from pathlib import Path

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import PlannedRun
from longtail.formatting import duration
from longtail.run.tables import read_history

PLAIN_SECONDS = 60.0


class GridView:
    """The progress of a grid, to be used in a ``with`` statement.

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
        self._active: dict[Path, tuple[PlannedRun, str, float]] = {}
        self._last_lines = time.monotonic()
        console = reporter.console
        self._live = Live(console=console, transient=True, refresh_per_second=2, get_renderable=self._table)

    def __enter__(self) -> GridView:
        if self.reporter.console.is_terminal and not self.reporter.quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, run: PlannedRun, machine: str = "") -> None:
        """Report that the training of a run begins, or that another machine goes on with it.

        Args:
            run: The run.
            machine: Name of the machine, if there are several.
        """
        where = f" on {machine}" if machine else ""
        if run.folder in self._active:
            _, before, begun = self._active[run.folder]
            lost = f" (its process on {before} was lost)" if before else " (its process was lost)"
            self.reporter.say(f"{run.title}: going on{where}{lost}")
        else:
            begun = time.monotonic()
            self.reporter.say(f"{run.title}: training{where}")
        self._active[run.folder] = (run, machine, begun)

    def ended(self, run: PlannedRun, problem: str | None) -> None:
        """Report the end of a run.

        Args:
            run: The run.
            problem: The reason of its failure, empty where it did not fail; None for a run that was stopped.
        """
        _, _, begun = self._active.pop(run.folder, (run, "", time.monotonic()))
        if problem:
            self.failed += 1
            self.reporter.say(f"{run.title}: failed: {problem}")
        elif problem is not None:
            self.finished += 1
            self.reporter.say(f"{run.title}: finished in {duration(time.monotonic() - begun)}; {self._count()}")

    def show(self) -> None:
        """Show the progress of the active runs."""
        if not self._live.is_started and time.monotonic() - self._last_lines >= PLAIN_SECONDS:
            self._last_lines = time.monotonic()
            for run, machine, _ in self._active.values():
                self.reporter.say(f"{run.title}{f' on {machine}' if machine else ''}: {progress_of(run)}")

    def _count(self) -> str:
        return f"{self.finished} of {self.total} runs finished" + (f", {self.failed} failed" if self.failed else "")

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for run, machine, _ in list(self._active.values()):  # drawn by a thread
            table.add_row(run.title, machine, progress_of(run))
        table.add_row(self._count(), "", "")
        return table


def progress_of(run: PlannedRun) -> str:
    """Return the progress of a run, by the last line of its history."""
    try:
        epochs = read_history(run.folder)
    except LongtailError:  # a file server fails now and then, which stops no run
        epochs = ()
    if not epochs:
        return "starting"
    last = epochs[-1]
    stage = None if run.config.is_open else run.config.stages.get(last.stage)  # an open run chooses its stages itself
    return (
        f"stage {last.stage}, epoch {last.epoch}{f'/{stage.epochs}' if stage else ''}, "
        f"loss {math.nan if last.train_loss is None else last.train_loss:.3f}, "
        f"{last.images_per_second or math.nan:,.0f} images/s"
    )
