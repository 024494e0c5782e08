"""The example images of a run: small pictures of every class and of the errors on it, for the report to embed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from longtail.analysis.examples import FULL, Detail, Examples, choose_examples, usual_detail
from longtail.counts import IntArray
from longtail.data.dataset import Split
from longtail.run.write import write_table

SCHEMA = pa.schema({
    "class": pa.int64(), "role": pa.string(), "image": pa.binary(), "prediction": pa.int64(),
    "confidence": pa.float32(), "path": pa.string(),
})  # fmt: skip


def write_examples(
    path: Path, train: Split, test: Split, predictions: Mapping[str, Any], counts: IntArray, *,
    tick: Callable[[], object] = lambda: None,
) -> None:  # fmt: skip
    """Write small pictures of every class, the hardest first: some of its training images, and some errors on it.

    Args:
        path: The Parquet file.
        train: Training split.
        test: Test split that the predictions are of.
        predictions: Its columns ``label``, ``prediction`` and ``confidence``, shape (N,) each.
        counts: Training images per class, shape (C,).
        tick: Called once per class.
    """
    label, answer = (np.asarray(predictions[name], dtype=np.int64) for name in ("label", "prediction"))
    confidence = np.asarray(predictions["confidence"], dtype=np.float64)
    found = choose_examples(label, answer, confidence, counts)
    rows = list(_rows(found, train, test, label, answer, confidence, tick))
    write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA))


def thumbnail(picture: Image.Image, detail: Detail) -> bytes:
    """A picture as it is stored: WebP, not enlarged.

    Example:
        >>> small = Image.open(io.BytesIO(thumbnail(Image.new("RGB", (300, 200)), FULL)))
        >>> small.format, small.size
        ('WEBP', (96, 64))
    """
    small, buffer = picture.copy(), io.BytesIO()
    small.thumbnail((detail.side, detail.side), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=detail.quality)
    return buffer.getvalue()


def _rows(
    found: Examples, train: Split, test: Split, label: IntArray, answer: IntArray, confidence: np.ndarray[Any, Any],
    tick: Callable[[], object],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    usual = usual_detail(len(found.classes))
    shown, wrong = _by_class(train.labels, len(found.close)), _by_class(label[found.errors], len(found.close))
    for one in found.classes.tolist():
        detail = FULL if found.close[one] else usual
        for row in shown[one][: detail.pictures].tolist():
            yield _example(train, row, one, "train", -1, 0.0, detail)
        for row in found.errors[wrong[one]].tolist():
            yield _example(test, row, one, "error", int(answer[row]), float(confidence[row]), detail)
        tick()


def _by_class(label: IntArray, num_classes: int) -> list[IntArray]:
    """The rows of each class, in their order."""
    return np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label, minlength=num_classes))[:-1])


def _example(
    split: Split, row: int, label: int, role: str, answer: int, confidence: float, detail: Detail
) -> dict[str, Any]:
    return {
        "class": label, "role": role, "image": thumbnail(split.image(row), detail), "prediction": answer,
        "confidence": confidence, "path": split.path(row),
    }  # fmt: skip
