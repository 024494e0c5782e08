"""The errors a user sees, each one sentence, and the hint that names the nearest right word."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from longtail.synonyms import SYNONYMS

_NEAR: Final = 0.65  # least similarity of a suggestion
_BY_PART: Final = 0.01  # a whole name wins over an equally similar last part
_OFFERED: Final = 3  # most names suggested
_LISTED: Final = 50  # most names listed if none is similar
_PARTS: Final = re.compile(r"[./]")
_SUFFIX: Final = re.compile(r"\.(csv|tsv|txt|json|ya?ml|parquet|png|jpe?g)$")  # file suffixes, ignored


class LongtailError(ValueError):
    """Something the user can fix; the message is one sentence that names the remedy.

    Args:
        message: The sentence, with Python arguments where the error can occur in Python: ``pretrained=False``.
        options: Parts of the message and what replaces them on the command line, such as ``--model.pretrained false``.

    Example:
        >>> error = LongtailError("set size=8.", options={"size=8": "--size 8"})
        >>> str(error), error.for_command_line()
        ('set size=8.', 'set --size 8.')
    """

    def __init__(self, message: str = "", *, options: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.options = dict(options or {})

    def for_command_line(self) -> str:
        """Return the message with command-line options in place of Python arguments."""
        text = str(self)
        for argument, option in self.options.items():
            text = text.replace(argument, option)
        return text


class UsageError(LongtailError):
    """What was asked for cannot be: an option with a wrong name or value. The command ends with status 2, not 1."""


class UnreadableImageError(LongtailError):
    """An image that is missing or cannot be decoded; the sentence names it."""


class OwnRangeWarning(UserWarning):
    """Images are each scaled to 8 bits by their own range, as their type has no fixed one."""


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
        raise UsageError(str(error), options=error.options) from error


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Quote the first names and count the others.

    Example:
        >>> listed(["a", "b"]), listed("abcdefg")
        ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    words = ", ".join(repr(name) for name in names[:shown])
    return words + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``" Did you mean 'gcl'?"``, or the choices where nothing is near.

    Names are compared by meaning (``lr`` in other tools is ``stage1.optimizer.lr``), by their last part, and by
    spelling, in this order. Equally similar names keep their order.

    Args:
        name: The unknown name.
        known: The valid names, most relevant first; a set is sorted alphabetically.

    Example:
        >>> nearest("glc", ["gcl", "kps"])
        " Did you mean 'gcl'?"
        >>> nearest("--lr", ["--help", "--stage1.optimizer.lr", "--stage2.optimizer.lr"])
        " Did you mean '--stage1.optimizer.lr' or '--stage2.optimizer.lr'?"
        >>> nearest("zzz", ["gcl", "kps"])
        ' Known: gcl, kps.'
    """
    choices = sorted(known) if isinstance(known, Set) else list(dict.fromkeys(known))
    ranks = {choice: _nearness(_plain(name), _plain(choice)) for choice in choices}
    best = max(ranks.values(), default=(0.0, 0.0))
    if best[0] < _NEAR:
        listed = sorted(choices)
        more = f", ... ({len(listed)} in all)" if len(listed) > _LISTED else ""
        return f" Known: {', '.join(listed[:_LISTED])}{more}."
    near = [choice for choice in choices if ranks[choice] == best]
    *others, last = [repr(choice) for choice in near[: _OFFERED if best[0] >= 1 else 1]]  # one for a misspelling
    return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _plain(name: str) -> str:
    return _SUFFIX.sub("", name.lstrip("-").replace("_", "-").lower())


def _nearness(asked: str, choice: str) -> tuple[float, float]:
    """Similarity of a name, 1 or more if meaning or last part agree; then that of the whole name if it has parts."""
    word, end = (_PARTS.split(name)[-1] for name in (asked, choice))
    whole = difflib.SequenceMatcher(None, asked, choice).ratio()
    in_all = whole if word != asked else 0.0
    meanings = [number for number, name in enumerate(SYNONYMS.get(word, ())) if _ends_with(choice, name)]
    if choice == asked:
        return 3.0, in_all
    if word == end or meanings:
        return 2.0 - _BY_PART * (0 if word == end else meanings[0]), in_all
    return max(difflib.SequenceMatcher(None, word, end).ratio() - _BY_PART, whole), in_all


def _ends_with(choice: str, name: str) -> bool:
    return choice == name or (choice.endswith(name) and bool(_PARTS.match(choice[-len(name) - 1])))


def resume_hint(run: str | Path) -> str:
    """Return the command that continues a run, ready to be pasted into a shell.

    Example:
        >>> resume_hint("my runs/a")
        "longtail train --resume 'my runs/a'"
    """
    return f"longtail train --resume {shlex.quote(str(run))}"
