"""longtail cache: list the files kept on disk by source, or delete them."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.text import Text

from longtail.commands.output import plain_table, print_json, print_line
from longtail.errors import LongtailError, UsageError, nearest

if TYPE_CHECKING:
    from longtail.data.loading.cache_folder import CacheEntry

REPORTED_GROWTH = 1e9
"""A command that adds more bytes than this to the cache reports it."""
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


def cache(
    source: Annotated[str, "SOURCE"] | None = None,
    *,
    older_than: Annotated[str, "TIME"] | None = None,
    clear: bool = False,
    json: bool = False,
) -> None:
    """List the decoded images, features and tables kept on disk, by source, or delete them.

    Args:
        source: only the files of this SOURCE
        older_than: only files unused for this long: 12h, 7d, 2w
        clear: delete the files, except those another process is writing or another user owns
        json: print JSON instead of a table
    """
    from longtail.data.loading.cache_folder import by_source, cache_entries, cache_limit, cache_root, remove_entry

    try:
        folder = cache_root()
    except RuntimeError:
        raise LongtailError("there is no home folder to keep files in: set LONGTAIL_CACHE to a folder.") from None
    limit = cache_limit()
    entries = _chosen(cache_entries(), source, older_than)
    total = sum(entry.size for entry in entries)
    facts = {"folder": str(folder), "bytes": total, "limit_bytes": int(limit) if limit < math.inf else None}
    if clear:
        deleted = [entry for entry in entries if remove_entry(entry.path)]
        freed, in_use = sum(entry.size for entry in deleted), len(entries) - len(deleted)
        if json:
            print_json(facts | {"freed_bytes": freed, "freed_files": len(deleted), "files_in_use": in_use})
            return
        print_line(f"{size_words(freed)} in {_files(len(deleted))} deleted from {folder}")
        if in_use:
            print_line(
                f"{_files(in_use)} kept: another process is writing them, or they are another user's; clear again when "
                "it is done, or ask that user to"
            )
        return
    uses = by_source(entries)
    if json:
        print_json(facts | {"sources": [use.to_dict() for use in uses]})
        return
    most = f"of at most {limit / 1e9:g} GB" if limit < math.inf else "without a limit"
    print_line(f"{folder}: {size_words(total)} {most} (LONGTAIL_CACHE_GB)")
    if uses:
        table = plain_table("source", "what", right=("images", "size", "last used"))
        for use in uses:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(use.last_used))
            number = f"{use.images:,}" if use.images else "?"
            table.add_row(Text(use.source or "?", overflow="fold"), use.what, number, size_words(use.bytes), used)
        Console().print(table)


def _chosen(entries: Sequence[CacheEntry], source: str | None, older_than: str | None) -> list[CacheEntry]:
    if source is not None:
        from longtail.data.sources.registry import source_name

        sources, name = {entry.contents.source for entry in entries} - {""}, source_name(source)
        if name not in sources:
            raise UsageError(
                f"the cache has no files of {source!r}.{nearest(name, sorted(sources)) if sources else ''}"
            )
        entries = [entry for entry in entries if entry.contents.source == name]
    if older_than is None:
        return list(entries)
    match = re.fullmatch(r"(\d{1,6})([hdw])", older_than)
    if match is None:
        raise UsageError(f"--older-than takes a time such as 12h, 7d or 2w, got {older_than!r}.")
    before = time.time() - int(match[1]) * _HOURS[match[2]] * 3600
    return [entry for entry in entries if entry.used < before]


@contextmanager
def growth_reported() -> Iterator[None]:
    """Report on standard error by how much the cache grew within, if that is a lot."""
    from longtail.data.loading.cache_folder import cache_root, cache_sizes
    from longtail.device import is_first_process

    before = cache_sizes()
    try:
        yield
    finally:
        after = cache_sizes()
        # What was deleted meanwhile does not count.
        grown = sum(max(0, size - before.get(path, 0)) for path, size in after.items())
        if grown > REPORTED_GROWTH and is_first_process():
            total = size_words(sum(after.values()))
            sys.stderr.write(
                f"note: the cache grew by {size_words(grown)} to {total} ({cache_root()}): 'longtail cache' lists "
                "it, 'longtail cache --clear' empties it.\n"
            )


def size_words(size: int) -> str:
    """Bytes in the unit that reads best.

    Example:
        >>> size_words(3_210_000_000), size_words(57_600_000), size_words(12)
        ('3.2 GB', '58 MB', '12 bytes')
    """
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size:,} bytes"


def _files(number: int) -> str:
    return f"{number:,} file{'' if number == 1 else 's'}"
