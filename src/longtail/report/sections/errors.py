"""Test images that are classified wrongly, by file, and those of them whose label looks wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray, IntArray
from longtail.report.captions import named
from longtail.report.pictures import data_uri
from longtail.report.section import Section
from longtail.report.select import known_predictions, predicted_rows
from longtail.run.result import RunResult
from longtail.text import class_word, listing, percent

ERRORS, SUSPECTS = 200, 24
"""Images that are listed at most: errors, and those that look mislabeled."""
NO_FILES = "These runs keep no file names: images are named by their place in the test split."


@dataclass(frozen=True)
class ListedImage:
    """One test image: its file, its picture where a run kept one, and the cells of its line."""

    file: str
    picture: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What several runs say of the same test images.

    Attributes:
        runs: The runs, R of them.
        rows: The configuration of each.
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (R, N).
        confidence: Probability of the predicted class, shape (R, N).
    """

    runs: tuple[RunResult, ...]
    rows: tuple[Row, ...]
    label: IntArray
    prediction: IntArray
    confidence: FloatArray

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Answers:
        """Gather the runs that were tested on the same images as the first one."""
        known = [(row, run, found) for row in rows for run, found in known_predictions(row)]
        same = [(row, run, found) for row, run, found in known if found.images == known[0][2].images]
        predictions = [found for _, _, found in same]
        return cls(
            tuple(run for _, run, _ in same),
            tuple(row for row, _, _ in same),
            predictions[0].label,
            np.stack([each.prediction for each in predictions]),
            np.stack([each.confidence for each in predictions]),
        )

    @property
    def wrong(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Whether each run is wrong on each image, shape (R, N)."""
        return np.asarray(self.prediction != self.label)


def build(comparison: Comparison) -> Section | None:
    """The surest errors by file, under each configuration; None where no run kept its predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    answers = Answers.of(named(rows, lambda row: row))
    wrong = answers.wrong
    names = [row.name for row in answers.rows]
    firsts = [names.index(name) for name in dict.fromkeys(names)]  # of several seeds the first
    weight = np.where(wrong, answers.confidence, 0.0)[firsts].sum(axis=0)
    errors = np.flatnonzero(wrong[firsts].any(axis=0))
    shown = errors[np.argsort(-weight[errors], kind="stable")][:ERRORS]
    classes = [class_word(name) for name in answers.runs[0].counts.names]

    def cells(image: int) -> tuple[str, ...]:
        under = [
            f"{classes[answers.prediction[run, image]]} ({percent(answers.confidence[run, image])})"
            if wrong[run, image]
            else "right"
            for run in firsts
        ]
        return (classes[answers.label[image]], *under)

    heads = ["Class", *(answers.rows[run].label for run in firsts)]
    which = "" if len(errors) == len(shown) else f"the {len(shown)} surest of "
    caption = f"Wrong under any configuration: {which}{len(errors):,} of {len(answers.label):,} test images"
    left_out = [row.label for row in named(rows, lambda row: row) if row.name not in names]
    if left_out:
        caption += f"; tested on other images, and so not here: {listing(left_out)}"
    return _listing("errors", "Errors", answers, shown, heads, [cells(image) for image in shown.tolist()], caption)


def mislabeled(comparison: Comparison) -> Section | None:
    """Images that all runs take for the same other class, surer than is usual for that class; None without any runs."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    answers = Answers.of(rows)
    suspects = suspect_labels(answers.label, answers.prediction, answers.confidence)
    shown = suspects[:SUSPECTS]
    names, sure = [class_word(name) for name in answers.runs[0].counts.names], answers.confidence.mean(axis=0)
    cells = [
        (names[answers.label[image]], names[answers.prediction[0, image]], percent(sure[image]))
        for image in shown.tolist()
    ]
    which = "" if len(suspects) == len(shown) else f"the {len(shown)} surest of "
    runs = f"all {len(answers.runs)} runs agree on" if len(answers.runs) > 1 else "the run gives"
    caption = (
        f"{which}{len(suspects):,} test images: {runs} another class, with more confidence than the average image that "
        "is rightly given that class. Look at them: the label may be wrong, or the class unclear"
    )
    heads = ["Labeled", "Looks like", "Confidence"]
    return _listing("mislabeled", "Mislabeled images?", answers, shown, heads, cells, caption[0].upper() + caption[1:])


def suspect_labels(label: IntArray, prediction: IntArray, confidence: FloatArray) -> IntArray:
    """Images whose label looks wrong, the surest first: the rule of confident learning (Northcutt et al., 2021).

    Args:
        label: Labels, shape (N,).
        prediction: Predicted classes of R runs, shape (R, N).
        confidence: Probability of the predicted class, shape (R, N).

    Example:
        >>> label, prediction = np.array([0, 0, 1, 1]), np.array([[0, 1, 1, 1]])
        >>> suspect_labels(label, prediction, np.array([[0.9, 0.8, 0.6, 0.7]])).tolist()
        [1]
    """
    right = prediction == label
    size = int(max(label.max(), prediction.max())) + 1
    images = np.bincount(prediction[right], minlength=size)
    # A class that is never recognized has no usual confidence; none of its errors is suspect.
    usual = np.bincount(prediction[right], weights=confidence[right], minlength=size) / np.where(images, images, np.nan)
    sure = confidence.mean(axis=0)
    agree = (prediction == prediction[0]).all(axis=0) & ~right[0]
    suspect = np.flatnonzero(agree & (sure >= np.nan_to_num(usual, nan=np.inf)[prediction[0]]))
    return np.asarray(suspect[np.argsort(-sure[suspect], kind="stable")], dtype=np.int64)


def _listing(
    anchor: str,
    title: str,
    answers: Answers,
    shown: IntArray,
    heads: Sequence[str],
    cells: Sequence[tuple[str, ...]],
    caption: str,
) -> Section:
    """A section with one line for each image."""
    paths = next((run.predictions.paths for run in answers.runs if run.predictions and run.predictions.paths), ())
    folder = os.path.commonpath(paths) if len({Path(path).is_absolute() for path in paths}) == 1 else ""
    pictures = {
        example.path: example.image
        for run in reversed(answers.runs)
        for example in run.examples
        if example.role == "error" and example.path
    }
    images = [
        ListedImage(
            paths[image].removeprefix(f"{folder}{os.sep}") if paths else f"test image {image}",
            data_uri(pictures[paths[image]]) if paths and paths[image] in pictures else "",
            line,
        )
        for image, line in zip(shown.tolist(), cells, strict=True)
    ]
    data: dict[str, object] = {
        "images": images,
        "heads": heads,
        "caption": caption + (f". Files are below {folder}." if folder else "."),
    }
    sentence = "None found." if not images else "" if paths else NO_FILES
    return Section(anchor, title, sentence, partial="files.html.j2" if images else "", data=data)
