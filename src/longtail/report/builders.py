"""The two builders that draw a declared section: a value for each class, or a line for each group over the epochs.

A declaration says where the values come from, a title, one template sentence and the measures. From these a builder
makes the figures, with the same axes for all configurations, what is read aloud for each, the legend and a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.norms import RankTrend, rank_trend
from longtail.compare.table import Comparison
from longtail.counts import GROUP_NAMES, FloatArray, GroupName
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.evaluation.metrics import group_means
from longtail.evaluation.significance import seeds_interval
from longtail.formatting import MINUS, listing, number, signed
from longtail.report.configurations import Measured, group_keys, named, run_keys, seed_note, side_by_side
from longtail.report.plots import (
    GROUP_COLORS,
    GROUP_LABELS,
    MUTED,
    Ends,
    add_line,
    add_points,
    axis_ends,
    blank,
    count_axis,
    epoch_axis,
    run_style,
    value_axis,
)
from longtail.report.section import Drawing, Key, Section, Table, in_rows


def value_text(value: float, spec: str) -> str:
    """A number of a table or a sentence, with a true minus; ``n/a`` where it is not finite.

    Example:
        >>> value_text(-0.034, ".2f"), value_text(0.5, ".1%"), value_text(float("nan"), ".2f")
        ('−0.03', '50.0%', 'n/a')
    """
    return f"{value:{spec}}".replace("-", MINUS) if np.isfinite(value) else "n/a"


def trend_text(trend: RankTrend) -> str:
    """Whether something rises or falls with the training images of a class, and the rank correlation.

    Example:
        >>> [trend_text(RankTrend(*each)) for each in ((0.8, 1e-9, 100), (0.1, 0.4, 100), (0.02, 0.2, 8142))]
        ['rises (0.80)', 'no clear trend (0.10)', 'no trend (0.02)']
    """
    if not np.isfinite(trend.rho):
        return "n/a"
    none = "no trend" if trend.is_none else "no clear trend"
    return f"{none if not trend.is_evidence else 'rises' if trend.rho > 0 else 'falls'} ({number(trend.rho)})"


@dataclass(frozen=True)
class ClassMeasure:
    """A value for each class.

    Attributes:
        key: Of the values.
        id: Of the figures, which get the number of the configuration.
        title: What stands above a figure and at its axis.
        spec: How a value is written, such as ``.2f``.
        unit: Written after a value.
        log: On a logarithmic axis.
        level: Where a dotted line is drawn.
        whisker: Key of half the length of a whisker through each point.
        across: Key of values to draw it against; the training images of a class when not given.
        across_title: At that axis.
        compare: Whether the table holds the change against the first configuration, class by class; of positive values.
    """

    key: str
    id: str
    title: str
    spec: str = ".2f"
    unit: str = ""
    log: bool = False
    level: float | None = None
    whisker: str = ""
    across: str = ""
    across_title: str = ""
    compare: bool = False


@dataclass(frozen=True)
class ClassSection:
    """A section of points: one for each class, against its number of training images.

    Attributes:
        id: Anchor.
        title: Heading.
        sentence: What is drawn; ``{split}`` is the split that was measured, and ``{trends}`` how the first measure goes
            with the size of a class under each configuration.
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
        rows = [(measure, [each for each in shown if _has(each, measure.key)]) for measure in self.measures]
        if not any(panels for _, panels in rows):
            return None
        drawings = [self._drawings(measure, panels, shown) for measure, panels in rows]
        first = next(panels for _, panels in rows if panels)
        spoken = named(first, lambda each: each.row)
        trends = listing([f"{trend_text(_trend(self.measures[0], each))} under {each.label}" for each in spoken])
        sentence = self.sentence.format(split=shown[0].split, trends=trends) + seed_note(each.seeds for each in shown)
        table = self._table(rows, shown)
        legend = group_keys(shown[0].run)
        return Section(self.id, self.title, sentence, _layout(drawings), legend, in_rows(*drawings), table=table)

    def _drawings(self, measure: ClassMeasure, panels: Sequence[Measured], shown: Sequence[Measured]) -> list[Drawing]:
        ends = axis_ends(
            [values for each in panels for values in _drawn(each, measure)],
            log=measure.log,
            include=[] if measure.level is None else [measure.level],
        )
        drawings = []
        for each in panels:
            figure = blank(260 if len(self.measures) > 1 else 300, left=58)
            counts = each.run.counts.array
            sizes = np.where(counts > 0, counts, 0.5)
            across = each.values[measure.across] if measure.across else sizes
            hover = f"{measure.title.lower()} %{{y:{measure.spec}}}{measure.unit}"
            if measure.across:
                hover += f", {measure.across_title.lower()} %{{x:{measure.spec}}}"
            whisker = each.values[measure.whisker] if measure.whisker else None
            add_points(
                figure,
                each.run.group_of,
                across,
                each.values[measure.key],
                hover=hover,
                whisker=whisker,
                notes=each.notes,
            )
            if measure.across:
                _diagonal(figure, measure, ends)
            else:
                count_axis(figure, sizes.astype(np.float64))
            title = f"{measure.title} ({measure.unit.strip()})" if measure.unit else measure.title
            value_axis(figure, ends, title=title, spec=measure.spec, log=measure.log, level=measure.level)
            drawings.append(
                Drawing(
                    f"{measure.id}-{shown.index(each)}",
                    self._heading(measure, each, shown),
                    _class_alt(measure, each),
                    figure,
                )
            )
        return drawings

    def _heading(self, measure: ClassMeasure, each: Measured, shown: Sequence[Measured]) -> str:
        if len(self.measures) == 1:
            return each.label
        return measure.title if len(shown) == 1 else f"{measure.title}, {each.label}"

    def _table(self, measured: Sequence[tuple[ClassMeasure, Sequence[Measured]]], shown: Sequence[Measured]) -> Table:
        against = any(measure.compare for measure, _ in measured) and len(shown) > 1
        heads = ["Configuration", "Measure", *GROUP_LABELS.values(), "With the size of the class"]
        rows = []
        for measure, panels in measured:
            for each in panels:
                cells = [each.label, measure.title, *_group_texts(measure, each), trend_text(_trend(measure, each))]
                if against:
                    cells.append(_change_text(each, panels[0], measure) if each is not panels[0] else "")
                rows.append(tuple(cells))
        if against:
            heads.append(f"Change against {shown[0].label}")
        caption = f"{self.title}: means over the classes of a shot group, and rank correlation with training images."
        return Table(caption, tuple(heads), tuple(rows), labels=2)


