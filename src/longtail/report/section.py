"""What a section of the page is made of: figures, entries of a legend, a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field

import plotly.graph_objects as go


@dataclass(frozen=True)
class Drawing:
    """A figure in the page: what stands above it, what is read aloud for it, and its JSON."""

    id: str
    title: str
    alt: str
    figure: go.Figure

    @property
    def json(self) -> str:
        """The figure for a script element: ``<`` is escaped, so that no name can end the element."""
        return str(self.figure.to_json()).replace("<", "\\u003c")

    @property
    def height(self) -> int:
        """Pixels kept free until the figure is drawn."""
        return int(self.figure.layout.height)


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a CSS colour variable, a shape (a plotly symbol or ``line``) and words."""

    colour: str
    shape: str
    text: str


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        id: Anchor.
        title: Heading.
        sentence: What to see, computed from the numbers.
        layout: ``one``, ``two`` or ``four`` figures side by side where there is room.
        legend: Shared by all figures of the section.
        drawings: The figures.
        partial: Template that renders ``data`` beneath the figures, if any.
        data: What the partial shows.
    """

    id: str
    title: str
    sentence: str = ""
    layout: str = "one"
    legend: tuple[Key, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    partial: str = ""
    data: dict[str, object] = field(default_factory=dict)
