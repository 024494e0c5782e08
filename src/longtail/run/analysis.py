"""``RUN/analysis``: the measures of `longtail analyze`, written as tables and read into typed columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, TypeAdapter

from longtail.analysis.columns import Analysis, AnalyzedSplit, ClassColumns, ImageColumns
from longtail.errors import LongtailError
from longtail.files import write_json, write_table
from longtail.run.layout import ANALYSIS_FOLDER
from longtail.validation import Column, read_columns, read_json

FORMAT: Final = 1
SUMMARY, IMAGES, CLASSES = "summary.json", "images.parquet", "classes.parquet"
SplitName = Literal["train", "test"]
OPTIONAL: Final = ("pca_x", "pca_y", "tsne_x", "tsne_y", "umap_x", "umap_y", "cloud_mean", "cloud_spread")
"""Columns that a file may lack: they then read as NaN."""


class _SplitSummary(BaseModel):
    """The numbers of a split as a whole."""

    model_config = ConfigDict(extra="allow")

    images: int = 0
    of: int = 0
    drawn: int = 0
    explained_variance: tuple[float, ...] | None = None
    uniformity: float | None = None
    alignment: float | None = None
    neural_collapse: dict[str, float | None] = {}
    """The measures of neural collapse; one that cannot be measured is None."""


class _Summary(BaseModel):
    """The contents of ``summary.json``."""

    splits: dict[SplitName, _SplitSummary]


def write_analysis(run: Path, splits: Mapping[str, AnalyzedSplit], facts: Mapping[str, Any]) -> None:
    """Write the analysis of a run.

    Args:
        run: The RUN folder.
        splits: Measurements of each split.
        facts: Settings of the measurement: plain values.

    Raises:
        LongtailError: The disk refuses.
    """
    images, classes = [], []
    for name, split in splits.items():
        images.append(pa.table({"split": [name] * len(split.images.index)} | vars(split.images)))
        size = len(split.classes.images)
        numbers = {"split": [name] * size, "class": np.arange(size, dtype=np.int32)}
        classes.append(pa.table(numbers | vars(split.classes)))
    folder = run / ANALYSIS_FOLDER
    write_table(folder / IMAGES, pa.concat_tables(images))
    write_table(folder / CLASSES, pa.concat_tables(classes))
    whole = {name: dict(split.summary) for name, split in splits.items()}
    write_json(folder / SUMMARY, {"format": FORMAT, **facts, "splits": whole})


def read_analysis(run: Path, num_classes: int) -> Analysis | None:
    """Read the analysis of a run.

    Args:
        run: A RUN folder.
        num_classes: Classes of the run.

    Returns:
        None where the run was not analyzed.

    Raises:
        LongtailError: A file is missing, damaged, of a newer format, or of another run.
    """
    folder, remedy = run / ANALYSIS_FOLDER, f"write it again with: longtail analyze {shlex.quote(str(run))}"
    if not folder.is_dir():
        return None
    summary = read_json(folder / SUMMARY, TypeAdapter(_Summary), remedy, FORMAT)
    images = _read_table(folder / IMAGES, ImageColumns, num_classes, remedy)
    classes = _read_table(folder / CLASSES, ClassColumns, num_classes, remedy)
    splits: dict[str, AnalyzedSplit] = {}
    for name, whole in summary.splits.items():
        here, there = (_rows(table, name) for table in (images, classes))
        if not np.array_equal(there.pop("class"), np.arange(num_classes)):
            raise LongtailError(f"{folder} is of a run with other classes: {remedy}.")
        splits[name] = AnalyzedSplit(ImageColumns(**here), ClassColumns(**there), whole.model_dump(exclude_unset=True))
    return Analysis(splits.get("train"), splits.get("test"))


def _read_table(
    path: Path, kind: type[ImageColumns | ClassColumns], num_classes: int, remedy: str
) -> dict[str, npt.NDArray[Any]]:
    """Read the columns of a kind, with those that tell rows apart."""
    classes = Column("int", 0, num_classes - 1)
    whole = dict.fromkeys(("index", "images"), Column("int", 0, np.iinfo(np.int32).max))
    whole |= {"label": classes, "prediction": classes, "nearest": Column("int", -1, num_classes - 1)}
    columns = {"split": Column("text")} | ({"class": classes} if kind is ClassColumns else {})
    for name in (column.name for column in fields(kind)):
        columns[name] = whole.get(name, Column("float", required=name not in OPTIONAL))
    table = read_columns(path, columns, remedy)
    table["split"] = np.array(table["split"], dtype=object)
    for name, column in columns.items():
        values = table.setdefault(name, np.full(len(table["split"]), np.nan))
        if name != "split":
            table[name] = values.astype(np.int32 if column.kind == "int" else np.float32)
    return table


def _rows(table: Mapping[str, npt.NDArray[Any]], split: str) -> dict[str, npt.NDArray[Any]]:
    rows = np.flatnonzero(table["split"] == split)
    return {name: values[rows] for name, values in table.items() if name != "split"}
