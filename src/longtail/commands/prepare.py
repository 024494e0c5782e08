"""longtail prepare: all images of a source resized once."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

from longtail.commands.arguments import Columns, last_names
from longtail.commands.output import print_line, refuse_stream
from longtail.config.schema import Count, Fit


def prepare(
    source: Annotated[str, "SOURCE"],
    *,
    out: Annotated[str, "DIR"],
    size: Count = 256,
    fit: Fit = "crop",
    skip_bad: bool = False,
    columns: Columns,
    quiet: bool = False,
) -> None:
    """Decode and resize all images of a SOURCE once, into a folder that loads many times faster.

    Args:
        source: SOURCE, see 'longtail inspect --help'
        out: folder to make; train on hf:DIR
        size: side of the square images in pixels
        fit: what is kept of an image that is not square: its center, all of it with padding, or all of it distorted
        skip_bad: list unreadable images and continue without them
        columns: options that name the columns of a table
        quiet: print errors and the result only
    """
    from longtail.console import Reporter
    from longtail.data.loading.prepare import write_resized
    from longtail.data.sources.registry import load_source

    refuse_stream(out, "--out")
    data = load_source(source, **last_names(columns))
    reporter = Reporter(quiet=quiet)
    for finding in data.findings:
        reporter.say(f"note: {finding if finding.severity == 'warning' else finding.message}")
    begun = time.perf_counter()
    with reporter.bar("preparing", sum(map(len, data.splits.values()))) as bar:
        done = write_resized(data, Path(out), size, fit=fit, skip_bad=skip_bad, tick=bar.tick)
    seconds = time.perf_counter() - begun
    for problem in done.skipped:
        reporter.say(f"skipped: {problem}")
    images = sum(done.images.values())
    splits = ", ".join(f"{count:,} {name}" for name, count in done.images.items())
    skipped = f", {len(done.skipped):,} unreadable skipped" if done.skipped else ""
    print_line(
        f"{out}: {images:,} images of {size} x {size} pixels ({splits}{skipped}), {images / seconds:.0f} images/s"
    )
    print_line(f"train on it: longtail train {shlex.quote(f'hf:{out}')} --recipe NAME --out RUN")
