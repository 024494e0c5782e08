"""Misclassified test images, by file, and those of them whose label looks wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longtail.compare.table import Comparison, Row
from longtail.counts import FloatArray, IntArray
from longtail.formatting import class_word, listing, percent
from longtail.report.configurations import known_predictions, predicted_rows, spoken
from longtail.report.pictures import Picture, data_uri
from longtail.report.section import Section, Table
from longtail.run.result import RunResult

ERRORS, SUSPECTS = 200, 24
"""Images that are listed at most: errors, and those that look mislabeled."""
NO_FILES = "These runs keep no file names: images are named by their place in the test split."


@dataclass(frozen=True)
class Answers:
    """Predictions of several runs for the same test images.

    Attributes:
        rows: The configuration of each of the R runs.
        runs: The runs.
        label: True classes, shape (N,).
        prediction: Predicted classes, shape (R, N).
        confidence: Probability of the predicted class, shape (R, N).
        paths: The files, N of them; empty where no run keeps their names.
    """

    rows: tuple[Row, ...]
    runs: tuple[RunResult, ...]
    label: IntArray
    prediction: IntArray
    confidence: FloatArray
    paths: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Answers:
        """Gather the runs that were tested on the same images as the first one."""
        tested = [(row, run, predictions) for row in rows for run, predictions in known_predictions(row)]
        first = tested[0][2]
        shown, runs, predictions = zip(*(each for each in tested if each[2].images == first.images), strict=True)
        answers, confidence = ([getattr(each, name) for each in predictions] for name in ("prediction", "confidence"))
        return cls(shown, runs, first.label, np.stack(answers), np.stack(confidence), first.paths)


def build(comparison: Comparison) -> Section | None:
    """The surest errors by file, under each configuration; None where no run kept its predictions."""
    rows = spoken(predicted_rows(comparison))
    if not rows:
        return None
    answers = Answers.of(rows)
    names = [row.name for row in answers.rows]
    firsts = [names.index(name) for name in dict.fromkeys(names)]  # of several seeds the first
    prediction, confidence = answers.prediction[firsts], answers.confidence[firsts]
    wrong = prediction != answers.label
    errors = np.flatnonzero(wrong.any(axis=0))
    weight = np.where(wrong, confidence, 0.0).sum(axis=0)
    errors = errors[np.argsort(-weight[errors], kind="stable")]
    classes = [class_word(name) for name in answers.runs[0].counts.names]
    lines = []
    for image in errors[:ERRORS]:
        under = zip(prediction[:, image], confidence[:, image], wrong[:, image], strict=True)
        words = [f"{classes[other]} ({percent(sure)})" if is_wrong else "right" for other, sure, is_wrong in under]
        lines.append((classes[answers.label[image]], *words))
    caption = "Wrong under any configuration"
    left_out = [row.label for row in rows if row.name not in names]
    if left_out:
        caption += f" (tested on other images, and so not here: {listing(left_out)})"
    heads = ("Class", *(answers.rows[run].label for run in firsts))
    return _listing("errors", "Errors", answers, errors, Table(caption, heads, tuple(lines), 1 + len(heads)))


def mislabeled(comparison: Comparison) -> Section | None:
    """Images that all runs take for the same other class, surer than is usual for that class; None without any runs."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    answers = Answers.of(rows)
    suspects = suspect_labels(answers.label, answers.prediction, answers.confidence)
    classes, shown = [class_word(name) for name in answers.runs[0].counts.names], suspects[:SUSPECTS]
    sure = answers.confidence[:, shown].mean(axis=0)
    pairs = zip(answers.label[shown], answers.prediction[0, shown], strict=True)
    lines = [(*(classes[index] for index in pair), percent(each)) for pair, each in zip(pairs, sure, strict=True)]
    caption = "Taken for another class"
    caption += f" by all {len(answers.runs)} runs" if len(answers.runs) > 1 else ""
    caption += ", surer than is usual where that class is right, so that the label may be wrong or the class unclear"
    table = Table(caption, ("Labeled", "Looks like", "Confidence"), tuple(lines), labels=3)
    return _listing("mislabeled", "Mislabeled images?", answers, suspects, table)


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


def _listing(anchor: str, title: str, answers: Answers, images: IntArray, table: Table) -> Section:
    """A section with a table of the first of some images, whose files and pictures come in front of its cells."""
    if not table.rows:
        return Section(anchor, title, "None found.")
    paths = answers.paths
    folder = os.path.commonpath(paths) if len({Path(path).is_absolute() for path in paths}) == 1 else ""
    examples = [example for run in reversed(answers.runs) for example in run.examples if example.role == "error"]
    stored = {example.path: data_uri(example.image) for example in examples if example.path}
    rows = []
    for image, cells in zip(images.tolist(), table.rows, strict=False):
        file = paths[image] if paths else f"test image {image}"
        name = file.removeprefix(f"{folder}{os.sep}")
        rows.append((Picture(stored.get(file, ""), name, f"{cells[0]}, {name}", file), *cells))
    shown = "" if len(images) == len(rows) else f"the {len(rows)} surest of "
    caption = f"{table.caption}: {shown}{len(images):,} of {len(answers.label):,} test images."
    caption += f" Files are below {folder}." if folder else ""
    table = Table(caption, ("File", *table.heads), tuple(rows), table.labels, folded="")
    return Section(anchor, title, "" if paths else NO_FILES, table=table)