def _layout(rows: Sequence[Sequence[Drawing]]) -> str:
    """The layout of a section with a row of figures for each measure."""
    widest = max(len(row) for row in rows)
    return side_by_side(widest if widest > 1 else len(rows))


def _has(each: Measured, key: str) -> bool:
    return bool(np.isfinite(each.values[key]).any())


def _trend(measure: ClassMeasure, each: Measured) -> RankTrend:
    return rank_trend(each.values[measure.key], each.run.counts.array)


def _group_texts(measure: ClassMeasure, each: Measured) -> list[str]:
    """The mean over the classes of each shot group; ``n/a`` for a group without finite values."""
    values = each.values[measure.key]
    means = group_means(np.where(np.isfinite(values), values, np.nan), each.run.group_of)
    return [value_text(mean, measure.spec) + measure.unit for mean in means]


def _drawn(each: Measured, measure: ClassMeasure) -> list[FloatArray]:
    """All values that the vertical axis has to hold; those of both axes where they are the same."""
    values = each.values[measure.key]
    if measure.whisker:
        return [values - each.values[measure.whisker], values + each.values[measure.whisker]]
    return [values, each.values[measure.across]] if measure.across else [values]


def _diagonal(figure: go.Figure, measure: ClassMeasure, ends: Ends | None) -> None:
    """An axis for a second measure in place of training images, and a dotted line where both are equal."""
    value_axis(figure, ends, title=measure.across_title, spec=measure.spec, log=measure.log, horizontal=True)
    corners = np.power(10.0, ends or (0.0, 1.0)) if measure.log else np.array(ends or (0.0, 1.0))
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    figure.add_scatter(x=corners, y=corners, mode="lines", line=line, hoverinfo="skip")


