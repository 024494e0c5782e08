"""longtail report: one page about one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from longtail.commands.output import PAGE, destination, messages_apart, print_line, refuse_stream
from longtail.errors import LongtailError, UsageError
from longtail.run.layout import REPORT_FILE


def report(
    runs: Annotated[Sequence[str], "RUN ..."],
    *,
    out: Annotated[str, "FILE.html"],
    figures: Annotated[str, "DIR"] | None = None,
) -> None:
    """Write one self-contained HTML page about one or several runs.

    Args:
        runs: RUN folders
        out: page to write, or -
        figures: also write each figure as SVG and PNG into this folder
    """
    from longtail.compare.comparison import compare_runs
    from longtail.report.page import write_page
    from longtail.report.sections.order import build_sections

    page_given = next((run for run in runs if Path(run).suffix.lower() in PAGE and not Path(run).is_dir()), None)
    if page_given is not None:
        raise UsageError(f"{page_given!r} is a page, not a run: use longtail report RUN ... --out {page_given}.")
    page = destination(out, PAGE, example=REPORT_FILE)
    if figures is not None:
        refuse_stream(figures, "--figures")
        if Path(figures).exists() and not Path(figures).is_dir():
            raise LongtailError(f"{figures} is a file: name a folder for the figures with --figures.")
    comparison = compare_runs([Path(run) for run in runs], stages=True)
    sections = build_sections(comparison)
    with messages_apart(page):
        write_page(comparison, sections, page.path)
        print_line(f"report: {page}")
        if figures is not None:
            from longtail.report.export_figures import save_sections

            earlier = {path.name for path in Path(figures).iterdir()} if Path(figures).is_dir() else set()
            files = save_sections(sections, figures)
            again = sum(file.name in earlier for file in files)
            replaced = f" ({again} replace earlier files)" if again else ""
            print_line(f"figures: {len(files)} files in {figures}{replaced}")
