"""What a person sees while a grid is trained: one line per running run on a terminal, plain lines elsewhere."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from longtail.config.schema import StageConfig
from longtail.console import Reporter
from longtail.experiments.grid_plan import PlannedRun
from longtail.run.folder import HISTORY_FILE

PLAIN_SECONDS = 60.0


class GridView:
    """Shows how far a grid is; to be used in a ``with`` statement.

    Args:
        reporter: Where to write.
        total: Runs of the grid.
        finished: How many of them are finished already.
    """

    def __init__(self, reporter: Reporter, total: int, finished: int) -> None:
        self.reporter = reporter
        self.total = total
        self.finished = finished
        self.failed = 0
        self._runs: Sequence[PlannedRun] = ()
        self._begun: dict[Path, float] = {}
        self._last_lines = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> GridView:
        console = self.reporter.console
        if console.is_terminal and not self.reporter.quiet:
            self._live = Live(console=console, transient=True, refresh_per_second=2, get_renderable=self._table)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, run: PlannedRun) -> None:
        """Say that a run is trained from now on."""
        self._begun[run.folder] = time.monotonic()
        self.reporter.say(f"{run.title}: training")

    def ended(self, run: PlannedRun, problem: str) -> None:
        """Say how a run ended."""
        if problem:
            self.failed += 1
            self.reporter.say(f"{run.title}: failed: {problem}")
        else:
            self.finished += 1
            seconds = time.monotonic() - self._begun[run.folder]
            self.reporter.say(f"{run.title}: finished in {seconds:.0f} s; {self._count()}")

    def stopping(self) -> None:
        """Say that the runs are asked to stop."""
        self.reporter.say("stopping: each run finishes its step and saves; Ctrl-C once more stops at once")

    def show(self, runs: Sequence[PlannedRun]) -> None:
        """Show how far the running ones are."""
        self._runs = runs
        if self._live is None and time.monotonic() - self._last_lines >= PLAIN_SECONDS:
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
    """How far a run is, by the last line of its history."""
    path = run.folder / HISTORY_FILE
    if not path.is_file():
        return "starting"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return "starting"
    row = rows[-1]
    stage: StageConfig = run.config.stage1 if row["stage"] == "1" else run.config.stage2
    return (
        f"stage {row['stage']}, epoch {row['epoch']}/{stage.epochs}, loss {float(row['train_loss']):.3f}, "
        f"{float(row['images_per_second']):,.0f} images/s"
    )