def _class_alt(measure: ClassMeasure, each: Measured) -> str:
    values = each.values[measure.key]
    means = zip(GROUP_LABELS.values(), _group_texts(measure, each), strict=True)
    parts = [f"{label.lower()} {text}" for label, text in means]
    against = measure.across_title.lower() if measure.across else "its training images"
    ends = [value_text(float(end), measure.spec) for end in (np.nanmin(values), np.nanmax(values))]
    images = f" of {each.split} images" if each.split else ""
    trend = trend_text(_trend(measure, each))
    return (
        f"Points of {measure.title.lower()}{images} for each class against {against} under {each.label}, "
        f"from {ends[0]} to {ends[1]}. Means: {', '.join(parts)}. With the size of the class: {trend}."
    )


def ratio_change(values: npt.ArrayLike, base: npt.ArrayLike) -> tuple[float, float, float] | None:
    """By what share something of each class differs from what it was, and the interval of that over classes.

    Logarithms are compared, so that twice and half weigh the same; the mean is the geometric one.

    Args:
        values: One for each class, shape (C,); a class is left out where either is not finite and positive.
        base: What it is compared with, shape (C,).

    Returns:
        The share and both ends of its interval; None for fewer than two classes.

    Example:
        >>> [round(value, 3) for value in ratio_change([2.0, 3.0, 5.0], [1.0, 2.0, 2.0])]
        [0.957, 0.036, 2.698]
    """
    new, old = np.asarray(values, dtype=np.float64), np.asarray(base, dtype=np.float64)
    known = np.isfinite(new) & np.isfinite(old) & (new > 0) & (old > 0)
    if known.sum() < 2:
        return None
    change = np.log(new[known] / old[known])
    ends = seeds_interval(float(change.mean()), float(change.std(ddof=1)), int(known.sum()))
    return float(np.expm1(change.mean())), float(np.expm1(ends[0])), float(np.expm1(ends[1]))


def _change_text(each: Measured, first: Measured, measure: ClassMeasure) -> str:
    """The change against the first configuration with its interval over classes."""
    if not measure.compare or each.kind != first.kind:
        return "n/a"
    change = ratio_change(each.values[measure.key], first.values[measure.key])
    if change is None:
        return "n/a"
    share, low, high = map(signed, change)
    return f"{share}% ({LEVEL_TEXT} interval {low} to {high})"


@dataclass(frozen=True)
class EpochMeasure:
    """A line for each shot group, or for all images, over the epochs.

    Attributes:
        id: Of the figures, which get the number of the configuration or the name of the group.
        title: What stands above a figure.
        keys: Of the values, shape (E, 3) or (E, 1); of two, by their words, the second is drawn dashed.
        spec: How a value is written, such as ``.2f`` or ``.1%``.
        axis: Title of the axis; that of the figure when not given.
        log: On a logarithmic axis.
        level: Where a dotted line is drawn.
        include: Values that the axis holds.
        band: Keys of the lower and the upper end of a band around each line.
    """

    id: str
    title: str
    keys: str | Mapping[str, str]
    spec: str = ".2f"
    axis: str = ""
    log: bool = False
    level: float | None = None
    include: tuple[float, ...] = ()
    band: tuple[str, str] | tuple[()] = ()

    @property
    def lines(self) -> Mapping[str, str]:
        """The words and the key of each line."""
        return {self.title: self.keys} if isinstance(self.keys, str) else self.keys

    def drawn(self, shown: Sequence[Measured]) -> dict[str, str]:
        """The words and keys that any of the configurations has values of."""
        return {word: key for word, key in self.lines.items() if any(_has(each, key) for each in shown)}


