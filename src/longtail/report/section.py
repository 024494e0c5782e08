"""The parts of a section of the page: figures, entries of a legend, a sentence, a table of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import plotly.graph_objects as go

from longtail.report.pictures import Picture


@dataclass(frozen=True)
class Drawing:
    """A figure in the page: what stands above it, what is read aloud for it, and its JSON.

    Attributes:
        id: Its name in the page.
        title: Heading above it.
        alt: Text for screen readers.
        figure: The figure.
        starts_row: It begins a new row of the section.
    """

    id: str
    title: str
    alt: str
    figure: go.Figure
    starts_row: bool = False

    @property
    def json(self) -> str:
        """The figure for a script element: ``<`` is escaped, so that no name can end the element."""
        return str(self.figure.to_json()).replace("<", "\\u003c")

    @property
    def height(self) -> int:
        """Pixels kept free until the figure is drawn."""
        return int(self.figure.layout.height)


def in_rows(*measures: Sequence[Drawing]) -> tuple[Drawing, ...]:
    """Drawings one measure after another, each measure from the start of a row where it has several.

    Example:
        >>> drawing = Drawing("a", "", "", go.Figure())
        >>> [each.starts_row for each in in_rows([drawing, drawing], [drawing, drawing], [drawing])]
        [True, False, True, False, False]
    """
    return tuple(
        replace(drawing, starts_row=position == 0 and len(measure) > 1)
        for measure in measures
        for position, drawing in enumerate(measure)
    )


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a CSS color variable, a shape (a plotly symbol or ``line``) and words."""

    color: str
    shape: str
    text: str


Cell: TypeAlias = str | tuple[str, str]
"""A cell of a table as written in the page: a text, or a number and its interval."""


@dataclass(frozen=True)
class Table:
    """The numbers of a section, or a list of images or classes; the page sorts it and saves it as CSV.

    Attributes:
        caption: Description of the numbers.
        heads: Column headings.
        rows: As written in the page; the first ``labels`` cells of each are words or a picture with its caption, the
            others numbers, possibly with an interval.
        labels: Number of columns that hold words.
        folded: Label to click that opens it; empty for a table that is open.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell | Picture, ...], ...]
    labels: int = 1
    folded: str = "The numbers"


def read_aloud(figure: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], labels: int = 1) -> str:
    """The text for screen readers of a figure: what it shows, then the rows of a table that it draws, less empty cells.

    Args:
        figure: What it shows.
        heads: Headings of the columns of the rows.
        rows: As for :class:`Table`.
        labels: Number of columns that hold words.

    Example:
        >>> read_aloud("Bars of accuracy", ("Run", "All", "Few"), [("ce", ("40.0", "38.1–41.9"), "n/a")])
        'Bars of accuracy. ce: all 40.0 (38.1–41.9), few n/a.'
    """
    lines = []
    for row in rows:
        cells = [cell if isinstance(cell, str) else f"{cell[0]} ({cell[1]})" if cell[1] else cell[0] for cell in row]
        numbers = [f"{head.lower()} {cell}" for head, cell in zip(heads[labels:], cells[labels:], strict=True) if cell]
        lines.append(f"{', '.join(cells[:labels])}: {', '.join(numbers)}")
    return f"{figure}. {'; '.join(lines)}."


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        id: Anchor.
        title: Heading.
        sentence: The finding in words.
        layout: ``one``, ``two``, ``three`` or ``four`` figures side by side where there is room.
        legend: Shared by all figures of the section.
        drawings: The figures.
        partial: Template that renders ``data`` beneath the figures, if any.
        data: Values for the partial.
        table: The numbers of the figures, beneath them.
        for_researchers: Behind the page's fold; set by :func:`longtail.report.sections.order.build_sections`.
    """

    id: str
    title: str
    sentence: str = ""
    layout: str = "one"
    legend: tuple[Key, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    partial: str = ""
    data: dict[str, object] = field(default_factory=dict)
    table: Table | None = None
    for_researchers: bool = False
