"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Reporter:
    """Tells the user what happens; silent on all processes but the first.

    Args:
        console: Where to write; standard error when not given, so that standard output stays for results.
        quiet: Write nothing.
        plain_seconds: On something that is not a terminal, at most one line in so many seconds.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False, plain_seconds: float = 10.0) -> None:
        self.console = console if console is not None else Console(stderr=True, quiet=quiet)
        self.quiet = quiet
        self.plain_seconds = plain_seconds

    def say(self, text: str) -> None:
        """Write one line."""
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def bar(self, title: str, total: int) -> Bar:
        """Return a progress bar to use in a ``with`` statement."""
        return Bar(self, title, total)


class Bar:
    """A progress bar on a terminal; elsewhere a line now and then. Made by :meth:`Reporter.bar`."""

    def __init__(self, reporter: Reporter, title: str, total: int) -> None:
        self.reporter = reporter
        self.title = title
        self.total = max(total, 1)
        self.done = 0
        self._last_line = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        if self.reporter.console.is_terminal and not self.reporter.quiet:
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            self._progress = Progress(*columns, console=self.reporter.console, transient=True)
            self._task = self._progress.add_task(self.title, total=self.total, note="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, note: str = "") -> None:
        """Set how far it is, with a short note beside the bar."""
        self.done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._last_line >= self.reporter.plain_seconds:
            self._last_line = time.monotonic()
            self.reporter.say(f"{self.title} {done}/{self.total} {note}".rstrip())

    def tick(self) -> None:
        """Advance by one."""
        self.update(self.done + 1)


def figure(value: float | None, ends: Sequence[float] | None = None, *, unit: str = " %") -> str:
    """A fraction in percent with its interval in brackets, where it has one.

    Example:
        >>> figure(0.384, [0.3741, 0.3939]), figure(1.0, [0.9, 1.0], unit=""), figure(None)
        ('38.4 % (37.4-39.4)', '100 (90.0-100)', 'n/a')
    """
    if value is None:
        return "n/a"
    shown, *around = ("100" if share == 1 else f"{share * 100:.1f}" for share in (value, *(ends or ())))
    return f"{shown}{unit}" + (f" ({'-'.join(around)})" if around else "")


def describe(summary: Mapping[str, Any]) -> str:
    """Say the main figures of a summary in one line, with their intervals where it has them.

    Example:
        >>> figures = {"accuracy": 0.5, "balanced_accuracy": 0.4, "many": 0.75, "medium": None, "few": 0.1}
        >>> describe(figures)
        'accuracy 50.0 %, balanced accuracy 40.0 %, many 75.0, medium n/a, few 10.0'
        >>> describe(figures | {"intervals": {"accuracy": [0.41, 0.59]}})
        'accuracy 50.0 % (41.0-59.0), balanced accuracy 40.0 %, many 75.0, medium n/a, few 10.0'
    """
    ends = summary.get("intervals") or {}
    whole = ("accuracy", "balanced_accuracy")
    means = [f"{name.replace('_', ' ')} {figure(summary[name], ends.get(name))}" for name in whole]
    groups = [f"{name} {figure(summary[name], ends.get(name), unit='')}" for name in ("many", "medium", "few")]
    return ", ".join([*means, *groups])
