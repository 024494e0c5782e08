"""longtail cache: what is kept on disk, of which source, and how it is emptied."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from longtail.commands.shared import as_dict, print_json, print_line
from longtail.errors import UsageError, nearest

if TYPE_CHECKING:
    from longtail.data.cache_folder import CacheEntry

GRAMMAR = "[SOURCE] [--older-than 7d] [--clear] [--json]"
WORTH_SAYING = 1e9
"""Bytes that a command may add to the cache without a word."""
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument(
        "source",
        type=str | None,
        nargs="?",
        default=None,
        help="only what is kept of this SOURCE, spelt as in the list",
    )
    parser.add_argument(
        "--older-than", type=str | None, default=None, metavar="TIME", help="only what was not used for 12h, 7d or 2w"
    )
    parser.add_argument("--clear", action="store_true", help="delete it; what another process is writing stays")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(flags: Namespace) -> None:
    """Show what is kept on disk: where, how much, of which source; or delete it."""
    cache_command(**as_dict(flags))


def cache_command(
    source: str | None = None, *, older_than: str | None = None, clear: bool = False, json: bool = False
) -> None:
    """List or clear the cache, or the part of it that is of one source or was not used for some time."""
    from longtail.data.cache_folder import by_source, cache_entries, cache_folder, cache_limit, remove_entry

    limit = cache_limit()
    entries = _chosen(cache_entries(), source, older_than)
    total = sum(entry.size for entry in entries)
    facts = {"folder": str(cache_folder()), "bytes": total, "limit_bytes": int(limit)}
    if clear:
        gone = [entry for entry in entries if remove_entry(entry.path)]
        freed, kept = sum(entry.size for entry in gone), len(entries) - len(gone)
        if json:
            print_json(facts | {"freed_bytes": freed, "freed_files": len(gone), "files_in_use": kept})
            return
        print_line(f"{size_words(freed)} in {_files(len(gone))} deleted from {cache_folder()}")
        if kept:
            print_line(f"{_files(kept)} stayed: another process is writing there; clear again when it is done")
        return
    uses = by_source(entries)
    if json:
        print_json(facts | {"sources": [use.to_dict() for use in uses]})
        return
    print_line(f"{cache_folder()}: {size_words(total)} of at most {limit / 1e9:g} GB (LONGTAIL_CACHE_GB)")
    if uses:
        table = Table("source", "what", box=None, header_style="bold", pad_edge=False)
        for heading in ("images", "size", "last used"):
            table.add_column(heading, justify="right", no_wrap=True)
        for use in uses:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(use.used))
            number = f"{use.images:,}" if use.images else "?"
            table.add_row(Text(use.source or "?", overflow="fold"), use.what, number, size_words(use.size), used)
        Console().print(table)


def _chosen(entries: Sequence[CacheEntry], source: str | None, older_than: str | None) -> list[CacheEntry]:
    if source is not None:
        sources = {entry.contents.source for entry in entries} - {""}
        if source not in sources:
            raise UsageError(f"nothing is kept of {source!r}.{nearest(source, sorted(sources)) if sources else ''}")
        entries = [entry for entry in entries if entry.contents.source == source]
    if older_than is None:
        return list(entries)
    match = re.fullmatch(r"(\d{1,6})([hdw])", older_than)
    if match is None:
        raise UsageError(f"--older-than takes a time such as 12h, 7d or 2w, got {older_than!r}.")
    before = time.time() - int(match[1]) * _HOURS[match[2]] * 3600
    return [entry for entry in entries if entry.used < before]


def say_growth(before: Sequence[CacheEntry]) -> None:
    """Say in one line on standard error how much the cache has grown, where that is worth saying.

    Args:
        before: What it held when the command began.
    """
    from longtail.data.cache_folder import cache_entries, cache_folder, growth

    after = cache_entries()
    grown = growth(before, after)
    if grown > WORTH_SAYING and os.environ.get("LOCAL_RANK", "0") == "0":
        total = size_words(sum(entry.size for entry in after))
        sys.stderr.write(
            f"note: the cache grew by {size_words(grown)} to {total} ({cache_folder()}): 'longtail cache' lists it, "
            "'longtail cache --clear' empties it.\n"
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
