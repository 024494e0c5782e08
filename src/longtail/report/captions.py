"""The sentence under each figure, computed from the numbers it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from longtail.analysis.norms import rank_trend
from longtail.compare.differences import difference_text, figure_of
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, ClassCounts, GroupName
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.evaluation.significance import Difference, unpaired_interval
from longtail.report.plots.palette import GROUP_LABELS
from longtail.text import class_word, listing, number, percent, sentence_case, signed

Shown = TypeVar("Shown")
SAID = 5
"""Of more configurations than this a sentence speaks of the first and the best only."""


def headline(comparison: Comparison) -> str:
    """What the runs show, in one or two sentences."""
    rows = comparison.final
    if comparison.split is None:
        return "No run was evaluated yet."
    if len(rows) == 1:
        return _alone(rows[0], comparison.split)
    first, best = rows[0], best_row(rows[1:])
    key = "few" if best.values["few"] and first.values["few"] else "balanced_accuracy"
    what = "few-shot classes" if key == "few" else "the average class"
    return (
        f"On {what}, {best.label} reaches {percent(_value(best, key))} against {percent(_value(first, key))} for "
        f"{first.label}: {difference_text(best.differences[key])}. "
        f"Over all {comparison.split} images: {difference_text(best.differences['accuracy'])}."
    )


def best_row(rows: Sequence[Row]) -> Row:
    """The row that is best on few-shot classes, or on the average class where there is no such group."""
    return max(rows, key=lambda row: _mean(row, "few", _mean(row, "balanced_accuracy", 0.0)))


def spoken(rows: Sequence[Row]) -> list[Row]:
    """The rows a sentence names: all of a few, else the first and the best of :func:`best_row`."""
    return list(rows) if len(rows) <= SAID else [rows[0], best_row(rows[1:])]


def named(found: Sequence[Shown], row_of: Callable[[Shown], Row]) -> list[Shown]:
    """The panels, runs or whatever stands for a configuration that a sentence names, as :func:`spoken` chooses.

    Args:
        found: One for each configuration.
        row_of: The configuration of one of them.
    """
    names = {row.name for row in spoken([row_of(one) for one in found])}
    return [one for one in found if row_of(one).name in names]


def _alone(row: Row, split: str) -> str:
    text = f"{row.label} classifies {percent(_value(row, 'accuracy'))} of the {split} images right"
    many, few = _value(row, "many"), _value(row, "few")
    if many is None or few is None:
        return f"{text}, and {percent(_value(row, 'balanced_accuracy'))} of the average class."
    return f"{text}: {percent(many)} on many-shot classes, {percent(few)} on few-shot ones."


def histogram_sentence(counts: ClassCounts, group_of: Sequence[GroupName]) -> str:
    """How unequal the classes are.

    Example:
        >>> histogram_sentence(ClassCounts([90, 30], names=["cat", "lynx"]), ["medium", "medium"])
        'cat has 90 training images and lynx has 30, an imbalance ratio of 3.'
    """
    array = counts.array
    if array.min() == array.max():
        return f"Every class has {array[0]:,} training images: this training set is balanced."
    large, small = int(array.argmax()), int(len(array) - 1 - array[::-1].argmin())
    most, least = class_word(counts.names[large]), class_word(counts.names[small])
    text = f"{sentence_case(most)} has {array[large]:,} training images and {least} has "
    text += f"{array[small]:,}, an imbalance ratio of {counts.imbalance_ratio:,.0f}."
    few = [index for index, group in enumerate(group_of) if group == "few"]
    if few:
        hold = "class holds" if len(few) == 1 else "classes hold"
        text += f" The {len(few):,} few-shot {hold} {percent(array[few].sum() / counts.total)} of all images."
    empty = int((array == 0).sum())
    return text + (f" {empty} {'class has' if empty == 1 else 'classes have'} none." if empty else "")


def group_sentence(rows: Sequence[Row], split: str | None) -> str:
    """How much accuracy is lost between the largest and the smallest group, many- and few-shot where there are both."""
    head, tail = _ends(rows)
    falls = [(row.label, fall) for row in spoken(rows) if (fall := _large_less_small(row, split, head, tail))]
    groups = f"From {head}- to {tail}-shot classes"
    if len(falls) > 1 and all(fall.is_evidence and fall.mean > 0 for _, fall in falls):
        rest = listing([f"{percent(fall.mean, unit=False)} under {label}" for label, fall in falls[1:]])
        return f"{groups}, accuracy {_fall(*falls[0])}, and by {rest}."
    parts = [_fall(label, fall) for label, fall in falls]
    if not parts or head == tail:
        return "Groups cannot be compared: all classes are of one, or another was not measured."
    return f"{groups}, accuracy {listing(parts)}."


def _ends(rows: Sequence[Row]) -> tuple[GroupName, GroupName]:
    """The largest and the smallest group that was measured."""
    found = [name for name in GROUP_NAMES if any(row.values[name] for row in rows)]
    return (found[0], found[-1]) if found else (GROUP_NAMES[0], GROUP_NAMES[0])


def whisker_sentence(rows: Sequence[Row]) -> str:
    """What the whiskers of the bars are."""
    alone = [row for row in rows if len(row.runs) == 1 and any(row.intervals.values())]
    if not alone:
        return ""
    seeds = (
        " where there is one seed, and one standard deviation over seeds elsewhere" if len(alone) < len(rows) else ""
    )
    return f"Whiskers are the {LEVEL_TEXT} interval that so many test images leave{seeds}."


def _large_less_small(row: Row, split: str | None, head: GroupName, tail: GroupName) -> Difference | None:
    """Over seeds, and over the images of both groups, which are others."""
    known = [(figure_of(run, split, head), figure_of(run, split, tail)) for run in row.runs]
    falls = [large - small for large, small in known if large is not None and small is not None]
    if not falls:
        return None
    large, small = row.values[head], row.values[tail]
    ends = row.intervals.get(head), row.intervals.get(tail)
    images = None
    if large and small and ends[0] and ends[1]:
        images = unpaired_interval(large.mean, ends[0], small.mean, ends[1])
    return Difference.of(falls, images)


def _fall(label: str, fall: Difference) -> str:
    if not fall.is_evidence:
        return f"does not clearly change under {label} ({signed(-fall.mean)} points)"
    return f"{'falls' if fall.mean > 0 else 'rises'} by {percent(abs(fall.mean), unit=False)} points under {label}"


def class_sentence(rows: Sequence[Row], recalls: Sequence[npt.NDArray[np.float64]]) -> str:
    """Whether accuracy follows the number of training images, and how many classes are never recognised."""
    parts, never = [], []
    named = {row.name for row in spoken(rows)}
    for row, recall in zip(rows, recalls, strict=True):
        if row.name not in named:
            continue
        label, known = row.label, np.isfinite(recall)
        trend = rank_trend(recall[known], row.runs[0].counts.array[known])
        missed = int((recall == 0).sum())
        never.append(f"{f'{missed:,}' if missed else 'none'} under {label}")
        if np.isfinite(trend.rho):
            clear = "" if trend.is_evidence else " (no clear trend)"
            parts.append(f"{number(trend.rho)} under {label}{clear}")
    meaning = "where 1 is strictly in step and 0 unrelated"
    text = f"Accuracy and training images correlate in rank at {listing(parts)}, {meaning}. " if parts else ""
    return f"{text}Classes never recognised: {listing(never)}."


def curve_sentence(rows: Sequence[Row], split: str | None) -> str:
    """How far the last training accuracy lies above the accuracy on unseen images."""
    parts = []
    for row in spoken(rows):
        seen = [run.history[-1].values.get("train_accuracy") for run in row.runs if run.history]
        known = [value for value in seen if value is not None]
        unseen = _value(row, "accuracy")
        if known and unseen is not None:
            last = sum(known) / len(known)
            parts.append(f"{row.label} at {percent(last)} ({percent(unseen)} on {split} images)")
    if not parts:
        return "Epochs run from left to right, over both stages."
    return f"Training accuracy, counted on the batches as the loop drew and changed them, ends for {listing(parts)}."


def hardest_sentence(names: Sequence[str], groups: Sequence[GroupName], worst: float, *, averaged: bool) -> str:
    """Which class is recognised least, and from which group the hardest classes come.

    Args:
        names: The hardest classes, the hardest first.
        groups: The shot group of each.
        worst: Recall of the first.
        averaged: Whether that is a mean over configurations.

    Example:
        >>> print(hardest_sentence(["lynx", "7", "elk"], ["few", "many", "few"], 0.125, averaged=False))
        lynx is recognised least: 12.5%. Of the 3 shown here, 1 many-shot and 2 few-shot.
    """
    mean = " on average" if averaged else ""
    text = f"{sentence_case(class_word(names[0]))} is recognised least: {percent(worst)}{mean}. "
    if len(set(groups)) == 1:
        return f"{text}All {len(groups)} shown here are {GROUP_LABELS[groups[0]].lower()}."
    parts = [f"{groups.count(group)} {label.lower()}" for group, label in GROUP_LABELS.items() if group in groups]
    return f"{text}Of the {len(groups)} shown here, {listing(parts)}."


def _value(row: Row, key: str) -> float | None:
    spread = row.values[key]
    return spread.mean if spread else None


def _mean(row: Row, key: str, default: float) -> float:
    value = _value(row, key)
    return default if value is None else value
