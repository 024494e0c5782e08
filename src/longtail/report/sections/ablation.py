"""One option against accuracy: what a grid of runs says about an option, drawn only where nothing else differs."""

from __future__ import annotations

from collections.abc import Iterator

import plotly.graph_objects as go

from longtail.compare.ablations import Ablation, Line, find_ablations
from longtail.compare.differences import figure_difference, figure_of, mark
from longtail.compare.seeds import MeanStd, mean_std_text
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES
from longtail.evaluation.significance import ENOUGH_SEEDS
from longtail.formatting import listing, percent
from longtail.report.builders import Measure
from longtail.report.configurations import JUDGED, group_keys
from longtail.report.plots import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, INK, blank, clip, run_style
from longtail.report.section import Drawing, Key, Section, Table, read_aloud
from longtail.run.result import Ends

WIDE = 10.0
"""Numbers whose largest is this many times the smallest stand on a logarithmic axis."""
MEASURES: dict[str, str] = {"accuracy": "All images"} | {str(name): label for name, label in GROUP_LABELS.items()}
Style = tuple[str, str, str]
"""A color, a symbol and a dash."""
STYLES: dict[str, Style] = {"accuracy": (INK, "circle", "solid")} | {
    str(name): (GROUP_COLORS[name], GROUP_SYMBOLS[name], "solid") for name in GROUP_NAMES
}
ACCURACY = Measure("accuracy", "ablation", "Accuracy", ".1%")
HEADS = ("Configuration", "Option", "Value", *MEASURES.values())


def build(comparison: Comparison) -> Section | None:
    """Draw every varied option against accuracy by group; None where no two rows differ in one option alone."""
    ablations, undrawn = find_ablations(comparison.final)
    if comparison.split is None or not (ablations or undrawn):
        return None
    rows = [row for ablation in ablations for row in ablation.rows]
    spreads = [spread for row in rows for key in MEASURES if (spread := row.values[key])]
    limits = ACCURACY.ends([[each.mean + sign * (each.std or 0.0) for each in spreads] for sign in (-1, 1)])
    drawings = [each for position, ablation in enumerate(ablations) for each in _drawings(ablation, position, limits)]
    judge = "validation" if all(run.validation for row in rows for run in row.runs) else comparison.split
    sentences = [verdict(ablation, judge) for ablation in ablations]
    if ablations:
        sentences.append(f"Judged by the average class on {judge} images.")
        if judge == "test":
            sentences.append("Test figures show what an option does; choose its value on validation images.")
        if any(len(row.runs) < ENOUGH_SEEDS for row in rows):
            sentences.append(f"With fewer than {ENOUGH_SEEDS} seeds, another seed may differ by more.")
        if any(spread.std for spread in spreads):
            sentences.append("Whiskers are one standard deviation over seeds.")
    if undrawn:
        sentences.append(f"Not drawn: {listing(undrawn)}, as more than two options vary at once; compare fewer runs.")
    legend: tuple[Key, ...] = ()
    if any(not ablation.second for ablation in ablations):
        legend = (Key("ink", "circle", MEASURES["accuracy"]), *group_keys(comparison.final[0].runs[0]))
    lines = tuple(line for ablation in ablations for line in _table_rows(ablation))
    table = Table(f"Accuracy in % on {comparison.split} images.", HEADS, lines, labels=3)
    layout = "one" if len(drawings) == 1 else "two"
    return Section("ablation", "Ablation", " ".join(sentences), layout, legend, tuple(drawings), table=table)


def _drawings(ablation: Ablation, position: int, limits: Ends) -> Iterator[Drawing]:
    """One figure with a line for each measure; of two crossed options one for each measure, with a line a level."""
    # Where the option changes which classes are in a group, only all images can be compared.
    comparable = list(MEASURES) if len({row.runs[0].group_of for row in ablation.rows}) == 1 else ["accuracy"]
    keys = [key for key in comparable if any(row.values[key] for row in ablation.rows)]
    title = f"{ablation.recipe}: {ablation.option}"
    panels = {("", title): [(ablation.lines[0], key, STYLES[key]) for key in keys]}
    if ablation.second:
        levels = [(line, run_style(index)) for index, line in enumerate(ablation.lines)]
        panels = {
            (f"-{key}", f"{title}, by {ablation.second}: {MEASURES[key]}"): [
                (line, key, (color, "circle", dash)) for line, (color, dash) in levels
            ]
            for key in keys
        }
    for (suffix, heading), curves in panels.items():
        figure = blank(320, left=52)
        for line, key, style in curves:
            _add_line(figure, ablation, line, key, style)
        ACCURACY.set_axis(figure, limits)
        _option_axis(figure, ablation)
        figure.update_layout(margin={"r": 60 if ablation.second else 10})
        alt = read_aloud(f"Accuracy in % against {ablation.option}", HEADS, _table_rows(ablation), labels=3)
        yield Drawing(f"ablation-{position}{suffix}", heading, alt, figure)


