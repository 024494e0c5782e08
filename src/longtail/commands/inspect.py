"""longtail inspect: an audit of a source, its classes and the images that look wrong."""

from __future__ import annotations

from typing import Annotated

from rich.console import Console

from longtail.commands.arguments import Columns, last_names
from longtail.commands.output import EXIT_FAILED, PAGE, destination, messages_apart, print_json, print_line
from longtail.config.options import Count
from longtail.errors import UsageError


def inspect(
    source: Annotated[str, "SOURCE"],
    *,
    json: bool = False,
    strict: bool = False,
    out: Annotated[str, "FILE.html"] | None = None,
    columns: Columns,
    max_images: Count | None = None,
) -> int:
    """Audit a source: classes and groups, broken and odd images, copies, and what to do about each.

    Args:
        source: SOURCE: folder:PATH, csv:FILE, parquet:PATH, hf:ID, cifar100, digits
        json: print JSON instead of a picture
        strict: exit with 1 if there is an error or a warning
        out: also write a page, or -
        columns: options that name the columns of a table
        max_images: decode a sample of this many; all by default
    """
    from longtail.console import Reporter
    from longtail.data.audit.inspection import inspect_data, render
    from longtail.data.sources.registry import load_source

    page = None if out is None else destination(out, PAGE, example="inspect.html")
    if page is not None and page.takes_standard_output and json:
        raise UsageError(f"--json and --out {out} both write to the standard output: name a file for the page.")
    data = load_source(source, **last_names(columns))
    audit = inspect_data(data, max_images=max_images, reporter=Reporter())
    with messages_apart(page):
        if json:
            print_json(audit.to_dict())
        else:
            render(audit, Console())
        if page is not None:
            from longtail.report.audit import write_audit

            write_audit(audit, page.path, data)
            if not json:
                print_line(f"page: {page}")
    return EXIT_FAILED if strict and not audit.is_clean else 0
