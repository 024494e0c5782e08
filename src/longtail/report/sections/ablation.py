"""One option against accuracy: what a grid of runs says about an option, drawn only where nothing else differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from longtail.compare.ablations import Ablation, Line, Value, find_ablations
from longtail.compare.differences import figure_difference, figure_of, mark
from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES
from longtail.evaluation.significance import ENOUGH_SEEDS
from longtail.formatting import listing, percent
from longtail.report.configurations import JUDGED, group_keys
from longtail.report.plots import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, INK, blank, clip, run_style
from longtail.report.section import Drawing, Key, Section, Table
from longtail.run.result import Ends

WIDE = 10.0
"""Numbers whose largest is this many times the smallest stand on a logarithmic axis."""
MEASURES: dict[str, str] = {"accuracy": "All images"} | {str(name): label for name, label in GROUP_LABELS.items()}
STYLES: dict[str, tuple[str, str]] = {"accuracy": (INK, "circle")} | {
    str(name): (GROUP_COLORS[name], GROUP_SYMBOLS[name]) for name in GROUP_NAMES
}
"""Color and symbol of each measure."""


def build(comparison: Comparison) -> Section | None:
    """Draw every varied option against accuracy by group; None where no two rows differ in one option alone."""
    ablations, refused = find_ablations(comparison.final)
    if comparison.split is None or not (ablations or refused):
        return None
    rows = [row for ablation in ablations for row in ablation.rows]
    limits = _limits(rows)
    drawings = [drawing for place, ablation in enumerate(ablations) for drawing in _drawings(ablation, place, limits)]
    judge = "validation" if all(run.validation for row in rows for run in row.runs) else comparison.split
    sentences = [verdict(ablation, judge) for ablation in ablations]
    if ablations:
        sentences.append(f"Judged by the average class on {judge} images.")
        if judge == "test":
            sentences.append("Test figures show what an option does; choose its value on validation images.")
        if any(len(row.runs) < ENOUGH_SEEDS for row in rows):
            sentences.append(f"With fewer than {ENOUGH_SEEDS} seeds, another seed may differ by more.")
        if any(value.std for row in rows for value in row.values.values() if value):
            sentences.append("Whiskers are one standard deviation over seeds.")
    if refused:
        sentences.append(f"Not drawn: {listing(refused)}, as more than two options vary at once; compare fewer runs.")
    legend: tuple[Key, ...] = ()
    if any(not ablation.second for ablation in ablations):
        legend = (Key("ink", "circle", MEASURES["accuracy"]), *group_keys(comparison.final[0].runs[0]))
    layout = "one" if len(drawings) == 1 else "two"
    table = Table(
        f"Accuracy in % on {comparison.split} images.",
        ("Configuration", "Option", "Value", *MEASURES.values()),
        tuple(line for ablation in ablations for line in _table_rows(ablation)),
        labels=3,
    )
    return Section("ablation", "Ablation", " ".join(sentences), layout, legend, tuple(drawings), table=table)


def _drawings(ablation: Ablation, place: int, limits: Ends) -> Iterator[Drawing]:
    """One figure with a line for each measure; of two crossed options one for each measure, with a line a level."""
    title = f"{ablation.recipe}: {ablation.option}"
    keys = comparable_measures(ablation)
    if not ablation.second:
        figure = blank(320, left=52)
        for key in keys:
            _add_line(figure, ablation, ablation.lines[0], key, *STYLES[key], name=MEASURES[key])
        yield Drawing(f"ablation-{place}", title, _alt(ablation, keys), _with_axes(figure, ablation, limits))
        return
    for key in keys:
        figure = blank(320, left=52)
        for index, line in enumerate(ablation.lines):
            color, dash = run_style(index)
            name, label = f"{ablation.second} {line.level}", clip(line.level, 14)
            _add_line(figure, ablation, line, key, color, "circle", name=name, dash=dash, label=label)
        figure = _with_axes(figure, ablation, limits).update_layout(margin={"r": 60})
        heading = f"{title}, by {ablation.second}: {MEASURES[key]}"
        yield Drawing(f"ablation-{place}-{key}", heading, _alt(ablation, [key]), figure)


def comparable_measures(ablation: Ablation) -> list[str]:
    """All measures; accuracy alone where the option changes which classes are in a group."""
    same = len({row.runs[0].group_of for row in ablation.rows}) == 1
    return [key for key in (MEASURES if same else ["accuracy"]) if any(row.values[key] for row in ablation.rows)]


def _add_line(
    figure: go.Figure,
    ablation: Ablation,
    line: Line,
    key: str,
    color: str,
    symbol: str,
    *,
    name: str,
    dash: str = "solid",
    label: str = "",
) -> None:
    known = [(value, spread) for value, row in line.points if (spread := row.values[key])]
    if not known:
        return
    numeric, deviations = ablation.is_numeric, [spread.std or 0.0 for _, spread in known]
    whisker = {"array": deviations, "color": color, "thickness": 1.2, "width": 4, "visible": any(deviations)}
    figure.add_scatter(
        x=[value if numeric else clip(str(value), 24) for value, _ in known],
        y=[spread.mean for _, spread in known],
        mode=("lines+markers" if numeric else "markers") + ("+text" if label else ""),
        name=clip(name),
        line={"color": color, "width": 2, "dash": dash},
        marker={"color": color, "symbol": symbol, "size": 9},
        error_y=whisker,
        text=[*[""] * (len(known) - 1), label],
        textposition="middle right",
        textfont={"color": color, "size": 12},
        cliponaxis=False,
        customdata=[mean_std_text(spread) for _, spread in known],
        hovertemplate=f"%{{fullData.name}}<br>{clip(ablation.option)} %{{x}}: %{{customdata}}%<extra></extra>",
    )


def _with_axes(figure: go.Figure, ablation: Ablation, limits: Ends) -> go.Figure:
    figure.update_yaxes(title="Accuracy", range=limits, tickformat=".0%", nticks=6)
    figure.update_xaxes(title=clip(ablation.option))
    if not ablation.is_numeric:
        return figure.update_xaxes(type="category", tickfont={"size": 12})
    values = sorted({float(value) for line in ablation.lines for value, _ in line.points})
    wide = values[0] > 0 and values[-1] / values[0] >= WIDE
    places = [math.log10(value) for value in values] if wide else values
    pad = 0.06 * (places[-1] - places[0])
    figure.update_xaxes(type="log" if wide else "linear", range=[places[0] - pad, places[-1] + pad])
    return figure.update_xaxes(tickvals=values, ticktext=[f"{value:g}" for value in values])


def _limits(rows: Sequence[Row]) -> Ends:
    """One accuracy axis for all figures, to the next ten points beyond what is drawn."""
    spreads = [row.values[key] for row in rows for key in MEASURES]
    low = min((spread.mean - (spread.std or 0.0) for spread in spreads if spread), default=0.0)
    high = max((spread.mean + (spread.std or 0.0) for spread in spreads if spread), default=1.0)
    return max(math.floor(10 * low - 0.2) / 10, -0.02), min(math.ceil(10 * high + 0.2) / 10, 1.02)


def _points(ablation: Ablation) -> list[tuple[str, Row]]:
    """The value, and the level of a second option, of each row."""
    return [
        (f"{_word(value)}{f' with {ablation.second} {line.level}' if ablation.second else ''}", row)
        for line in ablation.lines
        for value, row in line.points
    ]


def _word(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _table_rows(ablation: Ablation) -> list[tuple[str, ...]]:
    return [
        (ablation.recipe, ablation.option, value, *(mean_std_text(row.values[key]) for key in MEASURES))
        for value, row in _points(ablation)
    ]


def _alt(ablation: Ablation, keys: Sequence[str]) -> str:
    lines = []
    for value, row in _points(ablation):
        numbers = [f"{MEASURES[key].lower()} {percent(s.mean if (s := row.values[key]) else None)}" for key in keys]
        lines.append(f"{ablation.option} {value}: {', '.join(numbers)}")
    return f"Accuracy against {ablation.option} under {ablation.recipe}. {'; '.join(lines)}."


def verdict(ablation: Ablation, judge: str) -> str:
    """Which value is best, and which cannot be told from it over the images and seeds there are.

    Args:
        ablation: An option with its values.
        judge: The split that values are judged by.
    """
    head = f"{ablation.recipe}, {ablation.option}"
    means = [
        (value, row, spread.mean)
        for value, row in _points(ablation)
        if (spread := MeanStd.of([figure_of(run, judge, JUDGED) for run in row.runs]))
    ]
    if len(means) < 2:
        return f"{head}: not measured at two values."
    (best, top, reached), *others = sorted(means, key=lambda item: -item[2])
    gaps = [(value, figure_difference(top.runs, row.runs, judge, JUDGED)) for value, row, _ in others]
    words = {"i": " (holds over images, not over seeds)", "s": " (holds over seeds, not over images)"}
    close = [f"{value}{words.get(mark(gap), '')}" for value, gap in gaps if gap and not gap.is_evidence]
    clear = [
        f"{value} ({percent(gap.mean, unit=False)} points lower)" for value, gap in gaps if gap and gap.is_evidence
    ]
    if not clear:
        return f"{head}: no clear difference; {percent(reached)} at {best}."
    text = f"{head}: best at {best} with {percent(reached)}, clearly worse at {listing(clear)}"
    return f"{text}; {listing(close)} cannot be told from the best." if close else f"{text}."
