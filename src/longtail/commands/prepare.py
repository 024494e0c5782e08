"""longtail prepare: all images of a source resized once."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from longtail.commands.destination import refuse_stream
from longtail.commands.terminal import as_dict, print_line

GRAMMAR = "SOURCE --out DIR [--size 256] [--skip-bad]"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("source", type=str, help="SOURCE, see 'longtail inspect --help'")
    parser.add_argument("--out", type=str, required=True, metavar="DIR", help="the folder to make; train on hf:DIR")
    parser.add_argument("--size", type=int, default=256, help="shorter side after scaling, and side of the centre crop")
    parser.add_argument("--skip-bad", action="store_true", help="list unreadable images and go on without them")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image")
    parser.add_argument(
        "--split-column", type=str | None, default=None, help="column that says train, validation or test"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")


def run(flags: Namespace) -> None:
    """Decode and resize all images of a SOURCE once, into a folder that loads many times faster."""
    prepare_command(**as_dict(flags))


def prepare_command(
    source: str,
    out: str,
    *,
    size: int = 256,
    skip_bad: bool = False,
    label_column: str | None = None,
    image_column: str | None = None,
    split_column: str | None = None,
    quiet: bool = False,
) -> None:
    """Write the images of a source resized, and say how many they were and how fast that went."""
    from longtail.console import Reporter
    from longtail.data.loading.prepare import write_resized
    from longtail.data.sources.registry import load_source

    refuse_stream(out, "--out")
    data = load_source(source, label_column=label_column, image_column=image_column, split_column=split_column)
    reporter = Reporter(quiet=quiet)
    for finding in data.findings:
        reporter.say(f"note: {finding if finding.severity == 'warning' else finding.message}")
    begun = time.perf_counter()
    with reporter.bar("preparing", sum(map(len, data.splits.values()))) as bar:
        done = write_resized(data, Path(out), size, skip_bad=skip_bad, tick=bar.tick)
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
