"""The classes one by one: how many training images each has, and how accuracy follows from that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.norms import rank_trend
from longtail.compare.table import Comparison, Row
from longtail.counts import FEW_IMAGES, GROUP_NAMES, ClassCounts, FloatArray, GroupName
from longtail.formatting import class_word, interval_text, listing, number, percent, sentence_case, signed
from longtail.report.class_table import class_intervals, class_recalls, mean_recalls, tested_images
from longtail.report.configurations import group_keys, named
from longtail.report.plots import (
    CROWDED,
    GROUP_COLORS,
    GROUP_LABELS,
    JITTER,
    MANY_POINTS,
    TREND,
    blank,
    by_group,
    class_accuracy,
    clip,
)
from longtail.report.section import Drawing, Key, Section

DENSE = 4
"""More panels than this are drawn smaller, three in a line."""
TABLE_ROWS = 500
"""A table of classes longer than this keeps the hardest ones."""

NAMED_BARS = 12
"""Up to this number of classes the histogram writes their names under the bars."""


def training_set(comparison: Comparison) -> Section:
    """One histogram for each training set among the runs."""
    rows = comparison.final
    sets: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        sets.setdefault(row.runs[0].counts.counts, []).append(row)
    drawings = []
    for place, members in enumerate(sets.values()):
        run = members[0].runs[0]
        title = "" if len(sets) == 1 else ", ".join(row.label for row in members)
        alt = f"Bars of the training images of {len(run.counts)} classes, largest first. {imbalance_words(run.counts)}"
        figure = class_histogram(run.counts, run.group_of, run=rows.index(members[0]) if place else None)
        drawings.append(Drawing(f"histogram-{place}", title, alt, figure))
    run, keys = rows[0].runs[0], []
    for name in GROUP_NAMES:
        images = run.counts.array[[group == name for group in run.group_of]]
        size = f"{len(images):,} {'class' if len(images) == 1 else 'classes'}"
        keys.append(Key(name, "square", f"{GROUP_LABELS[name]}: {size}, {images.sum():,} images"))
    sentence = imbalance_words(run.counts)
    return Section("classes", "The training set", sentence, legend=tuple(keys), drawings=tuple(drawings))


def class_histogram(counts: ClassCounts, group_of: Sequence[GroupName], *, run: int | None = None) -> go.Figure:
    """Training images per class, largest class first, colored by shot group.

    Args:
        counts: Training images per class, shape (C,).
        group_of: Shot group of each class, length C.
        run: The place in the class table of a configuration with these counts, where they are not those of the first.

    Example:
        >>> figure = class_histogram(ClassCounts([300, 50, 5]), ["many", "medium", "few"])
        >>> [trace.name for trace in figure.data]
        ['Many-shot', 'Medium-shot', 'Few-shot']
    """
    order = np.argsort(-counts.array, kind="stable")
    figure = blank(300, left=48)
    for group, rank in by_group([group_of[index] for index in order]):
        classes = order[rank]
        options = {
            "x": rank.astype(np.int32),
            "y": counts.array[classes],
            "name": GROUP_LABELS[group],
            "customdata": classes.astype(np.int32),
            "meta": "class" if run is None else f"class:{run}",
            "hovertemplate": "%{text}<extra></extra>",
        }
        color = GROUP_COLORS[group]
        if len(counts) > MANY_POINTS:
            figure.add_scatter(
                **options, mode="lines", line={"color": color, "width": 1, "shape": "hv"}, fill="tozeroy"
            )
        else:
            figure.add_bar(**options, marker={"color": color, "line": {"width": 0}}, textposition="none")
    named = len(counts) <= NAMED_BARS
    margin = {"b": 34 if named else 30}
    figure.update_layout(bargap=0.18 if len(counts) <= CROWDED else 0, barmode="overlay", margin=margin)
    figure.update_xaxes(
        title=None if named else "Classes, from the largest to the smallest",
        range=[-0.75, len(counts) - 0.25],
        showticklabels=named,
        tickvals=list(range(len(counts))) if named else [],
        ticktext=[clip(counts.names[index], 14) for index in order] if named else [],
    )
    figure.update_yaxes(title="Training images", rangemode="tozero", nticks=6, tickformat=",")
    return figure


def imbalance_words(counts: ClassCounts) -> str:
    """How unequal the classes are.

    Example:
        >>> imbalance_words(ClassCounts([90, 30], names=["cat", "lynx"]))
        'cat has 90 training images and lynx has 30, an imbalance ratio of 3.'
    """
    array = counts.array
    if array.min() == array.max():
        return f"Every class has {array[0]:,} training images: this training set is balanced."
    large, small = int(array.argmax()), int(len(array) - 1 - array[::-1].argmin())
    most, least = (class_word(counts.names[index]) for index in (large, small))
    text = f"{sentence_case(most)} has {array[large]:,} training images and {least} has {array[small]:,}, "
    text += f"an imbalance ratio of {counts.imbalance_ratio:,.0f}."
    empty = int((array == 0).sum())
    return text + (f" {empty} {'class has' if empty == 1 else 'classes have'} none." if empty else "")


def accuracy(comparison: Comparison) -> Section | None:
    """Accuracy of each class against its training images, and the table of all classes."""
    if comparison.split is None:
        return None
    rows = comparison.final
    recalls = [class_recalls(row, comparison.split) for row in rows]
    drawings = []
    for place, (row, recall) in enumerate(zip(rows, recalls, strict=True)):
        run, height = row.runs[0], 260 if len(rows) > DENSE else 320
        figure = class_accuracy(run.counts, run.group_of, recall, height=height, run=place)
        alt = f"Points of accuracy against training images for each class under {row.label}."
        drawings.append(Drawing(f"accuracy-{place}", row.label, alt, figure))
    trends, missed = [], []
    for row, recall in named(list(zip(rows, recalls, strict=True)), lambda pair: pair[0]):
        known = np.isfinite(recall)
        trend = rank_trend(recall[known], row.runs[0].counts.array[known])
        trends.append(f"{number(trend.rho)}{'' if trend.is_evidence else ' (no clear trend)'} under {row.label}")
        missed.append(f"{(recall == 0).sum():,} under {row.label}")
    sentence = f"Rank correlation with training images: {listing(trends)}. Classes never recognized: {listing(missed)}."
    legend = list(group_keys(rows[0].runs[0]))
    if any(trace.name == TREND for drawing in drawings for trace in drawing.figure.data):
        legend.append(Key("ink", "line", "Smoothed mean"))
    if len(rows[0].runs[0].counts) > CROWDED:
        moved = percent(JITTER, 0, unit=False)
        sentence += f" Points are moved by up to {moved} points, up or down, to show them all."
    layout = "one" if len(rows) == 1 else "two" if len(rows) <= DENSE else "three"
    return Section(
        "accuracy",
        "Accuracy of each class",
        sentence,
        layout,
        tuple(legend),
        tuple(drawings),
        "classes.html.j2",
        _table(comparison, recalls),
    )


def _table(comparison: Comparison, recalls: Sequence[FloatArray]) -> dict[str, object]:
    """The hardest classes, largest first, with the recall of each configuration and its interval."""
    run, rows = comparison.rows[0].runs[0], comparison.final
    hardest = np.argsort(mean_recalls(recalls), kind="stable")[:TABLE_ROWS]
    tested, intervals = (
        tested_images(rows, comparison.split),
        [class_intervals(row, comparison.split) for row in rows],
    )
    lines = []
    for index in hardest[np.argsort(-run.counts.array[hardest], kind="stable")].tolist():
        values = [None if np.isnan(recall[index]) else float(recall[index]) for recall in recalls]
        lines.append(
            {
                "name": run.counts.names[index],
                "group": run.group_of[index],
                "count": run.counts[index],
                "tested": int(tested[index]),
                "small": 0 < tested[index] < FEW_IMAGES,
                "recalls": [
                    (percent(value, unit=False), interval_text(ends[index]))
                    for value, ends in zip(values, intervals, strict=True)
                ],
                "change": "n/a" if None in values else signed(float(recalls[-1][index] - recalls[0][index])),
            }
        )
    return {
        "rows": lines,
        "labels": [row.label for row in rows],
        "total": len(run.counts),
        "change": len(rows) == 2,
        "few": FEW_IMAGES,
        "marked": any(line["small"] for line in lines),
    }
