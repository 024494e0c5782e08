"""The classes one by one: the hardest with pictures, how large each is, and how accuracy follows from its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.norms import rank_trend
from longtail.compare.table import Comparison, Row
from longtail.counts import FEW_IMAGES, GROUP_NAMES, ClassCounts, FloatArray, GroupName
from longtail.formatting import class_word, interval_text, listing, number, percent, sentence_case, signed
from longtail.report import plots
from longtail.report.class_table import class_confusions, class_intervals, class_recalls, mean_recalls, tested_images
from longtail.report.configurations import group_keys, named, spoken
from longtail.report.pictures import Picture, class_pictures, error_pictures
from longtail.report.section import Cell, Drawing, Key, Section, Table

HARDEST, PICTURES = 6, 4
"""Classes that are shown with pictures; training images of each, and errors of each configuration."""
DENSE = 4
"""More panels than this are drawn smaller, three in a line."""
TABLE_ROWS = 500
"""A table of classes longer than this keeps the hardest ones."""
NAMED_BARS = 12
"""Up to this number of classes the histogram writes their names under the bars."""


Under = tuple[str, float, str, str, tuple[Picture, ...]]
"""One configuration on one class: its name, the recall and its interval, the most frequent mistake, and some errors."""


@dataclass(frozen=True)
class HardClass:
    """A class of low recall on average over the configurations."""

    name: str
    group: GroupName
    train_count: int
    test_count: int
    train: tuple[Picture, ...]
    under: tuple[Under, ...]


def hardest(comparison: Comparison) -> Section | None:
    """The classes of least recall among those with enough test images to tell; None where nothing was tested."""
    rows, split = comparison.final, comparison.split
    tested = tested_images(rows, split)
    if split is None or not tested.any():
        return None
    hard = hardest_classes(rows, split)
    if not hard:
        return Section("hardest", "Hardest classes", f"No class has {FEW_IMAGES} {split} images to be called hard by.")
    enough, shown = int((tested >= FEW_IMAGES).sum()), [label for label, *_ in hard[0].under]
    sentence = f"The {len(hard)} hardest of the {enough:,} classes with at least {FEW_IMAGES} {split} images."
    if len(shown) < len(rows):
        sentence += f" Shown for {listing(shown)}, the first and the one best on few-shot classes."
    data: dict[str, object] = {"classes": hard, "labels": plots.GROUP_LABELS, "split": split}
    return Section("hardest", "Hardest classes", sentence, partial="hardest.html.j2", data=data)


def hardest_classes(rows: Sequence[Row], split: str | None, *, limit: int = HARDEST) -> list[HardClass]:
    """The classes of least recall on average over the configurations, among those with at least five test images.

    Of equally hard classes, those with pictures come first, then those with fewer training images.

    Args:
        rows: Finished configurations.
        split: The split measured.
        limit: Number of classes.
    """
    run, tested = rows[0].runs[0], tested_images(rows, split)
    mean = mean_recalls([class_recalls(row, split) for row in rows])
    candidates = np.flatnonzero((tested >= FEW_IMAGES) & np.isfinite(mean))
    bare = ~np.isin(candidates, [example.label for row in rows for run in row.runs for example in run.examples])
    order = np.lexsort((run.counts.array[candidates], bare, mean[candidates].round(6)))
    named_rows = [(row, class_recalls(row, split), class_intervals(row, split), _mistakes(row)) for row in spoken(rows)]
    hard = []
    for index in candidates[order][:limit].tolist():
        under = []
        for row, recalls, intervals, mistakes in named_rows:
            errors = error_pictures([row], index, PICTURES)
            under.append((row.label, float(recalls[index]), interval_text(intervals[index]), mistakes[index], errors))
        name, pictures = class_word(run.counts.names[index]), class_pictures(rows, index, PICTURES)
        group, images = run.group_of[index], run.counts[index]
        hard.append(HardClass(name, group, images, int(tested[index]), pictures, tuple(under)))
    return hard


def _mistakes(row: Row) -> list[str]:
    """Name the class that each class is most often taken for over all seeds, with the share of its images; or empty."""
    names = row.runs[0].counts.names
    return [
        "".join(f"{class_word(names[other])} ({percent(share)})" for other, share in nearest)
        for nearest in class_confusions(row, 1)
    ]


def training_set(comparison: Comparison) -> Section:
    """One histogram for each training set among the runs."""
    rows = comparison.final
    sets: dict[tuple[int, ...], list[int]] = {}
    for position, row in enumerate(rows):
        sets.setdefault(row.runs[0].counts.counts, []).append(position)
    drawings = []
    for index, (first, *others) in enumerate(sets.values()):
        run = rows[first].runs[0]
        title = "" if len(sets) == 1 else ", ".join(rows[position].label for position in (first, *others))
        alt = f"Bars of the training images of {len(run.counts)} classes, largest first. {imbalance_words(run.counts)}"
        figure = class_histogram(run.counts, run.group_of, run=first if index else None)
        drawings.append(Drawing(f"histogram-{index}", title, alt, figure))
    run, keys = rows[0].runs[0], []
    for name in GROUP_NAMES:
        images = run.counts.array[[group == name for group in run.group_of]]
        size = f"{len(images):,} {'class' if len(images) == 1 else 'classes'}"
        keys.append(Key(name, "square", f"{plots.GROUP_LABELS[name]}: {size}, {images.sum():,} images"))
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
    figure = plots.blank(300, left=48)
    for group, rank in plots.by_group([group_of[index] for index in order]):
        classes = order[rank]
        options = {
            "x": rank.astype(np.int32),
            "y": counts.array[classes],
            "name": plots.GROUP_LABELS[group],
            "customdata": classes.astype(np.int32),
            "meta": "class" if run is None else f"class:{run}",
            "hovertemplate": "%{text}<extra></extra>",
        }
        color = plots.GROUP_COLORS[group]
        if len(counts) > plots.MANY_POINTS:
            figure.add_scatter(
                **options, mode="lines", line={"color": color, "width": 1, "shape": "hv"}, fill="tozeroy"
            )
        else:
            figure.add_bar(**options, marker={"color": color, "line": {"width": 0}}, textposition="none")
    named = len(counts) <= NAMED_BARS
    margin = {"b": 34 if named else 30}
    figure.update_layout(bargap=0.18 if len(counts) <= plots.CROWDED else 0, barmode="overlay", margin=margin)
    figure.update_xaxes(
        title=None if named else "Classes, from the largest to the smallest",
        range=[-0.75, len(counts) - 0.25],
        showticklabels=named,
        tickvals=list(range(len(counts))) if named else [],
        ticktext=[plots.clip(counts.names[index], 14) for index in order] if named else [],
    )
    figure.update_yaxes(title="Training images", rangemode="tozero", nticks=6, tickformat=",")
    return figure


def imbalance_words(counts: ClassCounts) -> str:
    """Describe the imbalance of the classes in words.

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
    rows, first = comparison.final, comparison.final[0].runs[0]
    recalls = [class_recalls(row, comparison.split) for row in rows]
    drawings = []
    for position, (row, recall) in enumerate(zip(rows, recalls, strict=True)):
        run, height = row.runs[0], 260 if len(rows) > DENSE else 320
        figure = plots.class_accuracy(run.counts, run.group_of, recall, height=height, run=position)
        alt = f"Points of accuracy against training images for each class under {row.label}."
        drawings.append(Drawing(f"accuracy-{position}", row.label, alt, figure))
    trends, missed = [], []
    for row, recall in named(list(zip(rows, recalls, strict=True)), lambda pair: pair[0]):
        trend = rank_trend(recall, row.runs[0].counts.array)
        trends.append(f"{number(trend.rho)}{'' if trend.is_evidence else ' (no clear trend)'} under {row.label}")
        missed.append(f"{(recall == 0).sum():,} under {row.label}")
    sentence = f"Rank correlation with training images: {listing(trends)}. Classes never recognized: {listing(missed)}."
    legend = group_keys(first)
    if any(trace.name == plots.TREND for drawing in drawings for trace in drawing.figure.data):
        legend += (Key("ink", "line", "Smoothed mean"),)
    if len(first.counts) > plots.CROWDED:
        moved = percent(plots.JITTER, 0, unit=False)
        sentence += f" Points are moved by up to {moved} points, up or down, to show them all."
    layout = "one" if len(rows) == 1 else "two" if len(rows) <= DENSE else "three"
    table = _table(comparison, recalls)
    return Section("accuracy", "Accuracy of each class", sentence, layout, legend, tuple(drawings), table=table)


