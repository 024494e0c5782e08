"""One option against accuracy: what a grid of runs says about an option, drawn only where nothing else differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from longtail.compare.ablations import Ablation, Line, Value, find_ablations
from longtail.compare.differences import figure_difference, figure_of, mark
from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.compare.table import Comparison, Row
from longtail.evaluation.significance import ENOUGH_SEEDS, Difference
from longtail.report.plots.canvas import blank, clip
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, INK, run_style
from longtail.report.section import Drawing, Key, Section
from longtail.report.select import group_keys
from longtail.text import listing, percent

WIDE = 10.0
"""Numbers whose largest is so many times the smallest stand on a logarithmic axis."""
MEASURES: dict[str, str] = {"accuracy": "All images"} | {str(name): label for name, label in GROUP_LABELS.items()}
JUDGED = "balanced_accuracy"
"""By this a value is called best: a validation split may be as long-tailed as the training images."""

Ends = tuple[float, float]


def ablation_section(comparison: Comparison) -> Section | None:
    """Every varied option against accuracy by group; None where no two rows differ in one option alone."""
    found, refused = find_ablations(comparison.final)
    if comparison.split is None or not (found or refused):
        return None
    limits = _limits([row for one in found for row in one.rows])
    drawings = [drawing for number, one in enumerate(found) for drawing in _drawings(one, number, limits)]
    said = [ablation_sentence(one, comparison.split) for one in found]
    said += _notes(found, comparison.split) if found else []
    if refused:
        said.append(
            f"Not drawn: {listing(refused)}, as more than two options vary at once; "
            "compare runs that differ in one or two."
        )
    legend = [Key("ink", "circle", MEASURES["accuracy"])]
    legend += group_keys(comparison.final[0].runs[0])
    plain = any(not one.second for one in found)
    layout = "one" if len(drawings) == 1 else "two"
    return Section("ablation", "Ablation", " ".join(said), layout, tuple(legend) if plain else (),
                   tuple(drawings))  # fmt: skip


def _drawings(one: Ablation, number: int, limits: Ends) -> Iterator[Drawing]:
    title = f"{one.recipe}: {one.option}"
    if not one.second:
        figure = option_figure(one, limits)
        yield Drawing(f"ablation-{number}", title, _alt(one, _comparable(one)), figure)
        return
    for key in _comparable(one):
        figure = level_figure(one, key, limits)
        yield Drawing(
            f"ablation-{number}-{key}", f"{title}, by {one.second}: {MEASURES[key]}", _alt(one, [key]), figure
        )


def _comparable(one: Ablation) -> list[str]:
    """All measures; accuracy alone where the option changes which classes are in a group."""
    same = len({row.runs[0].group_of for row in one.rows}) == 1
    return [key for key in (MEASURES if same else ["accuracy"]) if any(row.values[key] for row in one.rows)]


def option_figure(one: Ablation, limits: Ends) -> go.Figure:
    """The option against accuracy over all images and by group, with the deviation over seeds.

    Args:
        one: An ablation of one line.
        limits: Ends of the accuracy axis, the same for every figure of the page.
    """
    figure = blank(320, left=52)
    for key in _comparable(one):
        colour = INK if key == "accuracy" else GROUP_COLORS[key]  # type: ignore[index]
        symbol = "circle" if key == "accuracy" else GROUP_SYMBOLS[key]  # type: ignore[index]
        _add_line(figure, one, one.lines[0], key, colour=colour, symbol=symbol, name=MEASURES[key])
    return _with_axes(figure, one, limits)


def level_figure(one: Ablation, key: str, limits: Ends) -> go.Figure:
    """One measure against the option, a line for each value of the second one, which is written at its end.

    Args:
        one: An ablation of several lines.
        key: A key of ``MEASURES``.
        limits: As for :func:`option_figure`.
    """
    figure = blank(320, left=52)
    for index, line in enumerate(one.lines):
        colour, dash = run_style(index)
        name = f"{one.second} {line.level}"
        _add_line(figure, one, line, key, colour=colour, dash=dash, name=name, label=clip(line.level, 14))
    return _with_axes(figure, one, limits).update_layout(margin={"r": 60})


def _add_line(
    figure: go.Figure, one: Ablation, line: Line, key: str, *, colour: str, name: str, symbol: str = "circle",
    dash: str = "solid", label: str = "",
) -> None:  # fmt: skip
    known = [(value, spread) for value, row in line.points if (spread := row.values[key])]
    if not known:
        return
    numeric = one.is_numeric
    mode = ("lines+markers" if numeric else "markers") + ("+text" if label else "")
    figure.add_scatter(
        x=[value if numeric else clip(str(value), 24) for value, _ in known],
        y=[spread.mean for _, spread in known],
        mode=mode,
        name=clip(name),
        line={"color": colour, "width": 2, "dash": dash},
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_y={"array": [spread.std or 0.0 for _, spread in known], "color": colour, "thickness": 1.2, "width": 4,
                 "visible": any(spread.std for _, spread in known)},
        text=[*[""] * (len(known) - 1), label],
        textposition="middle right",
        textfont={"color": colour, "size": 12},
        cliponaxis=False,
        customdata=[mean_std_text(spread) for _, spread in known],
        hovertemplate=f"%{{fullData.name}}<br>{clip(one.option)} %{{x}}: %{{customdata}}%<extra></extra>",
    )  # fmt: skip


def _with_axes(figure: go.Figure, one: Ablation, limits: Ends) -> go.Figure:
    figure.update_yaxes(title="Accuracy", range=limits, tickformat=".0%", nticks=6)
    figure.update_xaxes(title=clip(one.option))
    if not one.is_numeric:
        return figure.update_xaxes(type="category", tickfont={"size": 12})
    values = sorted({float(value) for line in one.lines for value, _ in line.points})
    wide = values[0] > 0 and values[-1] / values[0] >= WIDE
    places = [math.log10(value) for value in values] if wide else values
    pad = 0.06 * (places[-1] - places[0])
    return figure.update_xaxes(
        type="log" if wide else "linear",
        range=[places[0] - pad, places[-1] + pad],
        tickvals=values,
        ticktext=[f"{value:g}" for value in values],
    )


def _limits(rows: Sequence[Row]) -> Ends:
    """One accuracy axis for all figures, to the next ten points beyond what is drawn."""
    spreads = [row.values[key] for row in rows for key in MEASURES]
    low = min((spread.mean - (spread.std or 0.0) for spread in spreads if spread), default=0.0)
    high = max((spread.mean + (spread.std or 0.0) for spread in spreads if spread), default=1.0)
    return max(math.floor(10 * low - 0.2) / 10, -0.02), min(math.ceil(10 * high + 0.2) / 10, 1.02)


def _alt(one: Ablation, keys: Sequence[str]) -> str:
    said = []
    for line in one.lines:
        for value, row in line.points:
            numbers = [f"{MEASURES[key].lower()} {percent(s.mean if (s := row.values[key]) else None)}" for key in keys]
            level = f", {one.second} {line.level}" if one.second else ""
            said.append(f"{one.option} {_word(value)}{level}: {', '.join(numbers)}")
    return f"Accuracy against {one.option} under {one.recipe}. {'; '.join(said)}."


def _word(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def ablation_sentence(one: Ablation, split: str) -> str:
    """Which value is best, how far the worst is behind, and which cannot be told from the best.

    Values are judged on validation images where every row has them.

    Args:
        one: The ablation.
        split: The split that is drawn.
    """
    judge = _judging_split([one], split)
    means = [
        (f"{_word(value)}{f' with {one.second} {line.level}' if one.second else ''}", row, spread.mean)
        for line in one.lines
        for value, row in line.points
        if (spread := MeanStd.of([figure_of(run, judge, JUDGED) for run in row.runs]))
    ]
    if len(means) < 2:
        return f"{one.recipe}, {one.option}: not measured at two values."
    (best, top, reached), *others = sorted(means, key=lambda item: -item[2])
    behind = [
        (name, gap, gap.is_evidence)
        for name, row, _ in others
        if (gap := figure_difference(top.runs, row.runs, judge, JUDGED))
    ]
    close = [f"{name}{_alone(gap)}" for name, gap, told in behind if not told]
    clear = [(name, gap) for name, gap, told in behind if told]
    head = f"{one.recipe}, {one.option}"
    if not clear:
        last, gap, _ = behind[-1]
        return (
            f"{head}: no clear difference, {percent(reached)} at {best} and {_points(gap)} less at {last}{_alone(gap)}."
        )
    last, gap = clear[-1]
    word = "worst at" if last == behind[-1][0] else "clearly worse at"
    text = f"{head}: best at {best} with {percent(reached)}, {word} {last}, {_points(gap)} lower"
    return f"{text}; {listing(close)} cannot be told from the best." if close else f"{text}."


def _notes(found: Sequence[Ablation], split: str) -> Iterator[str]:
    """What a reader has to know before acting on the figures."""
    judge = _judging_split(found, split)
    yield f"Said of the average class on {judge} images."
    if judge == "test":
        yield "Test figures show what an option does; choose its value on validation images."
    elif split == "test":
        yield "The figures show the test images."
    rows = [row for one in found for row in one.rows]
    if any(len(row.runs) < ENOUGH_SEEDS for row in rows):
        yield (
            f"With fewer than {ENOUGH_SEEDS} seeds a difference is judged over the {judge} images alone: another seed "
            "may differ by more."
        )
    if any(value.std for row in rows for value in row.values.values() if value):
        yield "Whiskers are one standard deviation over seeds."


def _judging_split(found: Sequence[Ablation], split: str) -> str:
    return "validation" if all(run.validation for one in found for row in one.rows for run in row.runs) else split


def _points(gap: Difference) -> str:
    return f"{mean_std_text(MeanStd(abs(gap.mean), gap.std, gap.n))} points"


def _alone(gap: Difference) -> str:
    """Name the only interval that a difference holds over; empty if it holds over both or neither."""
    words = {"i": " (holds over images, not over seeds)", "s": " (holds over seeds, not over images)"}
    return words.get(mark(gap), "")
