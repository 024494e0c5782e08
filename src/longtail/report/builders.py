"""The two builders that draw a declared section: a value for each class, or a line for each group over the epochs.

A declaration says where the values come from, a title, one template sentence and the measures. From these a builder
makes the figures, with the same axes for all configurations, what is read aloud for each, the legend and a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.norms import RankTrend, rank_trend
from longtail.compare.table import Comparison
from longtail.counts import GROUP_NAMES, FloatArray, GroupName
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.evaluation.metrics import group_means
from longtail.evaluation.significance import seeds_interval
from longtail.formatting import listing, number, signed
from longtail.report import plots
from longtail.report.configurations import Measured, group_keys, named, run_keys, seed_note, side_by_side
from longtail.report.section import Drawing, Key, Section, Table, in_rows, read_aloud
from longtail.run.result import Ends

CLASS_HEADS = (*plots.GROUP_LABELS.values(), "With the size of the class")


def trend_text(trend: RankTrend) -> str:
    """Describe in words whether a value rises or falls with the training images of a class, with the rank correlation.

    Example:
        >>> [trend_text(RankTrend(*each)) for each in ((0.8, 1e-9, 100), (0.1, 0.4, 100), (0.02, 0.2, 8142))]
        ['rises (0.80)', 'no clear trend (0.10)', 'no trend (0.02)']
    """
    if not np.isfinite(trend.rho):
        return "n/a"
    none = "no trend" if trend.is_none else "no clear trend"
    return f"{none if not trend.is_evidence else 'rises' if trend.rho > 0 else 'falls'} ({number(trend.rho)})"


K = TypeVar("K")


@dataclass(frozen=True)
class Measure(Generic[K]):
    """A row of figures that share their value axis.

    Attributes:
        key: Key of the values.
        id: Id of the figures, to which the builder adds the number of the configuration or the name of the group.
        title: Heading of a figure.
        spec: Format of a value, such as ``.2f`` or ``.1%``.
        axis: Title of the axis; that of the figure when not given.
        log: On a logarithmic axis.
        level: Height of a dotted line.
        include: Values that the axis holds.
    """

    key: K
    id: str
    title: str
    spec: str = ".2f"
    axis: str = ""
    log: bool = False
    level: float | None = None
    include: tuple[float, ...] = ()

    def ends(self, arrays: Iterable[npt.ArrayLike], room: float = 0.06) -> Ends:
        """Compute the ends of an axis that holds the finite values of all panels.

        Of a logarithmic axis only positive values count, and the ends are powers of ten. Without values they are 0, 1.

        Args:
            arrays: The values of each panel.
            room: Share of the range left free at either end.

        Example:
            >>> Measure("norm", "norm", "Norm").ends([np.array([1.0, np.nan]), np.array([3.0])], room=0.5)
            (0.0, 4.0)
            >>> Measure("norm", "norm", "Norm", log=True).ends([np.array([1.0, 0.0, 100.0])], room=0.5)
            (-1.0, 3.0)
        """
        level = () if self.level is None else (self.level,)
        values = np.concatenate([level, self.include, *map(np.ravel, arrays)])
        values = values[np.isfinite(values) & ((values > 0) | (not self.log))]
        if not values.size:
            return 0.0, 1.0
        low, high = (np.log10(values) if self.log else values)[[values.argmin(), values.argmax()]]
        pad = room * float(high - low or abs(high) or 1.0)
        return float(low) - pad, float(high) + pad

    def set_axis(self, figure: go.Figure, limits: Ends) -> None:
        """Set the limits of the vertical axis of a figure, with a dotted line at the level."""
        if self.level is not None:
            figure.add_hline(y=self.level, line=plots.DOTTED)
        figure.update_yaxes(self.axis_options(limits, self.axis or self.title))

    def axis_options(self, limits: Ends, title: str) -> dict[str, Any]:
        """The options of an axis with these limits."""
        span, axis = limits[1] - limits[0], {"title": title, "range": limits, "nticks": 6}
        if self.log:
            # Powers of ten, then 1, 2 and 5 of each, and what plotly chooses over less than that.
            return axis | {"type": "log", "tickformat": "~g", "dtick": 1 if span > 2 else "D2" if span > 0.6 else None}
        return axis | ({"tickformat": ".0%" if span > 0.2 else ".1%"} if self.spec.endswith("%") else {})


@dataclass(frozen=True)
class ClassMeasure(Measure[str]):
    """A value for each class.

    Attributes:
        unit: Written after a value.
        whisker: Key of half the length of a whisker through each point.
        across: Key of values to draw it against; the training images of a class when not given.
        across_title: At that axis.
        compare: Whether the table holds the change against the first configuration, class by class; of positive values.
    """

    unit: str = ""
    whisker: str = ""
    across: str = ""
    across_title: str = ""
    compare: bool = False

    def trend(self, each: Measured) -> str:
        """Describe in words whether the values rise or fall with the size of a class."""
        return trend_text(rank_trend(each.values[self.key], each.run.counts.array))

    def numbers(self, each: Measured) -> list[str]:
        """The mean over the classes of each shot group, ``n/a`` without finite values, and the trend."""
        values = each.values[self.key]
        means = group_means(np.where(np.isfinite(values), values, np.nan), each.run.group_of)
        return [*(number(mean, self.spec) + self.unit for mean in means), self.trend(each)]

    def on_axis(self, each: Measured) -> list[FloatArray]:
        """All values that the vertical axis has to hold; those of both axes where they are the same."""
        values = each.values[self.key]
        if self.whisker:
            return [values - each.values[self.whisker], values + each.values[self.whisker]]
        return [values, each.values[self.across]] if self.across else [values]

    def alt(self, each: Measured) -> str:
        """The text for screen readers of the figure of a configuration."""
        values, images = each.values[self.key], f" of {each.split} images" if each.split else ""
        against = self.across_title.lower() if self.across else "its training images"
        low, high = (number(float(end), self.spec) for end in (np.nanmin(values), np.nanmax(values)))
        text = f"Points of {self.title.lower()}{images} for each class against {against}, from {low} to {high}"
        return read_aloud(text, ("Configuration", *CLASS_HEADS), [(each.label, *self.numbers(each))])

    def change(self, each: Measured, first: Measured) -> str:
        """The change against the first configuration with its interval over classes."""
        comparable = self.compare and each.has_cosine_head == first.has_cosine_head
        change = ratio_change(each.values[self.key], first.values[self.key]) if comparable else None
        if change is None:
            return "n/a"
        share, low, high = map(signed, change)
        return f"{share}% ({LEVEL_TEXT} interval {low} to {high})"


@dataclass(frozen=True)
class ClassSection:
    """A section of points: one for each class, against its number of training images.

    Attributes:
        id: Anchor.
        title: Heading.
        sentence: Description; ``{split}`` is the split that was measured, and ``{trends}`` the trend of the first
            measure with the size of a class under each configuration.
        read: Gives the configurations with their values.
        measures: One row of figures each.
    """

    id: str
    title: str
    sentence: str
    read: Callable[[Comparison], Sequence[Measured]]
    measures: tuple[ClassMeasure, ...]

    def build(self, comparison: Comparison) -> Section | None:
        """Draw the section; None where no configuration has values."""
        shown = list(self.read(comparison))
        rows = [(measure, [each for each in shown if each.has(measure.key)]) for measure in self.measures]
        first = next((panels for _, panels in rows if panels), None)
        if first is None:
            return None
        drawings = [self._drawings(measure, panels, shown) for measure, panels in rows]
        trends = [f"{self.measures[0].trend(each)} under {each.label}" for each in named(first, lambda each: each.row)]
        sentence = self.sentence.format(split=shown[0].split, trends=listing(trends))
        sentence += seed_note(each.seeds for each in shown)
        legend, table = group_keys(shown[0].run), self._table(rows, shown)
        return Section(self.id, self.title, sentence, _layout(drawings), legend, in_rows(*drawings), table=table)

    def _drawings(self, measure: ClassMeasure, panels: Sequence[Measured], shown: Sequence[Measured]) -> list[Drawing]:
        """The figures of a measure, all with the same axes."""
        limits = measure.ends(values for each in panels for values in measure.on_axis(each))
        hover = f"{measure.title.lower()} %{{y:{measure.spec}}}{measure.unit}"
        if measure.across:
            hover += f", {measure.across_title.lower()} %{{x:{measure.spec}}}"
        drawings = []
        for each in panels:
            figure, run = plots.blank(260 if len(self.measures) > 1 else 300, left=58), each.run
            x = each.values[measure.across] if measure.across else plots.count_axis(figure, run.counts)
            y, whisker = each.values[measure.key], each.values.get(measure.whisker)
            plots.add_points(figure, run.group_of, x, y, hover=hover, whisker=whisker, notes=each.notes)
            if measure.across:
                figure.update_xaxes(measure.axis_options(limits, measure.across_title))
                corners = np.power(10.0, limits) if measure.log else np.array(limits)
                figure.add_scatter(x=corners, y=corners, mode="lines", line=plots.DOTTED, hoverinfo="skip")
            measure.set_axis(figure, limits)
            if len(self.measures) == 1:
                heading = each.label
            else:
                heading = measure.title if len(shown) == 1 else f"{measure.title}, {each.label}"
            drawings.append(Drawing(f"{measure.id}-{shown.index(each)}", heading, measure.alt(each), figure))
        return drawings

    def _table(self, rows: Sequence[tuple[ClassMeasure, Sequence[Measured]]], shown: Sequence[Measured]) -> Table:
        """The mean of each shot group, and the trend, of each measure and configuration."""
        against = len(shown) > 1 and any(measure.compare for measure in self.measures)
        heads, lines = ["Configuration", "Measure", *CLASS_HEADS], []
        for measure, panels in rows:
            for each in panels:
                cells = [each.label, measure.title, *measure.numbers(each)]
                if against:
                    cells.append(measure.change(each, panels[0]) if each is not panels[0] else "")
                lines.append(tuple(cells))
        if against:
            heads.append(f"Change against {shown[0].label}")
        caption = f"{self.title}: means over the classes of a shot group, and rank correlation with training images."
        return Table(caption, tuple(heads), tuple(lines), labels=2)


def _layout(rows: Sequence[Sequence[Drawing]]) -> str:
    """The layout of a section with a row of figures for each measure."""
    widest = max(map(len, rows))
    return side_by_side(widest if widest > 1 else len(rows))


def ratio_change(values: npt.ArrayLike, base: npt.ArrayLike) -> tuple[float, float, float] | None:
    """Mean relative change of a value over the classes, with its interval.

    Logarithms are compared, so that twice and half weigh the same; the mean is the geometric one.

    Args:
        values: One for each class, shape (C,); a class is left out where either is not finite and positive.
        base: Values to compare with, shape (C,).

    Returns:
        The change as a share, and both ends of its interval; None for fewer than two classes.

    Example:
        >>> [round(value, 3) for value in ratio_change([2.0, 3.0, 5.0], [1.0, 2.0, 2.0])]
        [0.957, 0.036, 2.698]
    """
    new, old = np.asarray(values, dtype=np.float64), np.asarray(base, dtype=np.float64)
    positive = np.isfinite(new) & np.isfinite(old) & (new > 0) & (old > 0)
    if positive.sum() < 2:
        return None
    change = np.log(new[positive] / old[positive])
    low, high = seeds_interval(float(change.mean()), float(change.std(ddof=1)), int(positive.sum()))
    return float(np.expm1(change.mean())), float(np.expm1(low)), float(np.expm1(high))


@dataclass(frozen=True)
class Line:
    """A line of a figure.

    Attributes:
        each: Run that it belongs to.
        key: Key of its values.
        column: Column of its group in them.
        name: Name in the hover text.
        style: Its color, dash and width, and the band around it.
    """

    each: Measured
    key: str
    column: int
    name: str
    style: dict[str, Any]

    @property
    def values(self) -> FloatArray:
        """Vertical coordinates, shape (N,)."""
        return self.each.values[self.key][:, self.column]

    @property
    def x(self) -> FloatArray:
        """Horizontal coordinates, shape (N,): the values ``x``, or the epochs."""
        return self.each.values.get("x", np.arange(1.0, len(self.values) + 1))


@dataclass(frozen=True)
class LineMeasure(Measure[str | Mapping[str, str]]):
    """A line for each shot group, or for all images.

    Attributes:
        key: Key of the values, shape (N, 3) or (N, 1); of two, by their words, the second is drawn dashed.
        band: Keys of the lower and the upper end of a band around each line.
    """

    band: tuple[str, str] | tuple[()] = ()

    @property
    def lines(self) -> Mapping[str, str]:
        """The words and the key of each line."""
        return {self.title: self.key} if isinstance(self.key, str) else self.key

    def lines_of(
        self, each: Measured, group: GroupName | None, name: str, color: str, dash: str = "solid"
    ) -> list[Line]:
        """The lines of a shot group, or of all images, under a configuration; none for a key without values."""
        column = GROUP_NAMES.index(group) if group else 0
        band = (each.values[self.band[0]][:, column], each.values[self.band[1]][:, column]) if self.band else None
        lines = []
        for index, (word, key) in enumerate(self.lines.items()):
            words = f"{name} {word.lower()}" if len(self.lines) > 1 else name
            style = {"color": color, "dash": "dash" if index else dash, "width": 1.2 if index else 2, "band": band}
            if each.has(key):
                lines.append(Line(each, key, column, words, style))
        return lines


@dataclass(frozen=True)
class LineSection:
    """A section of lines over the epochs of both stages; a subclass may draw them against something else.

    Attributes:
        id: Anchor.
        title: Heading.
        sentence: Description; ``{numbers}`` is the first measure at the end of stage 1 under each configuration,
            of the smallest and of the largest shot group.
        read: Gives the configurations with their values.
        measures: One row of figures each.
        panels: A figure for each configuration, with the groups as lines, or the other way round; for each measure,
            with the configurations as lines, where values have one column for all images.
    """

    id: str
    title: str
    sentence: str
    read: Callable[[Comparison], Sequence[Measured]]
    measures: tuple[LineMeasure, ...]
    panels: Literal["configurations", "groups", "measures"] = "configurations"
    place: ClassVar[str] = "epoch %{x}"
    """Hover text of a position on the horizontal axis."""
    symbols: ClassVar[bool] = False
    """Whether the symbols of the groups stand on the lines."""

    def build(self, comparison: Comparison) -> Section | None:
        """Draw the section; None where no configuration has values."""
        shown = list(self.read(comparison))
        if not shown:
            return None
        drawings = [self._drawings(measure, shown) for measure in self.measures]
        first = list({each.row.name: each for each in reversed(shown)}.values())[::-1]
        if self.symbols:
            legend = group_keys(first[0].run)
        elif self.panels == "configurations":
            legend = tuple(Key(name, "line", plots.GROUP_LABELS[name]) for name in _groups(shown))
        else:
            legend = run_keys([each.row for each in first])
        pairs = [pair for measure in self.measures if len(measure.lines) > 1 for pair in measure.lines.items()]
        words = dict.fromkeys(word for word, key in pairs if any(each.has(key) for each in shown))
        if len(words) > 1:
            legend += tuple(Key("ink", shape, word) for word, shape in zip(words, ("line", "dashed"), strict=True))
        numbers = "; ".join(self.numbers(each) for each in named(first, lambda each: each.row))
        sentence = self.sentence.format(numbers=numbers) + seed_note(each.seeds for each in shown)
        layout, table = _layout(drawings), self.table(first)
        return Section(self.id, self.title, sentence, layout, legend, in_rows(*drawings), table=table)

    def _drawings(self, measure: LineMeasure, shown: Sequence[Measured]) -> list[Drawing]:
        """The figures of a measure, all with the same axes."""
        keys = (*measure.lines.values(), *measure.band)
        limits = measure.ends(each.values[key] for each in shown for key in keys if each.has(key))
        last, drawings = max(len(each.stage) for each in shown), []
        for name, title, lines in self._panels(measure, shown):
            figure = plots.blank(300 if self.panels == "configurations" else 240, left=58)
            for line in lines:
                y = np.where(line.values > 0, line.values, np.nan) if measure.log else line.values
                opacity = 1 if sum(line.each.row is each.row for each in shown) == 1 else 0.55
                hover = f"{self.place}: %{{y:{measure.spec}}}"
                plots.add_line(
                    figure, line.x, y, name=line.name, hover=hover, edges=True, opacity=opacity, **line.style
                )
            alt = self.finish(figure, lines, title, measure.spec, last)
            measure.set_axis(figure, limits)
            drawings.append(Drawing(name, title, alt, figure))
        return drawings

    def finish(self, figure: go.Figure, lines: Sequence[Line], title: str, spec: str, last: int) -> str:
        """Draw the horizontal axis of a figure, and return the text for screen readers."""
        stages = [line.each.end + 1 for line in lines if line.each.end + 1 < len(line.values)]
        plots.epoch_axis(figure, stages, last)
        parts = []
        for line in lines:
            start, end = (number(float(line.values[epoch]), spec) for epoch in (0, line.each.end))
            parts.append(f"{line.name} {start} to {end}")
        return f"Lines over epochs, {title}, from the first to the last epoch of stage 1: {'; '.join(parts)}."

    def _panels(self, measure: LineMeasure, shown: Sequence[Measured]) -> Iterator[tuple[str, str, list[Line]]]:
        """The id, the title and the lines of each figure of a measure."""
        if self.panels == "configurations":
            for index, each in enumerate(shown):
                looks = [(name, plots.GROUP_LABELS[name], plots.GROUP_COLORS[name]) for name in each.groups]
                title = each.label if len(self.measures) == 1 else f"{each.label}: {measure.title}"
                yield f"{measure.id}-{index}", title, [line for look in looks for line in measure.lines_of(each, *look)]
            return
        for group in _groups(shown) if self.panels == "groups" else [None]:
            title = f"{plots.GROUP_LABELS[group]}: {measure.title}" if group else measure.title
            members = [each for each in shown if group in (None, *each.groups)]
            lines = [measure.lines_of(each, group, each.label, *plots.run_style(each.row.color)) for each in members]
            yield f"{measure.id}-{group}" if group else measure.id, title, list(chain.from_iterable(lines))

    def numbers(self, each: Measured) -> str:
        """The first measure at the end of stage 1 in words."""
        measure = self.measures[0]
        texts = [number(value, measure.spec) for value in each.values[next(iter(measure.lines.values()))][each.end]]
        if self.panels == "measures":
            return f"{texts[0]} under {each.label}"
        parts = [
            f"{texts[GROUP_NAMES.index(name)]} for {plots.GROUP_LABELS[name].lower()}"
            for name in dict.fromkeys((each.groups[-1], each.groups[0]))
        ]
        return f"{listing(parts)} classes under {each.label}"

    def table(self, shown: Sequence[Measured]) -> Table:
        """The first epoch, the end of stage 1 and the last epoch of each line."""
        rows = []
        for measure in self.measures:
            for word, key in measure.lines.items():
                title = measure.title if len(measure.lines) == 1 else f"{measure.title}, {word.lower()}"
                for each in [each for each in shown if each.has(key)]:
                    for epoch in dict.fromkeys((0, each.end, len(each.stage) - 1)):
                        cells = [number(value, measure.spec) for value in each.values[key][epoch]]
                        rows.append((each.label, title, str(epoch + 1), *cells))
        columns = ["Value"] if self.panels == "measures" else plots.GROUP_LABELS.values()
        caption = f"{self.title}: first epoch, last epoch of stage 1 and last epoch."
        return Table(caption, ("Configuration", "Measure", "Epoch", *columns), tuple(rows), labels=2)


def _groups(shown: Sequence[Measured]) -> list[GroupName]:
    return [name for name in GROUP_NAMES if any(name in each.groups for each in shown)]
