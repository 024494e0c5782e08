"""The tables of a RUN: history, predictions, example images and confusion matrix, written and read."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field, TypeAdapter

from longtail.counts import FloatArray, IntArray
from longtail.data.splits import group_numbers
from longtail.errors import LongtailError, first_line, resume_hint
from longtail.files import write_atomically, write_table
from longtail.formatting import percent
from longtail.run.layout import CONFUSION_FILE, EXAMPLES_FILE, HISTORY_FILE, PREDICTIONS_FILE
from longtail.validation import Column, read_bytes, read_columns, read_table, validate

SQUARE: Final = 1000
"""Classes: with more, most cells of a confusion matrix are zero, and spreadsheets cannot open it."""

_RESTORE: Final = "copy it from the run again, or delete it to go on without it"


class EpochRow(BaseModel):
    """A row of the history; an entry that was not measured is None or absent."""

    stage: Annotated[int, Field(ge=1, le=3)]
    epoch: Annotated[int, Field(ge=1)]
    progress: float | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_balanced_accuracy: float | None = None
    seconds: float
    images_per_second: float | None = None
    waiting_share: float | None = None


def write_history(run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``history.csv``, one line per epoch; a value that was not measured leaves its cell empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EpochRow.model_fields), restval="")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_atomically(run / HISTORY_FILE, text.getvalue().encode())


def read_history(run: Path) -> tuple[EpochRow, ...]:
    """Read ``history.csv``; empty without the file.

    Raises:
        LongtailError: A cell is not a number, or a column is missing.
    """
    path, remedy = run / HISTORY_FILE, "delete it to report without curves"
    if not path.is_file():
        return ()
    data = read_bytes(path, remedy)
    try:
        rows = [
            {name: _number(cell) for name, cell in row.items()}
            for row in csv.DictReader(io.StringIO(data.decode(), newline=""))
        ]
    except (csv.Error, ValueError, AttributeError) as error:
        raise LongtailError(f"{path} cannot be read ({error}): {remedy}.") from error
    return validate(TypeAdapter(tuple[EpochRow, ...]), rows, path, remedy)


def _number(cell: str | None) -> float | None:
    value = float(cell.removeprefix("stage")) if cell else math.nan  # an older version wrote stage2 for 2
    return value if math.isfinite(value) else None


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
    return {name: round(median(measured), 4) if measured else None for name, measured in values.items()}


def describe_throughput(history: Sequence[Mapping[str, Any]], stage: int) -> str:
    """Describe :func:`throughput` in one clause.

    Example:
        >>> describe_throughput([{"stage": 1, "images_per_second": 1234.5, "waiting_share": 0.031}], 1)
        '1234 images/s, 3.1% of the time waiting for data'
    """
    rate, waiting = throughput(history, stage).values()
    clauses = [] if rate is None else [f"{rate:.0f} images/s"]
    clauses += [] if waiting is None else [f"{percent(waiting)} of the time waiting for data"]
    return ", ".join(clauses)


@dataclass(frozen=True)
class Predictions:
    """``predictions.parquet``: labels and predictions of the test split, each of shape (N,).

    Attributes:
        label: Class index.
        prediction: Class index.
        confidence: Probability of the prediction.
        group: The group of each image; None if images are independent or the run did not keep it.
        images: A hash of labels and paths in order, equal for runs tested on the same images.
        paths: The files, empty where an older version kept none.
        probability_true: Probability of the label; None where an older version kept none.
        second: Probability of the second-best class; None where an older version kept none.
    """

    label: IntArray
    prediction: IntArray
    confidence: FloatArray
    group: IntArray | None = None
    images: str = ""
    paths: tuple[str, ...] = ()
    probability_true: FloatArray | None = None
    second: FloatArray | None = None


def write_predictions(run: Path, columns: Mapping[str, Any]) -> None:
    """Write ``predictions.parquet``: one row per test image; a column of shape (N, K) becomes one of lists."""
    listed = {name: list(values) if getattr(values, "ndim", 1) > 1 else values for name, values in columns.items()}
    write_table(run / PREDICTIONS_FILE, pa.table(listed))


def read_predictions(run: Path, num_classes: int) -> Predictions | None:
    """Read ``predictions.parquet``; None without the file.

    Raises:
        LongtailError: The file is damaged, or of a run with other classes.
    """
    path = run / PREDICTIONS_FILE
    if not path.is_file():
        return None
    table = read_columns(path, _prediction_columns(num_classes), _RESTORE)
    paths = [name or "" for name in table.get("path", [])]
    group, ranked = table.get("group"), table.get("top5_probabilities")
    return Predictions(
        label=table["label"],
        prediction=table["prediction"],
        confidence=table["confidence"],
        group=None if group is None else group_numbers(group),
        images=_images_hash(table["label"], paths),
        paths=tuple(paths),
        probability_true=table.get("probability_true"),
        second=ranked[:, 1] if ranked is not None and ranked.shape[1] > 1 else None,
    )


def _prediction_columns(num_classes: int) -> dict[str, Column]:
    classes = Column("int", 0, num_classes - 1)
    return {
        "label": classes,
        "prediction": classes,
        "confidence": Column("float", 0, 1.001),  # computed in float32, as all probabilities
        "probability_true": Column("float", 0, 1.001, required=False),
        "top5_probabilities": Column("float", 0, 1.001, lists=True, required=False),
        "path": Column("text", required=False, null=True),
        "group": Column("text", required=False, null=True),
    }


def pool_predictions(folders: Sequence[Path], rows: Sequence[IntArray], num_classes: int) -> dict[str, Any]:
    """Read ``predictions.parquet`` of all folds as the columns of one, in the order of the images.

    Args:
        folders: The RUN folder of each fold.
        rows: For each fold, the rows of its test images among all images, which ``index`` then names.
        num_classes: Classes of the folds.

    Raises:
        LongtailError: A file is missing or damaged, of a run with other classes or images, or unlike the others.
    """
    lists = {
        "top5": Column("int", 0, num_classes - 1, lists=True),
        "top5_probabilities": Column("float", 0, 1.001, lists=True),
    }
    tables = []
    for folder, places in zip(folders, rows, strict=True):
        columns = _prediction_columns(num_classes) | lists | {"index": Column("int", 0, len(places) - 1)}
        table = read_table(folder / PREDICTIONS_FILE, columns, retrain_hint(folder))
        index = pa.array(places[table["index"].to_numpy()])
        tables.append(table.set_column(table.column_names.index("index"), "index", index))
    joined = _concatenate(tables, folders, PREDICTIONS_FILE).sort_by("index")
    return {
        name: np.array(joined[name].to_pylist()) if name in lists else joined[name].to_numpy()
        for name in joined.column_names
    }


def _concatenate(tables: Sequence[pa.Table], folders: Sequence[Path], name: str) -> pa.Table:
    """Concatenate the tables of folds; a column that is empty in one of them has the type of the others."""
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise LongtailError(
            f"the files {name} in {folders[0].parent} do not fit together ({first_line(error)}): delete the folders of "
            f"the folds and continue with: {resume_hint(folders[0].parent)}"
        ) from error


def retrain_hint(fold: Path) -> str:
    """Return how to get a damaged file of a finished fold back.

    Example:
        >>> retrain_hint(Path("cv/fold-1"))
        'delete cv/fold-1 and train this fold again with: longtail train --resume cv'
    """
    return f"delete {fold} and train this fold again with: {resume_hint(fold.parent)}"


def _images_hash(label: IntArray, paths: Sequence[str]) -> str:
    """Hash the tested images in order, without their common folder, which may have been moved between runs."""
    shared = os.path.commonprefix(paths).rfind("/") + 1  # noqa: RUF071 - up to a whole folder
    names = "\n".join(path[shared:] for path in paths)
    return hashlib.sha256(label.tobytes() + names.encode(errors="surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class ExampleImage:
    """One small picture of ``examples.parquet``: a training image, or a test image classified wrongly.

    ``path`` is the file it was made from, empty where an older version kept none.
    """

    label: int
    role: str
    image: bytes
    prediction: int
    confidence: float
    path: str = ""


def write_examples(run: Path, rows: Sequence[ExampleImage]) -> None:
    """Write ``examples.parquet``, one row per picture.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    types = {"int": pa.int64(), "float": pa.float32(), "text": pa.string(), "binary": pa.binary()}
    schema = pa.schema([(name, types[column.kind]) for name, column in _example_columns().items()])
    table = pa.Table.from_pylist([vars(row) | {"class": row.label} for row in rows], schema)
    write_table(run / EXAMPLES_FILE, table)


