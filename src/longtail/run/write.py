"""The files of a finished run: history, predictions and metrics."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from longtail.files import write_atomically
from longtail.text import percent

HISTORY_COLUMNS = (
    "stage", "epoch", "progress", "learning_rate", "train_loss", "train_accuracy", "validation_loss",
    "validation_accuracy", "validation_balanced_accuracy", "seconds", "images_per_second",
    "waiting_share",
)  # fmt: skip


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as YAML, in their own order."""
    write_atomically(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as JSON."""
    write_atomically(path, (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one line per epoch; a value that was not measured leaves its cell empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode())


def throughput(history: Sequence[Mapping[str, Any]], stage: int) -> dict[str, float | None]:
    """Images per second and the share of time spent waiting for data: medians over the epochs of a stage.

    Example:
        >>> rows = [{"stage": 1, "images_per_second": n, "waiting_share": 0.5} for n in (9.0, 100.0, 110.0)]
        >>> throughput(rows, 1)
        {'images_per_second': 100.0, 'waiting_share': 0.5}
    """
    names = ("images_per_second", "waiting_share")
    # An epoch before the run was resumed may come from a version that did not measure it.
    values = {name: [row[name] for row in history if row["stage"] == stage and name in row] for name in names}
    return {name: round(median(found), 4) if found else None for name, found in values.items()}


def describe_throughput(history: Sequence[Mapping[str, Any]], stage: int) -> str:
    """Say what :func:`throughput` found in one clause.

    Example:
        >>> describe_throughput([{"stage": 1, "images_per_second": 1234.5, "waiting_share": 0.031}], 1)
        '1234 images/s, 3.1% of the time waiting for data'
    """
    found = throughput(history, stage)
    rate, waiting = found["images_per_second"], found["waiting_share"]
    said = [] if rate is None else [f"{rate:.0f} images/s"]
    said += [] if waiting is None else [f"{percent(waiting)} of the time waiting for data"]
    return ", ".join(said)


def write_predictions(path: Path, columns: Mapping[str, Any]) -> None:
    """Write ``predictions.parquet``: one row per test image."""
    write_table(path, pa.table(dict(columns)))


SQUARE = 1000  # classes: with more, most cells of a confusion matrix are zero, and spreadsheets cannot open it


def write_confusion(path: Path, predictions: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Write ``confusion.csv``, the number of images by true and predicted class.

    Up to :data:`SQUARE` classes it is the matrix, one row per true class and one column per predicted class. Beyond,
    each row is a pair of true and predicted class that occurs, with its number of images, most frequent first.

    Args:
        path: The CSV file.
        predictions: Its columns ``label`` and ``prediction``, class indices (N,).
        classes: Names of the classes, C of them.

    Raises:
        LongtailError: The disk refuses.
    """
    label, prediction = (np.asarray(predictions[name], dtype=np.int64) for name in ("label", "prediction"))
    pairs, images = np.unique(label * len(classes) + prediction, return_counts=True)
    text = io.StringIO()
    writer = csv.writer(text)
    if len(classes) <= SQUARE:
        matrix = np.zeros(len(classes) ** 2, dtype=np.int64)
        matrix[pairs] = images
        writer.writerow(["true \\ predicted", *classes])
        writer.writerows([name, *row] for name, row in zip(classes, matrix.reshape(len(classes), -1), strict=True))
    else:
        order = np.argsort(-images, kind="stable")
        writer.writerow(["true", "predicted", "images"])
        for pair, count in zip(pairs[order].tolist(), images[order].tolist(), strict=True):
            true, predicted = divmod(pair, len(classes))
            writer.writerow([classes[true], classes[predicted], count])
    write_atomically(path, text.getvalue().encode())


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue().to_pybytes())
