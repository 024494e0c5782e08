"""The hardest classes with what they look like and what they are taken for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from longtail.compare.seeds import mean_interval
from longtail.compare.table import Row
from longtail.counts import FEW_IMAGES, GroupName
from longtail.report.captions import named
from longtail.run.result import Ends, ExampleImage, RunResult
from longtail.text import class_word, interval_text, percent

LIGHT_BYTES = 4_000
"""A larger PNG, as older versions stored pictures, is embedded as WebP."""


@dataclass(frozen=True)
class Picture:
    """An embedded image with what stands under it and what is read aloud for it."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Verdict:
    """One configuration on one class: its accuracy, its most frequent mistake, and mistaken images."""

    label: str
    recall: float | None
    taken_for: str
    errors: tuple[Picture, ...]
    interval: Ends | None = None

    @property
    def text(self) -> str:
        """The accuracy as written in the page."""
        return percent(self.recall)

    @property
    def ends(self) -> str:
        """Its interval in percent; empty where there is none."""
        return interval_text(self.interval)


@dataclass(frozen=True)
class HardClass:
    """A class that the configurations recognise least."""

    name: str
    group: GroupName
    train_count: int
    recall: float
    train: tuple[Picture, ...]
    verdicts: tuple[Verdict, ...]
    test_count: int = 0

    @property
    def is_small(self) -> bool:
        """Whether it has hardly any test images."""
        return 0 < self.test_count < FEW_IMAGES


def class_intervals(row: Row, split: str | None) -> list[Ends | None]:
    """The 95% interval of each class's recall, C of them: the mean of those of the seeds, None where there is none."""
    measured = [run.metrics(split) for run in row.runs] if split else []
    kept = [metrics.per_class for metrics in measured if metrics is not None and metrics.per_class]
    if not kept:
        return [None] * len(row.runs[0].counts)
    return [mean_interval([one.interval for one in each]) for each in zip(*kept, strict=True)]


def tested_images(rows: Sequence[Row], split: str | None) -> npt.NDArray[np.int64]:
    """Test images per class, shape (C,), the smallest number that any run was measured on; 0 where none was."""
    found = [run.metrics(split) for row in rows for run in row.runs] if split else []
    kept = [[one.test_count for one in metrics.per_class] for metrics in found if metrics and metrics.per_class]
    size = len(rows[0].runs[0].counts)
    return np.array(kept, dtype=np.int64).min(axis=0) if kept else np.zeros(size, dtype=np.int64)


def class_recalls(row: Row, split: str | None) -> npt.NDArray[np.float64]:
    """Recall per class, averaged over the seeds of a configuration, shape (C,); NaN where nothing was tested."""
    measured = [run.metrics(split) for run in row.runs] if split else []
    kept = [metrics.recalls for metrics in measured if metrics is not None and metrics.per_class]
    if not kept:
        return np.full(len(row.runs[0].counts), np.nan)
    return np.asarray(np.mean(kept, axis=0), dtype=np.float64)


