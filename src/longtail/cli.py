"""The command line: words become arguments of a command, and every error one sentence with an exit status."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from longtail.commands import (
    adjust,
    analyze,
    cache,
    compare,
    demo,
    evaluate,
    export,
    inspect,
    predict,
    prepare,
    recipes,
    report,
    train,
)
from longtail.commands.arguments import parse, summary
from longtail.commands.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, fail, is_disk_full
from longtail.errors import LongtailError, OwnRangeWarning, UsageError, nearest
from longtail.version import __version__

COMMANDS: Final[dict[str, Callable[..., int | None]]] = {
    "inspect": inspect.inspect,
    "prepare": prepare.prepare,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "adjust": adjust.adjust,
    "predict": predict.predict,
    "export": export.export,
    "push": export.push,
    "compare": compare.compare,
    "analyze": analyze.analyze,
    "report": report.report,
    "recipes": recipes.recipes,
    "cache": cache.cache,
    "demo": demo.demo,
}
"""The function of each command: its parameters are the arguments, its docstring is the help."""

ALIASES: Final = {"analyse": "analyze"}


_format_warning = warnings.formatwarning


def _as_note(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> str:
    """Format a warning of this package as a sentence, and any other as Python does."""
    is_ours = issubclass(category, OwnRangeWarning)
    return f"note: {message}\n" if is_ours else _format_warning(message, category, *place, **named)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted.

    Example:
        >>> main(["recipes", "cifar-lt/glc"])
        2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± or block characters shows a ?
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's; our refusal names the file
    warnings.formatwarning = _as_note
    try:
        with _interrupted_by_sigterm():
            return _run(words)
    except LongtailError as error:
        return fail(error.for_command_line(), EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    except BrokenPipeError:  # `longtail ... | head` has read enough
        return EXIT_FAILED
    except OSError as error:
        full = " Free some space and repeat the command." if is_disk_full(error) else ""
        return fail(f"{error}.{full}")
    except (MemoryError, RuntimeError) as error:  # of an accelerator, PyTorch's, which is not imported for its name
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        return fail("out of memory: end other programs, or take a smaller --batch-size where the command has it.")
    except KeyboardInterrupt:
        return fail("interrupted.", EXIT_INTERRUPTED)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a job, do what Ctrl-C does, so that unfinished work is saved.

    The first process of a container would even pass over a SIGTERM that it has no handler for.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(words: Sequence[str]) -> int:
    command = ALIASES.get(words[0], words[0]) if words else "--help"
    if command in {"--help", "-h", "--version"}:
        sys.stdout.write(f"longtail {__version__}\n" if command == "--version" else _overview())
        return 0
    if command.startswith("-"):
        raise UsageError(f"unknown option {command!r}. 'longtail --help' lists them all.")
    if command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}.{nearest(command, COMMANDS)}")
    values: dict[str, Any] | str = parse(f"longtail {command}", COMMANDS[command], words[1:])
    if isinstance(values, str):
        sys.stdout.write(values)
        return 0
    with nullcontext() if values.get("quiet") else cache.growth_reported():
        return COMMANDS[command](**values) or 0


def _overview() -> str:
    """The help of longtail: every command with its summary."""
    parser = argparse.ArgumentParser(
        prog="longtail",
        usage="longtail COMMAND ...",
        description="Long-tailed image recognition: train, evaluate and use classifiers that keep their rare classes.",
    )
    parser.add_argument("--version", action="version", help="show the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=summary(function))
    return parser.format_help()
