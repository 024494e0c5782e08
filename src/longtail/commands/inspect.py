"""longtail inspect: what a source holds and what looks wrong with it."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.shared import as_dict, print_json

GRAMMAR = "SOURCE [--json]"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("source", type=str, help="SOURCE: folder:PATH, csv:FILE, parquet:PATH, hf:ID, cifar100, digits")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a picture")


def run(flags: Namespace) -> None:
    """Show the class histogram, imbalance ratio, shot groups and what looks wrong."""
    inspect_command(**as_dict(flags))


def inspect_command(
    source: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    json: bool = False,
) -> None:
    """Show what a source holds."""
    from longtail.data.inspection import inspect_source, render

    found = inspect_source(source, label_column=label_column, image_column=image_column)
    if json:
        print_json(found.to_dict())
    else:
        render(found, Console())