@dataclass(frozen=True)
class EpochSection:
    """A section of lines over the epochs of both stages.

    Attributes:
        id: Anchor.
        title: Heading.
        sentence: What is drawn; ``{numbers}`` is the first measure at the end of stage 1 under each configuration,
            of the smallest and of the largest shot group.
        read: Gives the configurations with their values.
        measures: One row of figures each.
        panels: A figure for each configuration, with the groups as lines, or the other way round.
        by_group: Whether values have a column for each group; else one for all images.
    """

    id: str
    title: str
    sentence: str
    read: Callable[[Comparison], Sequence[Measured]]
    measures: tuple[EpochMeasure, ...]
    panels: Literal["configurations", "groups"] = "configurations"
    by_group: bool = True

    def build(self, comparison: Comparison) -> Section | None:
        """Draw the section; None where no configuration has values."""
        shown = list(self.read(comparison))
        if not shown:
            return None
        drawings = [self._drawings(measure, shown) for measure in self.measures]
        first = list({each.row.name: each for each in reversed(shown)}.values())[::-1]
        if self.panels == "groups":
            legend = run_keys([each.row for each in first])
        else:
            legend = tuple(Key(name, "line", GROUP_LABELS[name]) for name in _groups(shown))
        words = dict.fromkeys(
            word for measure in self.measures for word in measure.drawn(shown) if len(measure.lines) > 1
        )
        if len(words) > 1:
            legend += tuple(Key("ink", shape, word) for word, shape in zip(words, ("line", "dashed"), strict=True))
        numbers = "; ".join(self._numbers(each) for each in named(first, lambda each: each.row))
        sentence = self.sentence.format(numbers=numbers) + seed_note(each.seeds for each in shown)
        layout = _layout(drawings)
        return Section(self.id, self.title, sentence, layout, legend, in_rows(*drawings), table=self._table(first))

    def _drawings(self, measure: EpochMeasure, shown: Sequence[Measured]) -> list[Drawing]:
        """The figures of a measure, all with the same axes."""
        keys = [*measure.lines.values(), *measure.band]
        ends = axis_ends(
            [each.values[key] for each in shown for key in keys],
            log=measure.log,
            include=measure.include if measure.level is None else (*measure.include, measure.level),
        )
        last = max(len(each.stage) for each in shown)
        drawings = []
        for name, title, lines in self._panels(measure, shown):
            figure = blank(300 if self.panels == "configurations" else 240, left=58)
            for line in lines:
                _add_epochs(figure, measure, line, alone=sum(line.each.row is other.row for other in shown) == 1)
            starts = [line.each.end + 1 for line in lines if line.each.stage[-1] != line.each.stage[0]]
            epoch_axis(figure, starts, last)
            value_axis(
                figure,
                ends,
                title=measure.axis or measure.title,
                spec=measure.spec,
                log=measure.log,
                level=measure.level,
            )
            drawings.append(Drawing(name, title, _epoch_alt(title, measure, lines), figure))
        return drawings

    def _panels(self, measure: EpochMeasure, shown: Sequence[Measured]) -> list[tuple[str, str, list[Line]]]:
        """The id, the title and the lines of each figure of a measure."""
        if self.panels == "configurations":
            titles = [each.label if len(self.measures) == 1 else f"{each.label}: {measure.title}" for each in shown]
            return [
                (f"{measure.id}-{place}", title, [_group_line(each, name) for name in each.groups])
                for place, (title, each) in enumerate(zip(titles, shown, strict=True))
            ]
        if not self.by_group:
            return [(measure.id, measure.title, [_run_line(each, 0) for each in shown])]
        return [
            (
                f"{measure.id}-{name}",
                f"{GROUP_LABELS[name]}: {measure.title}",
                [_run_line(each, GROUP_NAMES.index(name)) for each in shown if name in each.groups],
            )
            for name in _groups(shown)
        ]

    def _numbers(self, each: Measured) -> str:
        """The first measure at the end of stage 1 in words."""
        measure = self.measures[0]
        values = each.values[next(iter(measure.lines.values()))][each.end]
        if not self.by_group:
            return f"{value_text(values[0], measure.spec)} under {each.label}"
        parts = [
            f"{value_text(values[GROUP_NAMES.index(name)], measure.spec)} for {GROUP_LABELS[name].lower()}"
            for name in dict.fromkeys((each.groups[-1], each.groups[0]))
        ]
        return f"{listing(parts)} classes under {each.label}"

    def _table(self, shown: Sequence[Measured]) -> Table:
        """The first epoch, the end of stage 1 and the last epoch of each line."""
        rows = []
        for measure in self.measures:
            for word, key in measure.lines.items():
                title = measure.title if len(measure.lines) == 1 else f"{measure.title}, {word.lower()}"
                for each in [each for each in shown if _has(each, key)]:
                    for epoch in dict.fromkeys((0, each.end, len(each.stage) - 1)):
                        cells = [value_text(value, measure.spec) for value in each.values[key][epoch]]
                        rows.append((each.label, title, str(epoch + 1), *cells))
        columns = GROUP_LABELS.values() if self.by_group else ["Value"]
        caption = f"{self.title}: first epoch, last epoch of stage 1 and last epoch."
        return Table(caption, ("Configuration", "Measure", "Epoch", *columns), tuple(rows), labels=2)


