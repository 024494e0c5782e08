"""The hardest classes: what they look like, how rarely they are recognized, and what they are taken for instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.compare.table import Comparison, Row
from longtail.counts import FEW_IMAGES, GroupName
from longtail.formatting import class_word, interval_text, listing, percent
from longtail.report.class_table import class_confusions, class_intervals, class_recalls, mean_recalls, tested_images
from longtail.report.configurations import named
from longtail.report.pictures import Picture, class_pictures, error_pictures
from longtail.report.plots import GROUP_LABELS
from longtail.report.section import Section

CLASSES, PICTURES = 6, 4
"""Classes that are shown; training images of each, and errors of each configuration."""


@dataclass(frozen=True)
class ClassUnder:
    """One configuration on one class: its recall, its most frequent mistake, and images it got wrong."""

    label: str
    recall: float
    interval: str
    taken_for: str
    errors: tuple[Picture, ...]


@dataclass(frozen=True)
class HardClass:
    """A class of low recall on average over the configurations."""

    name: str
    group: GroupName
    train_count: int
    test_count: int
    recall: float
    train: tuple[Picture, ...]
    under: tuple[ClassUnder, ...]


def build(comparison: Comparison) -> Section | None:
    """The classes of least recall among those with enough test images to tell; None where nothing was tested."""
    rows, split = comparison.final, comparison.split
    tested = tested_images(rows, split)
    if split is None or not tested.any():
        return None
    enough = int((tested >= FEW_IMAGES).sum())
    hard = hardest_classes(rows, split)
    if not hard:
        sentence = f"No class has {FEW_IMAGES} {split} images, so that none can be called hard."
        return Section("hardest", "Hardest classes", sentence)
    sentence = f"The {len(hard)} hardest of the {enough:,} classes with at least {FEW_IMAGES} {split} images."
    shown = [each.label for each in hard[0].under]
    if len(shown) < len(rows):
        sentence += f" Shown for {listing(shown)}, the first and the one best on few-shot classes."
    data: dict[str, object] = {"classes": hard, "labels": GROUP_LABELS, "split": split}
    return Section("hardest", "Hardest classes", sentence, partial="hardest.html.j2", data=data)


def hardest_classes(rows: Sequence[Row], split: str | None, *, limit: int = CLASSES) -> tuple[HardClass, ...]:
    """The classes of least recall on average over the configurations, among those with at least five test images.

    Of equally hard classes, those with pictures come first, then those with fewer training images.

    Args:
        rows: Finished configurations.
        split: The split measured.
        limit: How many classes.
    """
    counts, tested = rows[0].runs[0].counts, tested_images(rows, split)
    recalls = np.stack([class_recalls(row, split) for row in rows])
    mean = mean_recalls(list(recalls))
    candidates = np.flatnonzero((tested >= FEW_IMAGES) & np.isfinite(mean))
    pictured = [example.label for row in rows for run in row.runs for example in run.examples]
    bare = ~np.isin(candidates, pictured)
    order = candidates[np.lexsort((counts.array[candidates], bare, mean[candidates].round(6)))][:limit].tolist()
    spoken = named(list(zip(rows, recalls, strict=True)), lambda pair: pair[0])
    mistakes = {row.name: _mistakes(row) for row, _ in spoken}
    intervals = {row.name: class_intervals(row, split) for row, _ in spoken}
    return tuple(
        HardClass(
            class_word(counts.names[index]),
            rows[0].runs[0].group_of[index],
            counts[index],
            int(tested[index]),
            float(mean[index]),
            class_pictures(rows, index, PICTURES),
            tuple(
                ClassUnder(
                    row.label,
                    float(recall[index]),
                    interval_text(intervals[row.name][index]),
                    mistakes[row.name][index],
                    error_pictures([row], index, PICTURES),
                )
                for row, recall in spoken
            ),
        )
        for index in order
    )


def _mistakes(row: Row) -> list[str]:
    """What each class is most often taken for over all seeds, with the share of its images; empty where never."""
    names = row.runs[0].counts.names
    nearest = class_confusions(row, 1)
    if nearest is None:
        return [""] * len(names)
    return [
        f"{class_word(names[other])} ({percent(share)})" if other >= 0 else ""
        for other, share in zip(nearest.prediction[:, 0].tolist(), nearest.share[:, 0].tolist(), strict=True)
    ]
