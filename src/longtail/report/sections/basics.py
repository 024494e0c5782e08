"""The sections of the page: each a heading, a sentence, and the figures or tables it is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtail.compare.table import HEADINGS, Comparison, Row
from longtail.counts import FEW_IMAGES, GROUP_NAMES, GroupName
from longtail.report import captions as findings
from longtail.report.plots import figures
from longtail.report.plots.curves import training_curve
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS, INK
from longtail.report.section import Drawing, Key, Section
from longtail.report.sections.hardest import (
    class_intervals,
    class_recalls,
    hardest_classes,
    mean_recalls,
    tested_images,
)
from longtail.report.select import absent_notes, group_keys, run_keys
from longtail.run.result import RunResult
from longtail.text import interval_text, listing, percent, signed

DENSE = 4


"""More panels than this are drawn smaller, three in a line."""


TABLE_ROWS = 500


"""A table of classes longer than this keeps the hardest ones."""


def results(comparison: Comparison) -> Section:
    """The table of all configurations."""
    best = {key: _best(comparison.final, key) for key in HEADINGS}
    sizes = _group_sizes(comparison.rows[0].runs[0])
    data: dict[str, object] = {
        "comparison": comparison, "headings": HEADINGS, "best": best, "sizes": sizes, "folded": _folded(comparison),
        "measured": any(any(row.intervals.values()) for row in comparison.rows),
        "notes": [*comparison.notes, *absent_notes(comparison)],
    }  # fmt: skip
    return Section("results", "Results", partial="results.html.j2", data=data)


def _best(rows: Sequence[Row], key: str) -> float | None:
    """The value to set in bold: the best of several, unless all are the same to the digit shown."""
    shown = [round(value.mean, 3) for row in rows if (value := row.values[key]) is not None]
    if len(set(shown)) < 2:
        return None
    return min(shown) if key == "ece" else max(shown)


def _folded(comparison: Comparison) -> bool:
    return any(len(row.runs) > 1 for row in comparison.rows)


def _group_sizes(run: RunResult) -> dict[str, int]:
    return {name: run.group_of.count(name) for name in GROUP_NAMES}


def classes(comparison: Comparison) -> Section:
    """One histogram for each training set among the runs."""
    rows = comparison.final
    sets: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        sets.setdefault(row.runs[0].counts.counts, []).append(row)
    drawings = []
    for number, members in enumerate(sets.values()):
        run = members[0].runs[0]
        title = "" if len(sets) == 1 else ", ".join(row.label for row in members)
        alt = f"Bars of the training images of {len(run.counts)} classes, largest first. "
        alt += findings.histogram_sentence(run.counts, run.group_of)
        figure = figures.class_histogram(run.counts, run.group_of, run=rows.index(members[0]) if number else None)
        drawings.append(Drawing(f"histogram-{number}", title, alt, figure))
    first = rows[0].runs[0]
    sentence = findings.histogram_sentence(first.counts, first.group_of)
    return Section(
        "classes", "The training set", sentence, legend=_group_legend(first, "square"), drawings=tuple(drawings)
    )


def _group_legend(run: RunResult, shape: str = "") -> tuple[Key, ...]:
    counts = run.counts.array
    keys = []
    for name in GROUP_NAMES:
        size = run.group_of.count(name)
        images = int(counts[[group == name for group in run.group_of]].sum())
        words = f"{GROUP_LABELS[name]}: {size:,} {'class' if size == 1 else 'classes'}, {images:,} images"
        keys.append(Key(name, shape or GROUP_SYMBOLS[name], words))
    return tuple(keys)


def groups(comparison: Comparison) -> Section | None:
    """Accuracy over all images and by shot group; None where nothing was evaluated."""
    if comparison.split is None:
        return None
    rows, run = comparison.final, comparison.rows[0].runs[0]
    labels = [row.label for row in rows]
    panels: list[tuple[str, str, str]] = [("accuracy", "All images", INK)]
    present = [name for name in GROUP_NAMES if any(name in row.runs[0].group_of for row in rows)]
    panels += [(name, _group_title(run, name), GROUP_COLORS[name]) for name in present]
    drawings = []
    for key, title, colour in panels:
        values = [row.values[key] for row in rows]
        said = [
            f"{label} {percent(value.mean if value else None)}" for label, value in zip(labels, values, strict=True)
        ]
        alt = f"Bars of accuracy, {title}: {', '.join(said)}."
        ends = [row.intervals.get(key) for row in rows]
        drawings.append(Drawing(f"group-{key}", title, alt, figures.group_bars(labels, values, colour, ends)))
    sentence = f"{findings.group_sentence(rows, comparison.split)} {findings.whisker_sentence(rows)}".strip()
    return Section("groups", "Accuracy by group", sentence, "four", drawings=tuple(drawings))


def _group_title(run: RunResult, name: GroupName) -> str:
    size = run.group_of.count(name)
    return f"{GROUP_LABELS[name]}, {size:,} {'class' if size == 1 else 'classes'}"


def accuracy(comparison: Comparison) -> Section | None:
    """Accuracy of each class against its training images; None where nothing was evaluated."""
    if comparison.split is None:
        return None
    rows = comparison.final
    recalls = [class_recalls(row, comparison.split) for row in rows]
    drawings = []
    for number, (row, recall) in enumerate(zip(rows, recalls, strict=True)):
        run = row.runs[0]
        height = 260 if len(rows) > DENSE else 320
        figure = figures.class_accuracy(run.counts, run.group_of, recall, height=height, run=number)
        alt = f"Points of accuracy against training images for each class under {row.label}."
        drawings.append(Drawing(f"accuracy-{number}", row.label, alt, figure))
    legend = list(group_keys(rows[0].runs[0]))
    if any(trace.name == figures.TREND for drawing in drawings for trace in drawing.figure.data):
        legend.append(Key("ink", "line", "Smoothed mean"))
    crowded = len(rows[0].runs[0].counts) > figures.CROWDED
    moved = (
        f" Points are moved up or down by up to {100 * figures.JITTER:.0f} points to show them all." if crowded else ""
    )
    layout = "one" if len(rows) == 1 else "two" if len(rows) <= DENSE else "three"
    return Section(
        "accuracy",
        "Accuracy of each class",
        findings.class_sentence(rows, recalls) + moved,
        layout,
        tuple(legend),
        tuple(drawings),
        "classes.html.j2",
        _class_table(comparison, recalls),
    )


def _class_table(
    comparison: Comparison, recalls: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]
) -> dict[str, object]:
    run, measured = comparison.rows[0].runs[0], np.stack(recalls)
    known = ~np.isnan(measured)
    kept = np.argsort(mean_recalls(recalls), kind="stable")[:TABLE_ROWS]
    order = kept[np.argsort(-run.counts.array[kept], kind="stable")]
    tested = tested_images(comparison.final, comparison.split)
    ends = [class_intervals(row, comparison.split) for row in comparison.final]
    rows = [
        {
            "name": run.counts.names[index],
            "group": run.group_of[index],
            "count": run.counts[index],
            "tested": int(tested[index]),
            "small": 0 < tested[index] < FEW_IMAGES,
            "recalls": [
                (percent(None if np.isnan(value) else float(value), unit=False), interval_text(each[index]))
                for value, each in zip(measured[:, index], ends, strict=True)
            ],
            "change": signed(float(measured[-1, index] - measured[0, index])) if known[:, index].all() else "n/a",
        }
        for index in map(int, order)
    ]
    labels = [row.label for row in comparison.final]
    marked = any(row["small"] for row in rows)
    total = len(run.counts)
    return {"rows": rows, "labels": labels, "total": total, "change": len(labels) == 2, "few": FEW_IMAGES,
            "marked": marked}  # fmt: skip


def curves(comparison: Comparison) -> Section | None:
    """The training curves; None without a history."""
    rows = [row for row in comparison.final if any(run.history for run in row.runs)]
    if not rows:
        return None
    titles = {"accuracy": "Accuracy", "loss": "Loss", "learning_rate": "Learning rate"}
    drawings = []
    for measure, title in titles.items():
        alt = f"Lines of {title.lower()} over epochs for {', '.join(row.label for row in rows)}."
        drawings.append(Drawing(f"curve-{measure}", title, alt, training_curve(rows, measure)))
    legend = list(run_keys(rows))
    if any(e.values.get("validation_loss") is not None for row in rows for run in row.runs for e in run.history):
        legend.append(Key("muted", "dashed", "Validation, thin"))
    sentence = findings.curve_sentence(rows, comparison.split)
    return Section("curves", "Training", sentence, "three", tuple(legend), tuple(drawings))


def hardest(comparison: Comparison) -> Section | None:
    """The hardest classes; None where nothing was evaluated."""
    if comparison.split is None:
        return None
    hard = hardest_classes(comparison.final, comparison.split)
    if not hard:
        return None
    groups = [one.group for one in hard]
    sentence = findings.hardest_sentence(
        [one.name for one in hard], groups, hard[0].recall, averaged=len(comparison.final) > 1
    )
    shown = findings.spoken(comparison.final)
    if len(shown) < len(comparison.final):
        sentence += (
            f" Shown for {listing([row.label for row in shown])}, the first and the one best on few-shot classes."
        )
    data: dict[str, object] = {"classes": hard, "labels": GROUP_LABELS, "few": FEW_IMAGES}
    return Section("hardest", "The hardest classes", sentence, partial="hardest.html.j2", data=data)