@dataclass(frozen=True)
class Line:
    """A line of a figure: of which run, which column of its values, and how it is drawn."""

    each: Measured
    column: int
    name: str
    color: str
    dash: str = "solid"


def _group_line(each: Measured, name: GroupName) -> Line:
    return Line(each, GROUP_NAMES.index(name), GROUP_LABELS[name], GROUP_COLORS[name])


def _run_line(each: Measured, column: int) -> Line:
    return Line(each, column, each.label, *run_style(each.row.color))


def _groups(shown: Sequence[Measured]) -> list[GroupName]:
    return [name for name in GROUP_NAMES if any(name in each.groups for each in shown)]


def _add_epochs(figure: go.Figure, measure: EpochMeasure, line: Line, *, alone: bool) -> None:
    """Draw each key of a measure; the lines of several seeds are paler."""
    values = {key: line.each.values[key][:, line.column] for key in (*measure.lines.values(), *measure.band)}
    for place, (word, key) in enumerate(measure.lines.items()):
        drawn = np.where(values[key] > 0, values[key], np.nan) if measure.log else values[key]
        add_line(
            figure,
            np.arange(1, len(line.each.stage) + 1),
            drawn,
            name=f"{line.name} {word.lower()}" if len(measure.lines) > 1 else line.name,
            hover=f"epoch %{{x}}: %{{y:{measure.spec}}}",
            color=line.color,
            dash="dash" if place else line.dash,
            width=1.2 if place else 2,
            band=(values[measure.band[0]], values[measure.band[1]]) if measure.band else None,
            edges=True,
            opacity=1 if alone else 0.55,
        )


def _epoch_alt(title: str, measure: EpochMeasure, lines: Sequence[Line]) -> str:
    """The first and the last number of stage 1 of each line."""
    parts = []
    for line in lines:
        for word, key in measure.drawn([line.each]).items():
            values = line.each.values[key][[0, line.each.end], line.column]
            start, end = (value_text(float(value), measure.spec) for value in values)
            parts.append(f"{line.name}{f' {word.lower()}' if len(measure.lines) > 1 else ''} {start} to {end}")
    return f"Lines over epochs, {title}, from the first to the last epoch of stage 1: {'; '.join(parts)}."