def _add_line(figure: go.Figure, ablation: Ablation, line: Line, key: str, style: Style) -> None:
    """Draw a measure at each value; a line of one of several levels is named after the level, at its end."""
    points = [(value, spread) for value, row in line.points if (spread := row.values[key])]
    if not points:
        return
    color, symbol, dash = style
    numeric, label = ablation.is_numeric, clip(line.level, 14) if ablation.second else ""
    deviations = [spread.std or 0.0 for _, spread in points]
    figure.add_scatter(
        x=[value if numeric else clip(str(value), 24) for value, _ in points],
        y=[spread.mean for _, spread in points],
        mode=("lines+markers" if numeric else "markers") + ("+text" if label else ""),
        name=clip(f"{ablation.second} {line.level}" if label else MEASURES[key]),
        line={"color": color, "width": 2, "dash": dash},
        marker={"color": color, "symbol": symbol, "size": 9},
        error_y={"array": deviations, "color": color, "thickness": 1.2, "width": 4, "visible": any(deviations)},
        text=[*[""] * (len(points) - 1), label],
        textposition="middle right",
        textfont={"color": color, "size": 12},
        cliponaxis=False,
        customdata=[mean_std_text(spread) for _, spread in points],
        hovertemplate=f"%{{fullData.name}}<br>{clip(ablation.option)} %{{x}}: %{{customdata}}%<extra></extra>",
    )


def _option_axis(figure: go.Figure, ablation: Ablation) -> None:
    """Make the horizontal axis one of the values: words side by side, numbers in proportion or by their decades."""
    figure.update_xaxes(title=clip(ablation.option))
    if not ablation.is_numeric:
        figure.update_xaxes(type="category", tickfont={"size": 12})
        return
    values = sorted({float(value) for line in ablation.lines for value, _ in line.points})
    wide = values[0] > 0 and values[-1] / values[0] >= WIDE
    limits = Measure(ablation.option, "option", ablation.option, log=wide).ends([values])
    figure.update_xaxes(type="log" if wide else "linear", range=limits)
    figure.update_xaxes(tickvals=values, ticktext=[f"{value:g}" for value in values])


def _points(ablation: Ablation) -> list[tuple[str, Row]]:
    """The value, and the level of a second option, of each row."""
    points = []
    for line in ablation.lines:
        level = f" with {ablation.second} {line.level}" if ablation.second else ""
        points += [((value if isinstance(value, str) else f"{value:g}") + level, row) for value, row in line.points]
    return points


def _table_rows(ablation: Ablation) -> list[tuple[str, ...]]:
    return [
        (ablation.recipe, ablation.option, value, *(mean_std_text(row.values[key]) for key in MEASURES))
        for value, row in _points(ablation)
    ]


def verdict(ablation: Ablation, judge: str) -> str:
    """Say which value is best, and which cannot be told from it over the images and seeds there are.

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
    differences = [(value, figure_difference(top.runs, row.runs, judge, JUDGED)) for value, row, _ in others]
    gaps = [(value, change and change.to_the_best_of(len(means))) for value, change in differences]
    words = {"i": " (holds over images, not over seeds)", "s": " (holds over seeds, not over images)"}
    close = [f"{value}{words.get(mark(gap), '')}" for value, gap in gaps if gap and not gap.is_evidence]
    clear = [
        f"{value} ({percent(gap.mean, unit=False)} points lower)" for value, gap in gaps if gap and gap.is_evidence
    ]
    if not clear:
        return f"{head}: no clear difference; {percent(reached)} at {best}."
    text = f"{head}: best at {best} with {percent(reached)}, clearly worse at {listing(clear)}"
    return f"{text}; {listing(close)} cannot be told from the best." if close else f"{text}."