def _table(comparison: Comparison, recalls: Sequence[FloatArray]) -> Table:
    """The hardest classes, largest first, with the recall of each configuration and its interval."""
    run, rows, split = comparison.rows[0].runs[0], comparison.final, comparison.split
    hardest = np.argsort(mean_recalls(recalls), kind="stable")[:TABLE_ROWS]
    tested, intervals = tested_images(rows, split), [class_intervals(row, split) for row in rows]
    heads = [
        "Class",
        "Group",
        "Training images",
        f"{(split or 'test').capitalize()} images",
        *(row.label for row in rows),
    ]
    lines: list[tuple[Cell, ...]] = []
    for index in hardest[np.argsort(-run.counts.array[hardest], kind="stable")].tolist():
        values = [None if np.isnan(recall[index]) else float(recall[index]) for recall in recalls]
        name = f"{run.counts.names[index]}{' *' if 0 < tested[index] < FEW_IMAGES else ''}"
        cells: list[Cell] = [name, run.group_of[index], f"{run.counts[index]:,}", f"{tested[index]:,}"]
        cells += [
            (percent(value, unit=False), interval_text(of_classes[index]))
            for value, of_classes in zip(values, intervals, strict=True)
        ]
        if len(rows) == 2:
            cells.append("n/a" if None in values else signed(float(recalls[1][index] - recalls[0][index])))
        lines.append(tuple(cells))
    if len(rows) == 2:
        heads.append("Change")
    caption = "Accuracy of each class in % with its 95% interval, largest class first."
    if ((tested > 0) & (tested < FEW_IMAGES))[hardest].any():
        caption += f" * has fewer than {FEW_IMAGES} {split} images: its figure says next to nothing."
    left_out = f" (the {len(lines)} hardest of {len(run.counts):,})" if len(lines) < len(run.counts) else ""
    return Table(caption, tuple(heads), tuple(lines), labels=2, folded=f"Every class in a table{left_out}")
