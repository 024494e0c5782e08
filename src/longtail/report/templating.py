"""environment: how all pages are made from the templates beside this file."""

from __future__ import annotations

from pathlib import Path

import jinja2

from longtail.report.text import interval_text, mark, signed, spread_text


def environment() -> jinja2.Environment:
    """Templates that escape what they are given, fail on a name they are not given, and can write numbers.

    Example:
        >>> environment().from_string("{{ words }} {{ signed(0.031) }}").render(words="a < b")
        'a &lt; b +3.1'
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.globals.update(spread_text=spread_text, mark=mark, signed=signed, interval_text=interval_text)
    return made
