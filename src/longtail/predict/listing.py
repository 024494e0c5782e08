"""Listing the files of a folder or a pattern as they are met: a million of them need no more memory than a thousand."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeAlias

from longtail.data.decode import is_image_path, is_unread_path
from longtail.data.sources.folder import is_system_folder

Names: TypeAlias = tuple[str, ...]  # of the folders below the first one, and of the file
_SORTED_AT_ONCE = 10_000


class Found(NamedTuple):
    """One file, or a folder that cannot be listed.

    Attributes:
        path: As the user wrote it, and what follows.
        problem: Why the folder cannot be listed, or empty.
    """

    path: str
    problem: str = ""


@dataclass
class LeftOut:
    """Counts of files and folders that were left out of a listing.

    Attributes:
        others: Files without an image suffix, by suffix.
        hidden: Hidden files and folders, and system folders such as ``__MACOSX``.
        again: Links to folders that were listed already.
        special: Pipes, sockets and devices.
    """

    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    again: int = 0
    special: int = 0

    def __str__(self) -> str:
        """Return the counts in one line, empty if all are zero.

        Example:
            >>> print(LeftOut(Counter({".txt": 3, ".json": 1}), again=1))
            4 files not named like an image (.txt 3, .json 1), 1 link to a folder listed already
        """
        others = self.others.total()
        parts = [f"{_several(others, 'file')} not named like an image ({count_words(self.others)})"] if others else []
        parts += [f"{self.hidden:,} hidden or added by a system"] if self.hidden else []
        parts += [f"{_several(self.again, 'link')} to a folder listed already"] if self.again else []
        parts += [_several(self.special, "pipe or device", "pipes or devices")] if self.special else []
        return ", ".join(parts)


def count_words(counts: Counter[str], most: int = 5) -> str:
    """Return the most frequent words with their counts.

    Example:
        >>> count_words(Counter({".heic": 5, ".cr2": 1}))
        '.heic 5, .cr2 1'
    """
    shown = [f"{word} {count:,}" for word, count in counts.most_common(most)]
    return ", ".join([*shown, *(["..."] if len(counts) > most else [])])


def _several(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


class _Entry(NamedTuple):
    found: Found
    names: Names
    is_folder: bool = False


def images_below(folder: str, left_out: LeftOut | None = None) -> Iterator[Found]:
    """Find the files with an image's extension in a folder, to the bottom.

    Hidden files and folders and system folders are left out. Links are followed, each real folder once. The order is
    that of names, in portions of 10,000 where a folder holds more. Photographs and videos in a format that is not read
    are included: reading them reports an error.

    Args:
        folder: Where to look.
        left_out: Counts what is left out.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("b.png", "a.jpg", "notes.txt"): (folder / name).touch()
        >>> [os.path.basename(found.path) for found in images_below(str(folder))]
        ['a.jpg', 'b.png']
    """
    left_out = LeftOut() if left_out is None else left_out

    def keep(names: Names) -> bool:
        name = names[-1]
        if is_image_path(name) or is_unread_path(name):
            return True
        if name.startswith("."):
            left_out.hidden += 1
        else:
            left_out.others[os.path.splitext(name)[1].lower() or "no suffix"] += 1  # noqa: PTH122
        return False

    def enter(names: Names) -> bool:
        hidden = is_system_folder(names[-1])
        left_out.hidden += hidden
        return not hidden

    return _walk(folder, keep, enter, left_out)


def files_like(pattern: str, left_out: LeftOut | None = None) -> Iterator[Found]:
    """Find the files that a pattern such as ``in/**/*.jpg`` names, whatever their extension.

    ``*``, ``?`` and ``[...]`` stand for what they do in a shell and ``**`` for any folders; none of them for a leading
    dot. The order is that of :func:`images_below`.
    """
    parts = pattern.split(os.sep)  # noqa: PTH206 - a path of the user's stays as it was written
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base = "".join(part + os.sep for part in parts[:first])
    wanted = tuple(part for part in parts[first:] if part)
    if not os.path.isdir(base or os.curdir):  # noqa: PTH112
        return iter(())
    left_out = LeftOut() if left_out is None else left_out
    return _walk(base, lambda names: _fits(names, wanted), lambda names: _leads_on(names, wanted), left_out)


def _walk(
    folder: str, keep: Callable[[Names], bool], enter: Callable[[Names], bool], left_out: LeftOut
) -> Iterator[Found]:
    seen: set[tuple[int, int]] = set()  # a link may lead back up
    stack = [_entries(folder, (), seen, left_out)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif entry.is_folder:
            if enter(entry.names):
                stack.append(_entries(entry.found.path, entry.names, seen, left_out))
        elif entry.found.problem or keep(entry.names):
            yield entry.found


def _entries(folder: str, names: Names, seen: set[tuple[int, int]], left_out: LeftOut) -> Iterator[_Entry]:
    try:
        status = os.stat(folder or os.curdir)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            left_out.again += 1
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder or os.curdir) as listing:
            while portion := sorted(islice(listing, _SORTED_AT_ONCE), key=lambda entry: entry.name):
                for entry in portion:
                    found, below = Found(os.path.join(folder, entry.name)), (*names, entry.name)  # noqa: PTH118
                    if entry.is_dir():
                        yield _Entry(found, below, is_folder=True)
                    elif (
                        entry.is_file() or entry.is_symlink()
                    ):  # no pipe, which would be waited for; a dead link is told
                        yield _Entry(found, below)
                    else:
                        left_out.special += 1
    except OSError as error:
        problem = f"the folder {folder!r} cannot be listed ({error.strerror}): its images are left out."
        yield _Entry(Found(folder, problem), names)


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names of a path match the parts of a pattern.

    Example:
        >>> _fits(("a", "b", "c.png"), ("**", "*.png")), _fits(("a", ".b", "c.png"), ("**", "*.png"))
        (True, False)
    """
    if not pattern:
        return not names
    if pattern[0] == "**":
        deeper = bool(names) and not names[0].startswith(".") and _fits(names[1:], pattern)
        return deeper or _fits(names, pattern[1:])
    return bool(names) and _name_fits(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _leads_on(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file below the folder of these names may match.

    Example:
        >>> _leads_on(("a",), ("a", "*.png")), _leads_on(("b",), ("a", "*.png")), _leads_on(("a", "b"), ("a", "*.png"))
        (True, False, False)
    """
    if not pattern:
        return False
    if not names:
        return True
    if pattern[0] == "**":
        return not any(name.startswith(".") for name in names) or _leads_on(names, pattern[1:])
    return _name_fits(names[0], pattern[0]) and _leads_on(names[1:], pattern[1:])


def _name_fits(name: str, pattern: str) -> bool:
    hidden = name.startswith(".") and not pattern.startswith(".")
    return not hidden and fnmatch.fnmatch(name, pattern)
