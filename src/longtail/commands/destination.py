"""Destination: the file or stream that a user named to write to, refused before anything is computed."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from longtail.errors import LongtailError, UsageError
from longtail.files import cannot_write, descriptor_of, is_stream, named

PAGE = (".html", ".htm")
REPLACED = " (replaces the earlier file)"


@dataclass(frozen=True)
class Destination:
    """Where a command writes what it was asked for.

    Attributes:
        path: The file or stream.
        is_stream: Whether it is written to as it is, and not replaced.
        replaces: Whether a file of that name was there when the command began.
    """

    path: Path
    is_stream: bool
    replaces: bool

    def __str__(self) -> str:
        """Return the path, and whether what was there is gone."""
        return f"{self.path}{REPLACED if self.replaces else ''}"

    @property
    def takes_standard_output(self) -> bool:
        """Whether the content goes where messages go."""
        return self.is_stream and _is_standard_output(self.path)

    @contextmanager
    def messages_apart(self) -> Iterator[None]:
        """Within, whatever is printed goes to the standard error if the standard output takes the content."""
        if self.takes_standard_output:
            with redirect_stdout(sys.stderr):
                yield
        else:
            yield


def destination(
    out: str, suffixes: Sequence[str], *, option: str = "--out", example: str, inputs: Sequence[str] = ()
) -> Destination:
    """Say where to write, or why that cannot be.

    Args:
        out: The user's word; ``-`` is the standard output.
        suffixes: How the name of a file may end, each with its dot; a name without an ending is taken as well.
        option: What it was given with.
        example: A name for a file in a folder.
        inputs: What else the user named, which has to stay as it is.

    Raises:
        UsageError: Another ending, or one of the inputs.
        LongtailError: A folder, a disk, or a place that may not be written to.

    Example:
        >>> destination("a.xlsx", [".csv", ".parquet"], example="a.csv")
        Traceback (most recent call last):
        longtail.errors.UsageError: --out a.xlsx: files of this kind are not written; name it .csv or .parquet.
    """
    if not out:
        raise UsageError(f"{option} needs the name of a file, such as {example}.")
    path = named(out)
    if is_stream(path):
        if descriptor_of(path) is None and stat.S_ISBLK(path.stat().st_mode):
            raise LongtailError(f"{out} is a disk: name a file with {option}.")
        return Destination(path, is_stream=True, replaces=False)
    if path.is_dir() or out.endswith(os.sep):
        raise LongtailError(f"{out} is a folder: name the file to write, {option} {path / example}.")
    if path.suffix and path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {out}: files of this kind are not written; name it {_listed(suffixes)}.")
    for word in inputs:
        if path.exists() and Path(word).is_file() and path.samefile(word):
            raise UsageError(f"{option} {out} would overwrite {word!r}, which is to be read: name another file.")
    _refuse_unwritable(path)
    return Destination(path, is_stream=False, replaces=path.exists())


def refuse_terminal(path: Path, kind: str) -> None:
    """Keep bytes that are no text off a terminal.

    Raises:
        UsageError: The path leads to one.

    Example:
        >>> refuse_terminal(Path("model.onnx"), "ONNX")
    """
    if is_stream(path) and _is_terminal(path):
        raise UsageError(f"{path} is a terminal, and {kind} is not text: name a file, or send it on with > or |.")


def refuse_stream(out: str, option: str) -> None:
    """Refuse a stream where a folder is needed.

    Raises:
        UsageError: It is one.

    Example:
        >>> refuse_stream("-", "--figures")
        Traceback (most recent call last):
        longtail.errors.UsageError: --figures - is a stream: name a folder.
    """
    if is_stream(named(out)):
        raise UsageError(f"{option} {out} is a stream: name a folder.")


def names_in(folder: str) -> set[str]:
    """Return the names of the files that are in a folder, empty where it is not there."""
    return {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()


def _listed(suffixes: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))


def _refuse_unwritable(path: Path) -> None:
    """What the system would say when everything has been computed, said at once."""
    if path.exists():
        refused = None if os.access(path, os.W_OK) else errno.EACCES
    else:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        refused = errno.ENOTDIR if not folder.is_dir() else None if os.access(folder, os.W_OK) else errno.EACCES
    if refused is not None:
        raise cannot_write(path, OSError(refused, os.strerror(refused)))


def _is_standard_output(path: Path) -> bool:
    number = descriptor_of(path)
    try:
        status = path.stat() if number is None else os.fstat(number)
        return os.path.samestat(status, os.fstat(1))
    except OSError:
        return False


def _is_terminal(path: Path) -> bool:
    number = descriptor_of(path)
    if number is not None:
        return os.isatty(number)
    if not stat.S_ISCHR(path.stat().st_mode):
        return False
    with path.open("wb") as device:
        return device.isatty()
