"""read_analysis: what `longtail analyse` left in RUN/analysis, read into typed columns."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longtail.analysis.columns import AnalysedSplit, Analysis, ClassColumns, ImageColumns
from longtail.errors import LongtailError
from longtail.run.folder import ANALYSIS_FOLDER
from longtail.run.read import Table

FORMAT = 1
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
OPTIONAL = ("pca_x", "pca_y", "tsne_x", "tsne_y", "umap_x", "umap_y", "cloud_mean", "cloud_spread")
"""Columns that a file may lack: they then read as NaN."""


def read_analysis(run: Path, num_classes: int) -> Analysis | None:
    """Read the analysis of a run.

    Args:
        run: A RUN folder.
        num_classes: Classes of the run.

    Returns:
        None where the run was not analysed.

    Raises:
        LongtailError: A file is missing, damaged, of a newer format, or of another run.
    """
    folder = run / ANALYSIS_FOLDER
    if not folder.is_dir():
        return None
    summary = _read_summary(folder / "summary.json", run)
    images = _read_table(folder / "images.parquet", run, [column.name for column in fields(ImageColumns)])
    classes = _read_table(folder / "classes.parquet", run, ["class", *(column.name for column in fields(ClassColumns))])
    splits = cast("dict[str, Table]", summary["splits"])
    found = {name: _split(name, images, classes, splits[name], num_classes, run) for name in SPLITS if splits.get(name)}
    return Analysis(found.get("train"), found.get("test"))


def _split(
    name: str, images: pa.Table, classes: pa.Table, summary: Table, num_classes: int, run: Path
) -> AnalysedSplit:
    here, there = (_columns(table, name) for table in (images, classes))
    number, labels = there.pop("class"), here["label"]
    if not np.array_equal(number, np.arange(num_classes)) or (labels.size and labels.max() >= num_classes):
        raise LongtailError(f"{run / 'analysis'} is of a run with other classes: {_remedy(run)}")
    return AnalysedSplit(ImageColumns(**here), ClassColumns(**there), summary)


def _columns(table: pa.Table, split: str) -> dict[str, npt.NDArray[Any]]:
    rows = np.flatnonzero(table["split"].to_numpy() == split)
    found = {}
    for name in table.column_names:
        if name != "split":
            values = table[name].to_numpy()[rows]
            found[name] = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
    return found


def _read_summary(path: Path, run: Path) -> Table:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LongtailError(f"{path} is missing: {_remedy(run)}") from None
    except (OSError, ValueError) as error:
        raise LongtailError(f"{path} cannot be read: {_remedy(run)}") from error
    if not isinstance(found, dict) or not isinstance(found.get("splits"), dict):
        raise LongtailError(f"{path} holds no analysis: {_remedy(run)}")
    if found.get("format", FORMAT) != FORMAT:
        raise LongtailError(f"{path} has format {found['format']}, this version reads {FORMAT}; update longtail.")
    return cast("Table", found)


def _read_table(path: Path, run: Path, columns: list[str]) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise LongtailError(f"{path} is missing: {_remedy(run)}") from None
    except (pa.ArrowException, OSError) as error:
        raise LongtailError(f"{path} cannot be read: {_remedy(run)}") from error
    for name in OPTIONAL:
        if name in columns and name not in table.column_names:
            table = table.append_column(name, pa.array(np.full(len(table), np.nan, np.float32)))
    lacking = [name for name in ["split", *columns] if name not in table.column_names]
    if lacking:
        raise LongtailError(f"{path} has no column {lacking[0]!r}: {_remedy(run)}")
    return table.select(["split", *columns])


def _remedy(run: Path) -> str:
    return f"write it again with: longtail analyse {shlex.quote(str(run))}"
