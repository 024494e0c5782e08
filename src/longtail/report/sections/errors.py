"""Test images that are classified wrongly, by file, and those of them whose label looks wrong."""

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
from longtail.report.pictures import data_uri
from longtail.report.section import Section
from longtail.run.result import RunResult

ERRORS, SUSPECTS = 200, 24
"""Images that are listed at most: errors, and those that look mislabeled."""
NO_FILES = "These runs keep no file names: images are named by their place in the test split."


@dataclass(frozen=True)
class Answers:
    """What several runs say of the same test images.

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
        known = [(row, run, predictions) for row in rows for run, predictions in known_predictions(row)]
        first = known[0][2]
        shown, runs, predictions = zip(*(each for each in known if each[2].images == first.images), strict=True)
        answers, confidence = ([getattr(each, name) for each in predictions] for name in ("prediction", "confidence"))
        return cls(shown, runs, first.label, np.stack(answers), np.stack(confidence), first.paths)


@dataclass(frozen=True)
class ListedImage:
    """One test image: its file, its picture where a run kept one, and the cells of its line."""

    file: str
    picture: str
    cells: Sequence[str]


def build(comparison: Comparison) -> Section | None:
    """The surest errors by file, under each configuration; None where no run kept its predictions."""
    rows = spoken(predicted_rows(comparison))
    if not rows:
        return None
    answers = Answers.of(rows)
    names = [row.name for row in answers.rows]
    firsts = [names.index(name) for name in dict.fromkeys(names)]  # of several seeds the first
    wrong = (answers.prediction != answers.label)[firsts]
    errors = np.flatnonzero(wrong.any(axis=0))
    weight = np.where(wrong, answers.confidence[firsts], 0.0).sum(axis=0)
    shown = errors[np.argsort(-weight[errors], kind="stable")][:ERRORS]
    classes, cells = [class_word(name) for name in answers.runs[0].counts.names], []
    for image in shown.tolist():
        line = [classes[answers.label[image]]]
        for run in firsts:
            prediction, sure = answers.prediction[run, image], answers.confidence[run, image]
            is_right = prediction == answers.label[image]
            line.append("right" if is_right else f"{classes[prediction]} ({percent(sure)})")
        cells.append(line)
    heads = ["Class", *(answers.rows[run].label for run in firsts)]
    caption = f"Wrong under any configuration: {_how_many(shown, errors, answers)}"
    left_out = [row.label for row in rows if row.name not in names]
    if left_out:
        caption += f"; tested on other images, and so not here: {listing(left_out)}"
    return _listing("errors", "Errors", answers, shown, heads, cells, caption)


def mislabeled(comparison: Comparison) -> Section | None:
    """Images that all runs take for the same other class, surer than is usual for that class; None without any runs."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    answers = Answers.of(rows)
    suspects = suspect_labels(answers.label, answers.prediction, answers.confidence)
    shown, sure = suspects[:SUSPECTS], answers.confidence.mean(axis=0)
    classes = [class_word(name) for name in answers.runs[0].counts.names]
    cells = [
        (classes[answers.label[image]], classes[answers.prediction[0, image]], percent(sure[image]))
        for image in shown.tolist()
    ]
    agreed = f" by all {len(answers.runs)} runs" if len(answers.runs) > 1 else ""
    caption = (
        f"Taken for another class{agreed}, with more confidence than is usual where that class is right: "
        f"{_how_many(shown, suspects, answers)}. Look at them: the label may be wrong, or the class unclear"
    )
    heads = ["Labeled", "Looks like", "Confidence"]
    return _listing("mislabeled", "Mislabeled images?", answers, shown, heads, cells, caption)


def _how_many(shown: IntArray, found: IntArray, answers: Answers) -> str:
    which = "" if len(found) == len(shown) else f"the {len(shown)} surest of "
    return f"{which}{len(found):,} of {len(answers.label):,} test images"


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
    cells: Sequence[Sequence[str]],
    caption: str,
) -> Section:
    """A section with one line for each image."""
    paths = answers.paths
    folder = os.path.commonpath(paths) if len({Path(path).is_absolute() for path in paths}) == 1 else ""
    examples = [example for run in reversed(answers.runs) for example in run.examples if example.role == "error"]
    pictures = {example.path: example.image for example in examples if example.path}
    images = []
    for image, line in zip(shown.tolist(), cells, strict=True):
        file = paths[image] if paths else f"test image {image}"
        picture = data_uri(pictures[file]) if file in pictures else ""
        images.append(ListedImage(file.removeprefix(f"{folder}{os.sep}"), picture, line))
    caption += f". Files are below {folder}." if folder else "."
    data: dict[str, object] = {"images": images, "heads": heads, "caption": caption}
    sentence = "None found." if not images else "" if paths else NO_FILES
    return Section(anchor, title, sentence, partial="files.html.j2" if images else "", data=data)