def read_examples(run: Path, num_classes: int) -> tuple[ExampleImage, ...]:
    """Read ``examples.parquet``; empty without the file.

    Raises:
        LongtailError: The file is damaged, or of a run with other classes.
    """
    path, columns = run / EXAMPLES_FILE, _example_columns(num_classes)
    if not path.is_file():
        return ()
    table = read_columns(path, columns, _RESTORE)
    table.setdefault("path", [""] * len(table["role"]))
    rows = zip(*(table[name] for name in columns), strict=True)
    return tuple(
        ExampleImage(int(label), role, image, int(prediction), float(confidence), path or "")
        for label, role, image, prediction, confidence, path in rows
    )


def pool_examples(run: Path, folders: Sequence[Path], num_classes: int) -> None:
    """Write ``examples.parquet`` with the pictures of all folds.

    Args:
        run: The folder of the cross-validation.
        folders: The RUN folder of each fold.
        num_classes: Classes of the folds.

    Raises:
        LongtailError: A file is missing or damaged, of a run with other classes, or unlike the others.
    """
    columns = _example_columns(num_classes)
    tables = [read_table(folder / EXAMPLES_FILE, columns, retrain_hint(folder)) for folder in folders]
    write_table(run / EXAMPLES_FILE, _concatenate(tables, folders, EXAMPLES_FILE))


def _example_columns(num_classes: float = math.inf) -> dict[str, Column]:
    return {
        "class": Column("int", 0, num_classes - 1),
        "role": Column("text"),
        "image": Column("binary"),
        "prediction": Column("int", -1, num_classes - 1),
        "confidence": Column("float"),
        "path": Column("text", required=False, null=True),
    }


def write_confusion(run: Path, predictions: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Write ``confusion.csv``, the number of images by true and predicted class.

    Up to :data:`SQUARE` classes it is the matrix, one row per true class and one column per predicted class. Beyond,
    each row is a pair of true and predicted class that occurs, with its number of images, most frequent first.

    Args:
        run: The RUN folder.
        predictions: The columns ``label`` and ``prediction``, class indices (N,).
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
    write_atomically(run / CONFUSION_FILE, text.getvalue().encode())
