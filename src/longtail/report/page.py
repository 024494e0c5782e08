"""The page of a report: one self-contained HTML file, which opens offline and asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import jinja2
from plotly.offline import get_plotlyjs

from longtail.compare.comparison import compare_runs
from longtail.compare.differences import mark
from longtail.compare.seeds import mean_std_text
from longtail.compare.table import Comparison
from longtail.counts import GROUP_NAMES
from longtail.files import output_path, write_atomically
from longtail.formatting import interval_text, listing, percent, sentence_case, signed
from longtail.report.class_table import table_json
from longtail.report.plots import GROUP_LABELS, THEME, shorten
from longtail.report.section import Section
from longtail.report.sections.order import build_sections
from longtail.report.sections.results import verdict
from longtail.run.layout import EXAMPLES_FILE
from longtail.version import __version__

TITLE_LENGTH = 48
"""The title names the configurations where their names take no more characters than this."""
FILE_LENGTH = 28
"""Characters of a file's name under its picture."""


def write_report(
    runs: Sequence[str | Path], out: str | Path, *, names: Sequence[str] | None = None, baseline: str | None = None
) -> Path:
    """Write the report of one or more runs.

    The first run is the one that others are compared with; runs that differ only in their seed are folded.

    Args:
        runs: RUN folders.
        out: The HTML file; its folder is made, and the file appears complete or not at all.
        names: As for :func:`longtail.compare.comparison.compare_runs`.
        baseline: As there.

    Returns:
        The path of the file.

    Raises:
        LongtailError: A folder is not a finished run, the runs have different classes, or the file cannot be written.
    """
    comparison = compare_runs(runs, stages=True, names=names, baseline=baseline)
    return write_page(comparison, build_sections(comparison), output_path(out))


def write_page(comparison: Comparison, sections: Sequence[Section], out: Path) -> Path:
    """Write the page for callers that already built the sections.

    Raises:
        LongtailError: The file cannot be written.
    """
    write_atomically(out, render_report(comparison, sections).encode())
    return out


def render_report(comparison: Comparison, sections: Sequence[Section] | None = None) -> str:
    """Render the page as text; without sections given, with all that have something to show."""
    shown = build_sections(comparison) if sections is None else sections
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=_title(comparison),
            lead=verdict(comparison),
            facts=_facts(comparison),
            users=[section for section in shown if not section.for_researchers],
            researchers=[section for section in shown if section.for_researchers],
            recolor=json.dumps({light: f"--{name}" for name, (light, _) in THEME.items()}),
            plotly=get_plotlyjs(),
            classes=table_json(comparison),
            examples_file=EXAMPLES_FILE,
        )
    )


def _title(comparison: Comparison) -> str:
    """The configurations, and the last part of the path of their data where they share it."""
    labels = [row.label for row in comparison.final]
    listed = listing(labels)
    title = listed if len(listed) <= TITLE_LENGTH or len(labels) == 1 else f"{len(labels)} configurations"
    data = [run.config.get("data") for row in comparison.final for run in row.runs]
    sources = [str(options.get("source") or "") for options in data if isinstance(options, dict)]
    names = {PurePosixPath(source.split(":", 1)[-1]).name for source in sources} - {""}
    return f"{title} on {names.pop()}" if len(names) == 1 else title


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The figures of the strip under the title."""
    run = comparison.rows[0].runs[0]
    metrics = run.metrics(comparison.split) if comparison.split else None
    return [
        ("Classes", f"{len(run.counts):,}"),
        ("Training images", f"{run.counts.total:,}"),
        ("Imbalance ratio", f"{run.counts.imbalance_ratio:,.0f}"),
        ("Many / medium / few", " / ".join(f"{run.group_of.count(name):,}" for name in GROUP_NAMES)),
        (f"{(comparison.split or 'test').capitalize()} images", f"{metrics.num_images:,}" if metrics else "none"),
    ]


def environment(*folders: Path) -> jinja2.Environment:
    """Build the environment of the templates: escaped values, an error for a missing name, and what all pages share.

    Args:
        *folders: Further folders with templates.

    Example:
        >>> environment().from_string("{{ words }} {{ signed(0.031) }}").render(words="a < b")
        'a &lt; b +3.1'
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", *folders]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.globals.update(theme=THEME, group_labels=GROUP_LABELS, version=__version__)
    templates.globals.update(mean_std_text=mean_std_text, mark=mark, signed=signed, interval_text=interval_text)
    templates.filters.update(
        percent=percent,
        sentence_case=sentence_case,
        file_name=lambda path: shorten(PurePosixPath(path).name, FILE_LENGTH),
    )
    return templates
