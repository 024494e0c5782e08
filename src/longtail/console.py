"""The console: messages for the user, progress bars on a terminal that are plain lines elsewhere, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Messages and progress bars for the user; silent on all processes except the first.

    Args:
        console: Console to write on; standard error when not given, so that standard output stays for results.
        quiet: Write nothing.
        plain_seconds: On something that is not a terminal, at most one line in this many seconds.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False, plain_seconds: float = 10.0) -> None:
        self.console = console if console is not None else Console(stderr=True, quiet=quiet)
        self.quiet = quiet
        self.plain_seconds = plain_seconds

    def say(self, text: str, style: str | None = None) -> None:
        """Write one line."""
        if not self.quiet:
            self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=reporter.console,
            transient=True,
            disable=reporter.quiet or not reporter.console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=self.total, note="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, note: str = "") -> None:
        """Set how far it is, with a short note next to the bar."""
        self.done = done
        if not self._progress.disable:
            self._progress.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._last_line >= self.reporter.plain_seconds:
            self._last_line = time.monotonic()
            count = f"{done}" if self.total is None else f"{done}/{self.total}"
            self.reporter.say(f"{self.title} {count} {note}".rstrip())

    def tick(self) -> None:
        """Advance by one."""
        self.update(self.done + 1)


class Interrupted(Exception):  # noqa: N818 - not an error of the program
    """Raised at a step boundary, after the checkpoint was written."""


class InterruptGuard:
    """While active, SIGINT and SIGTERM only set :attr:`requested`; a second SIGINT stops at once.

    Example:
        >>> with InterruptGuard() as guard:
        ...     guard.requested
        False
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> InterruptGuard:
        # Python delivers signals to the main thread only; elsewhere the caller's own handling stays.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
