"""longtail report: one page about one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from longtail.commands.shared import as_dict, print_line
from longtail.errors import LongtailError

GRAMMAR = "RUN ... --out FILE.html"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("runs", type=str, nargs="+", help="RUN folders")
    parser.add_argument("--out", type=str, required=True, metavar="FILE.html", help="the page to write")


def run(flags: Namespace) -> None:
    """Write one self-contained HTML page about one or several runs."""
    report_command(**as_dict(flags))


def report_command(runs: Sequence[str], out: str) -> None:
    """Write the page about several runs and print its path."""
    from longtail.report.page import write_report

    if Path(out).is_dir():
        raise LongtailError(f"{out} is a folder: name the page to write, --out {Path(out) / 'report.html'}.")
    print_line(f"report: {write_report([Path(run) for run in runs], Path(out))}")
