"""The names of all files and folders of a RUN, and whether a folder is one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from longtail.errors import LongtailError, resume_hint
from longtail.files import is_stream, output_path

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
GRID_FILE: Final = "grid.yaml"
"""In the folder of a grid, whose runs lie in folders below it."""

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
    """Return the file for all output of the process that trains a run of a grid, beside the folder of the run.

    Example:
        >>> log_file(Path("grid/gcl/1")).as_posix()
        'grid/gcl/1.log'
    """
    return run.with_name(f"{run.name}.log")


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
    if not out.exists() or (out.is_dir() and all(_is_leftover(path.name) for path in out.iterdir())):
        return
    if all((out / name).is_file() for name in (CONFIG_FILE, METRICS_FILE, REPORT_FILE)):
        raise LongtailError(
            f"{out} exists already and is a finished run: choose another --out, or remove that folder first."
        )
    hint = f"continue it with: {resume_hint(out)}" if (out / CONFIG_FILE).is_file() else "empty it first."
    raise LongtailError(f"{out} exists already: choose another --out, or {hint}")


def _is_leftover(name: str) -> bool:
    """Whether a file is a temporary one of a process killed before it completed its first file."""
    return name.startswith(".") and name.endswith(".tmp")
