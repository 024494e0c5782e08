"""merge_parts: the finished shards of a collection, or the parts that a cluster wrote, in one table."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.compute as pc
from rich.console import Console

from longtail.console import Reporter
from longtail.errors import LongtailError, UsageError, listed
from longtail.files import is_stream, output_place
from longtail.predict.parts import (
    Job,
    Part,
    count_doubles,
    identities,
    list_parts,
    rows_of,
    skipped_path,
    write_tables,
)
from longtail.predict.predict import PredictionReport
from longtail.predict.table import PROBLEM, Format, table_format
from longtail.remote import Place, RemotePath, place_of

COMPLETE: Final = "_SUCCESS"
"""Name of the empty file that says that the parts in a folder are all there, as Hadoop and Spark write it."""


def merge_parts(
    folder: str | Path | RemotePath,
    out: str | Path | RemotePath,
    *,
    format: Format | None = None,  # noqa: A002 - as on the command line
    console: Console | None = None,
) -> PredictionReport:
    """Put the shards in a folder together into one table, as one command would have written it.

    Rows stand in the order of the listing, and ``out`` with ``.skipped.csv`` at its end lists the images that could
    not be read.

    Args:
        folder: Folder with the parts of ``longtail predict --shard I/N``, or of ``longtail predict --ray``; also a URL.
        out: The table, as for :func:`longtail.predict.predict.predict_images`.
        format: Format of the table, if its suffix does not tell; CSV when not given.
        console: Console for the number of images of each shard; None shows nothing.

    Returns:
        The number of rows, and of images that could not be read.

    Raises:
        UsageError: No such folder, or an unknown suffix.
        LongtailError: A shard is missing or there twice, shards are of different models, options, collections or
            numbers, a row of a table is in two of them, or a table that cannot be written.
    """
    folder, path = place_of(folder), output_place(out)
    kind = table_format(path, format)
    if not folder.is_dir():
        raise UsageError(f"--merge {folder}: there is no such folder; name the one that holds the parts.")
    reporter, begun = Reporter(console or Console(quiet=True)), time.perf_counter()
    report = PredictionReport(path, replaced=path.is_file() and not is_stream(path))
    parts = list_parts(folder, "*.parquet")
    if not parts:
        raise LongtailError(f"there are no parts of predictions in {folder}: write them with predict --shard I/N.")
    if any(_is_same(path, part.path) for part in parts):
        raise UsageError(f"--out {out} would overwrite one of the parts: name another file.")
    _refuse_mixture(parts)
    _refuse_missing(folder, parts, reporter)
    if parts[0].job.is_table or parts[0].job.shard is None:  # elsewhere the key of an image is that of its shard
        _refuse_doubles(folder, parts)
    if moved := next((part for part in parts if part.job.images[0] != parts[0].job.images[0]), None):
        reporter.say(
            f"note: the images of {parts[0].path.name} were in {parts[0].job.images[0]}, those of {moved.path.name} "
            f"in {moved.job.images[0]}",
            style="yellow",
        )
    write_tables(parts, parts[0].job.columns, path, kind)
    report.skipped, report.later = sum(part.bad for part in parts), sum(part.later for part in parts)
    report.predicted = sum(part.rows for part in parts) - report.skipped
    report.doubles = count_doubles(parts) if parts[0].job.is_table else 0
    report.seconds = time.perf_counter() - begun
    if report.skipped and not is_stream(path):
        reporter.say(f"all skipped files are listed in {skipped_path(path)}")
    elif report.skipped:
        for problem in _problems(parts):
            reporter.say(f"skipped: {problem}", style="yellow")
    if report.doubles:
        reporter.say(f"note: {report.doubles:,} rows repeat the image of an earlier row")
    if report.later:
        incomplete = [str(part.job.shard) for part in parts if part.later and part.job.shard is not None]
        what = f"predict --shard {_joined(incomplete)}" if incomplete else "the command that writes the parts"
        reporter.say(f"{report.not_fetched}; repeat {what}, and merge again", style="yellow")
    reporter.say(str(report))
    return report


def _is_same(path: Place, other: Place) -> bool:
    if isinstance(path, Path) and isinstance(other, Path):
        return path.exists() and path.samefile(other)
    return path == other


def _refuse_mixture(parts: Sequence[Part]) -> None:
    """Check that parts are of one model, of the same options, of one collection, and of one number of shards."""
    first = parts[0]
    for part in parts[1:]:
        job, shard = part.job, part.job.shard
        words = [word for word in first.job.differences(job) if word in {"model", "options"}]
        if words:
            raise LongtailError(
                f"{part.path} is of another command than {first.path} (other {' and '.join(words)}): remove one of "
                "the two, and predict its shard as the others."
            )
        if _collection(job) != _collection(first.job):
            raise LongtailError(
                f"{part.path} is of {_described(job)}, {first.path} is of {_described(first.job)}: remove one of the "
                "two, and predict its shard of the collection of the others."
            )
        count, other = (None if each is None else each.count for each in (first.job.shard, shard))
        if count != other:
            numbers = [f"one of {number} shards" if number else "no shard" for number in (count, other)]
            raise LongtailError(
                f"{first.path} is {numbers[0]}, {part.path} is {numbers[1]}: keep the parts of one division."
            )


def _collection(job: Job) -> tuple[str | int, ...]:
    """Return what a collection has in common wherever it is mounted.

    That is the size of a table, the name of a folder, or a pattern from the folder before its wildcards on.
    """
    path, *sizes = job.images
    if job.is_table:
        return ("table", *sizes[:1])
    names = Path(str(path)).parts
    first = next((index for index, name in enumerate(names) if "*" in name or "?" in name), len(names))
    return names[max(0, first - 1) :]


def _described(job: Job) -> str:
    path, *sizes = job.images
    return f"{path} ({sizes[0]:,} bytes)" if sizes else str(path)


def _refuse_doubles(folder: Place, parts: Sequence[Part]) -> None:
    """Check that each image is in one part."""
    images = identities(parts)
    if twice := len(images) - len(np.unique(images)):
        raise LongtailError(
            f"{twice:,} images are in more than one of the parts in {folder}: they are of different collections; "
            "predict the shards of one of them."
        )


def _refuse_missing(folder: Place, parts: Sequence[Part], reporter: Reporter) -> None:
    """Say how many images each shard has, and check that each is there once."""
    shards = defaultdict[int, list[Part]](list)
    for part in parts:
        shards[0 if part.job.shard is None else part.job.shard.index].append(part)
    if 0 in shards:
        reporter.say(f"{len(parts):,} {'part' if len(parts) == 1 else 'parts'}: {_counts(parts)}")
        if not (folder / COMPLETE).exists():
            raise LongtailError(f"the prediction in {folder} is not finished: repeat the command that writes it.")
        return
    for _, several in sorted(shards.items()):
        if len(several) > 1:
            names = " and ".join(str(part.path) for part in several)
            raise LongtailError(f"{names} are both shard {several[0].job.shard}: remove one of them.")
        reporter.say(f"shard {several[0].job.shard}: {_counts(several)} ({several[0].path.name})")
    shard = parts[0].job.shard
    count = 0 if shard is None else shard.count
    missing = [index for index in range(1, count + 1) if index not in shards]
    unfinished = [part for path in folder.glob("*.parquet.parts") for part in list_parts(path)]
    for index in missing:
        begun = [part for part in unfinished if part.job.shard == replace(shard, index=index)] if shard else []
        reporter.say(f"shard {index}/{count}: missing{f'; unfinished, {_counts(begun)} so far' if begun else ''}")
    if missing:
        names = _joined([f"{index}/{count}" for index in missing])
        raise LongtailError(f"shards are missing in {folder}: predict --shard {names} first.")


def _counts(parts: Sequence[Part]) -> str:
    later = sum(part.later for part in parts)
    bad = sum(part.bad for part in parts) - later
    words = [f"{sum(part.rows for part in parts):,} images"]
    words += [f"{bad:,} unreadable"] if bad else []
    words += [f"{later:,} not fetched"] if later else []
    return ", ".join(words)


def _joined(shards: Sequence[str]) -> str:
    return listed(shards).replace("'", "")


def _problems(parts: Sequence[Part]) -> list[str]:
    columns = (table[PROBLEM] for table in rows_of([part for part in parts if part.bad], [PROBLEM]))
    return [text for column in columns for text in column.filter(pc.is_valid(column)).to_pylist()]
