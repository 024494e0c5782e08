"""longtail prepare: all images of a source resized once, or written as shards that training streams."""

from __future__ import annotations

import shlex
import time
from functools import partial
from pathlib import Path
from typing import Annotated

from longtail.commands.arguments import Columns, last_names
from longtail.commands.output import print_line, refuse_stream
from longtail.config.options import Count, Fit
from longtail.errors import UsageError


def prepare(
    source: Annotated[str, "SOURCE"],
    *,
    out: Annotated[str, "DIR"] | None = None,
    shards: Annotated[str, "DIR"] | None = None,
    size: Count | None = None,
    fit: Fit | None = None,
    band_shards: Count | None = None,
    skip_bad: bool = False,
    columns: Columns,
    quiet: bool = False,
) -> None:
    """Write all images of a SOURCE once: resized, into a folder that loads many times faster, or as shards to stream.

    Usage:
        longtail prepare SOURCE --out DIR [--size 256] [--fit crop|pad|stretch] [--skip-bad]
        longtail prepare SOURCE --shards DIR [--band-shards 8] [--skip-bad]

    Args:
        source: SOURCE, see 'longtail inspect --help'
        out: folder of resized images to make; train on hf:DIR
        shards: folder of Parquet shards to make, by frequency of the classes; train on stream:DIR
        size: side of the resized images in pixels, 256 if not given
        fit: what is kept of an image that is not square: its center, all of it with padding, or all of it distorted
        band_shards: fewest shards of a frequency band, at least the number of training processes; 8 if not given
        skip_bad: list unreadable images and continue without them
        columns: options that name the columns of a table
        quiet: print errors and the result only
    """
    from longtail.console import Reporter
    from longtail.data.loading.prepare import write_resized
    from longtail.data.loading.shards import FEWEST_SHARDS, write_shards
    from longtail.data.sources.registry import load_source

    if (out is None) == (shards is None):
        raise UsageError("name one folder to make: --out DIR for resized images, or --shards DIR to stream them.")
    if shards is not None and (size is not None or fit is not None):
        raise UsageError("--shards keeps images as they are: leave --size and --fit out.")
    if out is not None and band_shards is not None:
        raise UsageError("--band-shards is only for --shards DIR: leave it out.")
    folder = out or shards or ""
    refuse_stream(folder, "--out" if shards is None else "--shards")
    data = load_source(source, **last_names(columns))
    reporter = Reporter(quiet=quiet)
    for finding in data.findings:
        reporter.say(f"note: {finding if finding.severity == 'warning' else finding.message}")
    side = size or 256
    if shards is None:
        write = partial(write_resized, data, Path(folder), side, fit=fit or "crop")
    else:
        write = partial(write_shards, data, Path(folder), fewest=band_shards or FEWEST_SHARDS)
    begun = time.perf_counter()
    with reporter.bar("preparing", sum(map(len, data.splits.values()))) as bar:
        done = write(skip_bad=skip_bad, tick=bar.tick)
    seconds = time.perf_counter() - begun
    for problem in done.skipped:
        reporter.say(f"skipped: {problem}")
    images = sum(done.images.values())
    splits = ", ".join(f"{count:,} {name}" for name, count in done.images.items())
    skipped = f", {len(done.skipped):,} unreadable skipped" if done.skipped else ""
    what = f" of {side} x {side} pixels" if shards is None else " to stream"
    print_line(f"{folder}: {images:,} images{what} ({splits}{skipped}), {images / seconds:.0f} images/s")
    trained = shlex.quote(f"{'hf' if shards is None else 'stream'}:{folder}")
    print_line(f"train on it: longtail train {trained} --recipe NAME --out RUN")
