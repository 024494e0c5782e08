"""The console: messages for the user, and progress bars on a terminal that are plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Messages and progress bars for the user; silent on all processes except the first.

    Args:
        console: Where to write; standard error when not given, so that standard output stays for results.
        quiet: Write nothing.
        plain_seconds: On something that is not a terminal, at most one line in this many seconds.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False, plain_seconds: float = 10.0) -> None:
        self.console = console if console is not None else Console(stderr=True, quiet=quiet)
        self.quiet = quiet
        self.plain_seconds = plain_seconds

    def say(self, text: str) -> None:
        """Write one line."""
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def bar(self, title: str, total: int | None) -> Bar:
        """Return a progress bar to use in a ``with`` statement; ``total`` is None if it is unknown."""
        return Bar(self, title, total)


class Bar:
    """A progress bar on a terminal; elsewhere a line now and then. Made by :meth:`Reporter.bar`."""

    def __init__(self, reporter: Reporter, title: str, total: int | None) -> None:
        self.reporter = reporter
        self.title = title
        self.total = None if total is None else max(total, 1)
        self.done = 0
        self._last_line = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        if self.reporter.console.is_terminal and not self.reporter.quiet:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.reporter.console,
                transient=True,
            )
            self._progress.add_task(self.title, total=self.total, note="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, note: str = "") -> None:
        """Set how far it is, with a short note next to the bar."""
        self.done = done
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done, note=note)
        elif time.monotonic() - self._last_line >= self.reporter.plain_seconds:
            self._last_line = time.monotonic()
            count = f"{done}" if self.total is None else f"{done}/{self.total}"
            self.reporter.say(f"{self.title} {count} {note}".rstrip())

    def tick(self) -> None:
        """Advance by one."""
        self.update(self.done + 1)
