"""The errors a user sees, each one sentence, and the hint that names the nearest right word."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class LongtailError(ValueError):
    """Something the user can mend; the message is one sentence that names the remedy."""


class UsageError(LongtailError):
    """What was asked for cannot be: an option with a wrong name or value. The command ends with status 2, not 1."""


class UnreadableImageError(LongtailError):
    """An image that is missing or cannot be decoded; the sentence names it."""


@contextmanager
def as_usage() -> Iterator[None]:
    """Make what is refused within a matter of usage: the value that is checked came from the user's options.

    Example:
        >>> with as_usage():
        ...     raise LongtailError("there is no loss 'glc'.")
        Traceback (most recent call last):
        longtail.errors.UsageError: there is no loss 'glc'.
    """
    try:
        yield
    except LongtailError as error:
        raise UsageError(str(error)) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``" Did you mean 'gcl'?"``, or the choices where nothing is near.

    Example:
        >>> nearest("glc", ["gcl", "kps"])
        " Did you mean 'gcl'?"
        >>> nearest("zzz", ["gcl", "kps"])
        ' Known: gcl, kps.'
    """
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(dict.fromkeys(choices))}."


def resume_hint(run: str | Path) -> str:
    """Return the command that continues a run, ready to be pasted into a shell.

    Example:
        >>> resume_hint("my runs/a")
        "longtail train --resume 'my runs/a'"
    """
    return f"longtail train --resume {shlex.quote(str(run))}"
