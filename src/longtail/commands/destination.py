"""Destination: the output file or stream of a command, checked before anything is computed."""

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
from longtail.files import REPLACED, cannot_write, descriptor_of, is_stream, output_path

PAGE = (".html", ".htm")


@dataclass(frozen=True)
class Destination:
    """The file or stream that a command writes to.

    Attributes:
        path: The file or stream.
        is_stream: Whether it is a stream, which is written to directly and never replaced.
        replaces: Whether a file of that name was there when the command began.
    """

    path: Path
    is_stream: bool
    replaces: bool

    def __str__(self) -> str:
        """Return the path, and whether an earlier file was replaced."""
        return f"{self.path}{REPLACED if self.replaces else ''}"

    @property
    def takes_standard_output(self) -> bool:
        """Whether the content goes to the standard output."""
        return self.is_stream and _is_standard_output(self.path)


@contextmanager
def messages_apart(file: Destination | None) -> Iterator[None]:
    """Print to the standard error within, if the standard output takes the content of a file."""
    if file is not None and file.takes_standard_output:
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def destination(
    out: str, suffixes: Sequence[str], *, option: str = "--out", example: str, inputs: Sequence[str] = ()
) -> Destination:
    """Check an output path given by the user.

    Args:
        out: The path as given; ``-`` is the standard output.
        suffixes: The allowed suffixes, each with its dot; a name without a suffix is accepted too.
        option: The option it was given with.
        example: A file name to suggest.
        inputs: Input files of the command, which must not be overwritten.

    Raises:
        UsageError: Another suffix, or one of the inputs.
        LongtailError: A folder, a disk, or a path without write permission.

    Example:
        >>> destination("a.xlsx", [".csv", ".parquet"], example="a.csv")
        Traceback (most recent call last):
        longtail.errors.UsageError: --out a.xlsx: this file type cannot be written; name it .csv or .parquet.
    """
    if not out:
        raise UsageError(f"{option} needs the name of a file, such as {example}.")
    path = output_path(out)
    if is_stream(path):
        if descriptor_of(path) is None and stat.S_ISBLK(path.stat().st_mode):
            raise LongtailError(f"{out} is a disk: name a file with {option}.")
        return Destination(path, is_stream=True, replaces=False)
    if path.is_dir() or out.endswith(os.sep):
        raise LongtailError(f"{out} is a folder: name the file to write, {option} {path / example}.")
    if path.suffix and path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {out}: this file type cannot be written; name it {_listed(suffixes)}.")
    for word in inputs:
        if path.exists() and Path(word).is_file() and path.samefile(word):
            raise UsageError(f"{option} {out} would overwrite {word!r}, an input of this command: name another file.")
    _refuse_unwritable(path)
    return Destination(path, is_stream=False, replaces=path.exists())


def refuse_terminal(path: Path, kind: str) -> None:
    """Refuse to write binary data to a terminal.

    Raises:
        UsageError: The path is a terminal.

    Example:
        >>> refuse_terminal(Path("model.onnx"), "ONNX")
    """
    if is_stream(path) and _is_terminal(path):
        raise UsageError(f"{path} is a terminal, and {kind} is not text: name a file, or redirect it with > or |.")


def refuse_stream(out: str, option: str) -> None:
    """Refuse a stream where a folder is needed.

    Raises:
        UsageError: It is a stream.

    Example:
        >>> refuse_stream("-", "--figures")
        Traceback (most recent call last):
        longtail.errors.UsageError: --figures - is a stream: name a folder.
    """
    if is_stream(output_path(out)):
        raise UsageError(f"{option} {out} is a stream: name a folder.")


def names_in(folder: str) -> set[str]:
    """Return the names of the files in a folder, or an empty set if it does not exist."""
    return {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()


def _listed(suffixes: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))


def _refuse_unwritable(path: Path) -> None:
    """Raise now the error that the system would raise after everything has been computed."""
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
