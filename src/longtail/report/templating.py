"""environment: how all pages are made from the templates in this folder."""

from __future__ import annotations

from pathlib import Path

import jinja2

from longtail.report.text import interval_text, mark, signed, spread_text


def environment(*folders: Path) -> jinja2.Environment:
    """Build the environment of the templates: escaped values, an error for a missing name, functions for numbers.

    Args:
        *folders: Further folders with templates.

    Example:
        >>> environment().from_string("{{ words }} {{ signed(0.031) }}").render(words="a < b")
        'a &lt; b +3.1'
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", *folders]),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.globals.update(spread_text=spread_text, mark=mark, signed=signed, interval_text=interval_text)
    return made
