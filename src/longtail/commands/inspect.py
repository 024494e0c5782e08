"""longtail inspect: what a source holds and what looks wrong with it."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.destination import PAGE, destination, messages_apart
from longtail.commands.terminal import EXIT_FAILED, as_dict, print_json, print_line
from longtail.errors import UsageError

GRAMMAR = "SOURCE [--json] [--strict] [--out FILE.html]"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("source", type=str, help="SOURCE: folder:PATH, csv:FILE, parquet:PATH, hf:ID, cifar100, digits")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image")
    parser.add_argument(
        "--split-column", type=str | None, default=None, help="column that says train, validation or test"
    )
    parser.add_argument("--max-images", type=int | None, default=None, help="decode a sample; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a picture")
    parser.add_argument("--out", type=str | None, default=None, metavar="FILE.html", help="also write a page; or -")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is an error or a warning")


def run(flags: Namespace) -> int:
    """Audit a source: classes and groups, broken and odd images, copies, and what to do about each."""
    return inspect_command(**as_dict(flags))


def inspect_command(
    source: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    split_column: str | None = None,
    max_images: int | None = None,
    json: bool = False,
    out: str | None = None,
    strict: bool = False,
) -> int:
    """Show what a source holds; return 1 if ``strict`` and something is wrong with it."""
    from longtail.console import Reporter
    from longtail.data.audit.inspection import inspect_data
    from longtail.data.audit.terminal import render
    from longtail.data.sources.registry import load_source

    page = None if out is None else destination(out, PAGE, example="inspect.html")
    if page is not None and page.takes_standard_output and json:
        raise UsageError(f"--json and --out {out} both write to the standard output: name a file for the page.")
    data = load_source(source, label_column=label_column, image_column=image_column, split_column=split_column)
    total = sum(map(len, data.splits.values()))
    with Reporter().bar("inspect", total if max_images is None else min(total, max_images)) as bar:
        found = inspect_data(data, max_images=max_images, tick=bar.tick)
    with messages_apart(page):
        if json:
            print_json(found.to_dict())
        else:
            render(found, Console())
        if page is not None:
            from longtail.report.audit import write_audit

            write_audit(found, page.path, data)
            if not json:
                print_line(f"page: {page}")
    return EXIT_FAILED if strict and not found.is_clean else 0