def mean_recalls(recalls: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Recall per class, averaged over the configurations that were tested on the class, shape (C,); NaN where none was.

    Args:
        recalls: Of each configuration, from :func:`class_recalls`.

    Example:
        >>> mean_recalls([[0.5, np.nan, np.nan], [1.0, 0.25, np.nan]]).tolist()
        [0.75, 0.25, nan]
    """
    measured = np.asarray(recalls, dtype=np.float64)
    known = ~np.isnan(measured)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, measured, 0.0).sum(axis=0) / known.sum(axis=0), dtype=np.float64)


def hardest_classes(
    rows: Sequence[Row], split: str | None, *, limit: int = 6, pictures: int = 4
) -> tuple[HardClass, ...]:
    """The classes of least accuracy on average over the configurations.

    Of equally hard classes, those with pictures come first, then those with fewer training images.

    Args:
        rows: Finished configurations.
        split: The split measured.
        limit: How many classes.
        pictures: How many training images and, per configuration, wrong test images to show of each.
    """
    recalls = np.stack([class_recalls(row, split) for row in rows])
    every = mean_recalls(list(recalls))
    tested = np.flatnonzero(~np.isnan(every))
    mean = every[tested]
    first = rows[0].runs[0]
    pictured = {example.label for row in rows for run in row.runs for example in run.examples}
    bare = np.array([index not in pictured for index in tested.tolist()])
    order = tested[np.lexsort((first.counts.array[tested], bare, mean.round(6)))][:limit]
    images, ends = tested_images(rows, split), [class_intervals(row, split) for row in rows]
    return tuple(
        replace(
            _hard_class(int(index), rows, recalls[:, index], [each[index] for each in ends], pictures),
            test_count=int(images[index]),
        )
        for index in order
    )


def _hard_class(
    index: int, rows: Sequence[Row], recalls: npt.NDArray[np.float64], ends: Sequence[Ends | None], pictures: int
) -> HardClass:
    first = rows[0].runs[0]
    name = first.counts.names[index]
    verdicts = []
    for row, recall, pair in named(list(zip(rows, recalls, ends, strict=True)), lambda one: one[0]):
        known = None if np.isnan(recall) else float(recall)
        verdicts.append(Verdict(row.label, known, _taken_for(row, index), _errors(row, index, pictures), pair))
    # A run keeps most pictures of the classes that are hardest for itself, so any run may have those of this class.
    train = max((_train_images(run, index) for row in rows for run in row.runs), key=len)[:pictures]
    drawn = tuple(Picture(data_uri(image), "", f"training image of {class_word(name)}") for image in train)
    return HardClass(
        class_word(name), first.group_of[index], first.counts[index], float(np.nanmean(recalls)), drawn, tuple(verdicts)
    )


def _train_images(run: RunResult, index: int) -> list[bytes]:
    return [example.image for example in run.examples if example.role == "train" and example.label == index]


def _errors(row: Row, index: int, pictures: int) -> tuple[Picture, ...]:
    names = row.runs[0].counts.names
    examples = next((found for run in row.runs if (found := [e for e in run.examples if _is_error(e, index)])), [])
    return tuple(
        Picture(
            data_uri(example.image),
            class_word(names[example.prediction]),
            f"{names[index]}, taken for {names[example.prediction]} at {percent(example.confidence)} confidence",
        )
        for example in examples[:pictures]
    )


def _is_error(example: ExampleImage, index: int) -> bool:
    return example.role == "error" and example.label == index and example.prediction >= 0


def _taken_for(row: Row, index: int) -> str:
    """The most frequent wrong prediction over all seeds, with its share of the images of the class."""
    known = [run.predictions for run in row.runs if run.predictions is not None]
    picked = [found.prediction[found.label == index] for found in known]
    answers = np.concatenate(picked) if picked else np.array([], dtype=np.int64)
    wrong = answers[answers != index]
    if not wrong.size:
        return ""
    other, tally = np.unique(wrong, return_counts=True)
    best = int(tally.argmax())
    return f"{class_word(row.runs[0].counts.names[int(other[best])])} ({percent(tally[best] / answers.size, 0)})"


def data_uri(image: bytes, *, light: int = LIGHT_BYTES) -> str:
    """An image for ``src``: a WebP as stored, a PNG likewise up to ``light`` bytes, else 96 pixels a side as WebP.

    Example:
        >>> data_uri(b"RIFF"), data_uri(b"no image at all", light=4)
        ('data:image/webp;base64,UklGRg==', 'data:,')
    """
    if image.startswith(b"RIFF"):
        return f"data:image/webp;base64,{base64.b64encode(image).decode()}"
    if len(image) <= light:
        return f"data:image/png;base64,{base64.b64encode(image).decode()}"
    try:
        with Image.open(io.BytesIO(image)) as opened:
            small = opened.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return "data:,"
    small.thumbnail((96, 96))
    target = io.BytesIO()
    small.save(target, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(target.getvalue()).decode()}"
