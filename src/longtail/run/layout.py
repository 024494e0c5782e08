"""The layout of a RUN: the names of its files and folders, its configuration, and whether a folder is one."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from longtail.errors import LongtailError, UsageError, resume_hint
from longtail.files import is_stream, output_path, write_yaml

if TYPE_CHECKING:
    from longtail.config.build import Document
    from longtail.config.schema import RunConfig

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"
Table: TypeAlias = "dict[str, Value]"

CONFIG_FILE: Final = "config.yaml"
METRICS_FILE: Final = "metrics.json"
MODEL_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "model.safetensors"
ADJUSTED_FILE: Final = "adjusted.json"
HISTORY_FILE: Final = "history.csv"
SPLITS_FILE: Final = "splits.csv"
CONFUSION_FILE: Final = "confusion.csv"
PREDICTIONS_FILE: Final = "predictions.parquet"
EXAMPLES_FILE: Final = "examples.parquet"
TRACKER_FILE: Final = "tracker.json"
REPORT_FILE: Final = "report.html"
PORTFOLIO_FILE: Final = "portfolio.json"
SEARCH_FILE: Final = "search.json"
GRID_FILE: Final = "grid.yaml"
"""In the folder of a grid, whose runs lie in folders below it."""
TABLE_FILE: Final = "table.csv"
"""The comparison of the runs of a grid, in its folder."""

CHECKPOINT_FOLDER: Final = "checkpoint"
DYNAMICS_FOLDER: Final = "dynamics"
ANALYSIS_FOLDER: Final = "analysis"
TENSORBOARD_FOLDER: Final = "tensorboard"


def fold_name(number: int) -> str:
    """Return the name of the RUN of a fold, within the folder of its cross-validation.

    Example:
        >>> fold_name(0)
        'fold-0'
    """
    return f"fold-{number}"


def stage_name(number: int) -> str:
    """Return the name of the folder of the model after a stage.

    Example:
        >>> stage_name(1)
        'stage1'
    """
    return f"stage{number}"


def log_file(run: Path) -> Path:
    """Return the file for all output of the process that trains a run of a grid, next to the folder of the run.

    Example:
        >>> log_file(Path("grid/gcl/1")).as_posix()
        'grid/gcl/1.log'
    """
    return run.with_name(f"{run.name}.log")


def baseline_report(baseline: str) -> str:
    """Return the name of the report of the runs that share a baseline, in a grid with several.

    Example:
        >>> baseline_report("ce")
        'report-ce.html'
    """
    return f"report-{baseline}.html"


def require_folder(run: str | Path) -> Path:
    """Return the folder of a run.

    Raises:
        LongtailError: It does not exist, or is a file.
    """
    folder = Path(run)
    if folder.is_file():
        raise LongtailError(f"{str(folder)!r} is a file, not a run: name the folder that `longtail train --out` wrote.")
    if not folder.is_dir():
        raise LongtailError(f"There is no run {str(folder)!r}: name the folder that `longtail train` wrote.")
    return folder


def refuse_existing(out: Path) -> None:
    """Make sure that a folder is new or empty.

    Raises:
        LongtailError: It holds something already.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> refuse_existing(folder)
        >>> for name in (CONFIG_FILE, METRICS_FILE, REPORT_FILE): (folder / name).touch()
        >>> refuse_existing(folder)
        Traceback (most recent call last):
        longtail.errors.LongtailError: ... is a finished run: choose another --out, or remove that folder first.
    """
    if is_stream(output_path(out)):
        raise LongtailError(f"{out} is a stream, and a run is a folder: name one with --out.")
    # Temporary files are of a process killed before it completed its first file.
    if not out.exists() or (out.is_dir() and all(re.fullmatch(r"\..*\.tmp", path.name) for path in out.iterdir())):
        return
    if all((out / name).is_file() for name in (CONFIG_FILE, METRICS_FILE, REPORT_FILE)):
        raise LongtailError(
            f"{out} exists already and is a finished run: choose another --out, or remove that folder first."
        )
    hint = f"continue it with: {resume_hint(out)}" if (out / CONFIG_FILE).is_file() else "empty it first."
    raise LongtailError(f"{out} exists already: choose another --out, or {hint}")


def refuse_swapped(run: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Refuse swapped arguments: a run where something else belongs, and something else in place of the run.

    Raises:
        UsageError: The second argument is a run and the first is not.
    """
    from longtail.data.sources.huggingface import HUB_PREFIX

    if os.fspath(run).startswith(HUB_PREFIX) or (Path(run) / MODEL_FILE).is_file():
        return
    if (Path(other) / MODEL_FILE).is_file():
        raise UsageError(
            f"{os.fspath(other)!r} is a run, and {os.fspath(run)!r} is not: the run comes first, so swap the two."
        )


def write_config(run: Path, config: RunConfig) -> None:
    """Write ``config.yaml``, every option of a run.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    write_options(run, asdict(config))


def write_options(run: Path, options: Table) -> None:
    """Write ``config.yaml`` from nested plain values.

    Raises:
        LongtailError: As :func:`write_config`.
    """
    write_yaml(run / CONFIG_FILE, options)


def remove_config(run: Path) -> None:
    """Remove ``config.yaml``, if it is there: what was to be a run has not begun."""
    (run / CONFIG_FILE).unlink(missing_ok=True)


def restore_hint(run: Path) -> str:
    """Return how to get a missing or damaged ``metrics.json`` back: a finished run has no checkpoint to resume from.

    Example:
        >>> restore_hint(Path("runs/photos"))
        'delete it if it is there, and continue with: longtail train --resume runs/photos'
    """
    if (run / CHECKPOINT_FOLDER).exists() or not (run / WEIGHTS_FILE).is_file():
        return f"delete it if it is there, and continue with: {resume_hint(run)}"
    return "copy it from the run again, or train into a new --out."


def write_grid(folder: Path, grid: Table) -> None:
    """Write ``grid.yaml``, the file that makes the same grid.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    write_yaml(folder / GRID_FILE, grid)


def read_config(run: Path) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        LongtailError: ``config.yaml`` is missing or damaged, or has an unknown option or a wrong value; the line and
            column are named.
    """
    from longtail.config.build import build

    document = _document(run)
    return build(document.values, document)


def read_options(run: Path) -> Table:
    """Return the options of ``config.yaml`` as nested plain values, those of older versions too.

    Raises:
        LongtailError: The file is missing, is not YAML of plain values, too large, or nested too deeply.
    """
    return cast("Table", _document(run).values)


def _document(run: Path) -> Document:
    from longtail.config.build import read_yaml

    path, remedy = run / CONFIG_FILE, "copy it back, or train the run again"
    if not path.is_file():
        raise LongtailError(f"{run} has no {CONFIG_FILE}, so it is not a run that was started: {remedy}.")
    document = read_yaml(path, remedy)
    options, sections = document.values, ("data", "model", "stage1", "stage2", "finetune", "training")
    if not isinstance(options, dict) or not all(isinstance(options.get(name, {}), dict) for name in sections):
        raise LongtailError(f"{path} does not hold a configuration: {remedy}.")
    return document
