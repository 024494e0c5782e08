"""Reading the files of a RUN folder, with one clear sentence where one is missing or broken."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from longtail.errors import LongtailError, resume_hint
from longtail.run.folder import CONFIG_FILE, METRICS_FILE, MODEL_FILE

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"
Table: TypeAlias = "dict[str, Value]"

FORMAT = 1


def read_metrics(root: Path) -> Table:
    """The table of ``metrics.json``.

    Raises:
        LongtailError: It is missing, broken, or of a newer format.
    """
    path = root / METRICS_FILE
    if not path.is_file() and not (root / CONFIG_FILE).is_file():
        raise LongtailError(f"{root} is not a run: name a folder that longtail train has made.")
    if not path.is_file():
        raise LongtailError(f"{root} has no {METRICS_FILE}: finish the run with: {resume_hint(root)}")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LongtailError(
            f"{path} is not valid JSON ({error}); delete it and write it again with: {resume_hint(root)}"
        ) from error
    if not isinstance(metrics, dict):
        raise LongtailError(f"{path} does not hold a table; delete it and write it again with: {resume_hint(root)}")
    if metrics.get("format", FORMAT) != FORMAT:
        raise LongtailError(f"{path} has format {metrics['format']}, this version reads {FORMAT}; update longtail.")
    return metrics


def read_adjustment(root: Path) -> str:
    """The name of what ``longtail adjust`` did to the run; empty where it did nothing or there is no ``model.json``.

    Raises:
        LongtailError: The file is broken.
    """
    path = root / MODEL_FILE
    if not path.is_file():
        return ""
    try:
        adjustment = json.loads(path.read_text(encoding="utf-8")).get("adjustment")
        method = str(adjustment.get("chosen", {}).get("method", "post-hoc")) if adjustment else ""
    except (ValueError, AttributeError) as error:
        raise LongtailError(f"{path} is not a {MODEL_FILE} of longtail ({error}): copy the run again.") from error
    return "temperature" if method == "none" else method


def read_config(root: Path) -> Table:
    """The nested table of ``config.yaml``.

    Raises:
        LongtailError: It is missing or broken.
    """
    path = root / CONFIG_FILE
    if not path.is_file():
        raise LongtailError(f"{root} has no {CONFIG_FILE}; copy it back, or train the run again.")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LongtailError(f"{path} is not valid YAML; copy it back, or train the run again.") from error
    if not isinstance(config, dict):
        raise LongtailError(f"{path} does not hold a configuration; copy it back, or train the run again.")
    return cast("Table", config)


def read_history(path: Path) -> list[tuple[int, Mapping[str, float | None]]]:
    """The stage number and the measurements of each epoch; empty without the file, None in place of an empty cell.

    Raises:
        LongtailError: A cell is no number, or a column is missing.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        stages = [int("".join(filter(str.isdigit, row["stage"])) or 1) for row in rows]
        values = [{k: _number(v) for k, v in row.items() if k not in ("stage", "epoch")} for row in rows]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise LongtailError(f"{path} cannot be read ({error}); delete it to report without curves.") from error
    return list(zip(stages, values, strict=True))


def read_parquet(path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> pa.Table | None:
    """The named columns, None without the file.

    Args:
        path: The file.
        columns: Required columns.
        optional: Columns that are read if present.

    Raises:
        LongtailError: The file is broken or lacks a column.
    """
    if not path.is_file():
        return None
    try:
        present = pq.read_schema(path).names if optional else []
        return pq.read_table(path, columns=[*columns, *(name for name in optional if name in present)])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise LongtailError(
            f"{path} cannot be read; delete {METRICS_FILE} beside it and write both again with: "
            f"{resume_hint(path.parent)}"
        ) from error


def _number(cell: str | None) -> float | None:
    value = float(cell) if cell not in (None, "") else math.nan
    return value if math.isfinite(value) else None
