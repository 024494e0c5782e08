"""``RUN/dynamics``: the gradients that a run recorded, a table for each epoch, written and read into arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from longtail.analysis.dynamics import BINS
from longtail.errors import LongtailError
from longtail.files import write_table
from longtail.run.layout import DYNAMICS_FOLDER
from longtail.validation import Column, read_columns

_NAME: Final = re.compile(r"stage(\d{1,9})-epoch(\d{1,9})\.parquet", re.ASCII)


@dataclass(frozen=True)
class Dynamics:
    """E epochs of C classes, in the order they were trained in.

    Attributes:
        stage: Stage of each epoch, shape (E,).
        images: Number of images drawn of the class, shape (E, C).
        positive: Accumulated gradient that raises the logit of the class, shape (E, C).
        negative: Accumulated gradient that lowers it, shape (E, C).
        gradient: Mean size of the gradient on the own logit of its images, shape (E, C); NaN without images.
        histogram: Images by p_y, in the bins of :data:`longtail.analysis.dynamics.EDGES`, shape (E, C, BINS).
    """

    stage: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    positive: npt.NDArray[np.float64]
    negative: npt.NDArray[np.float64]
    gradient: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int32]

    @property
    def end_of_stage_1(self) -> int:
        """The last epoch of the first stage that was recorded, as an index."""
        return int(np.flatnonzero(self.stage == self.stage[0])[-1])


def read_dynamics(run: Path, num_classes: int) -> Dynamics | None:
    """Read the gradients that a run recorded.

    Args:
        run: A RUN folder.
        num_classes: Classes of the run.

    Returns:
        None where the run recorded nothing.

    Raises:
        LongtailError: A file is damaged or missing in the row, or of a run with other classes.
    """
    folder = run / DYNAMICS_FOLDER
    files = {
        (int(name[1]), int(name[2])): path for path in folder.glob("*.parquet") if (name := _NAME.fullmatch(path.name))
    }
    if not files:
        return None
    remedy = f"put it back, or move {folder} away to report without it"
    order = sorted(files)
    for stage, epoch in order:
        if epoch > 1 and (stage, epoch - 1) not in files:
            raise LongtailError(f"{folder} has no file of stage {stage}, epoch {epoch - 1}: {remedy}.")
    columns = [_read_epoch(files[key], num_classes, remedy) for key in order]
    together = {name: np.stack([epoch[name] for epoch in columns]) for name in columns[0]}
    return Dynamics(stage=np.array([stage for stage, _ in order], dtype=np.int64), **together)


def _read_epoch(path: Path, num_classes: int, remedy: str) -> dict[str, npt.NDArray[Any]]:
    whole = Column("int", 0, 2**31 - 1)
    columns = {"class": whole, "images": whole, "p_histogram": Column("int", 0, 2**31 - 1, lists=True)}
    columns |= {"positive": Column("float", 0), "negative": Column("float", 0), "gradient": Column("float")}
    table = read_columns(path, columns, remedy)
    bins = table.pop("p_histogram")
    if not np.array_equal(table.pop("class"), np.arange(num_classes)) or bins.shape != (num_classes, BINS):
        raise LongtailError(f"{path} is of a run with other classes: {remedy}.")
    return {**table, "histogram": bins.astype(np.int32)}


SUMS = 3  # columns before the histogram: gradient, size of gradient, size of gradient on the own logit


def epoch_columns(sums: Tensor, scale: float) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of the file of an epoch, a value for each class.

    Args:
        sums: float64 (C, 3 + BINS), from a ``GradientRecorder``, of all processes.
        scale: Scale of the recorder.

    Returns:
        ``images`` (C,), how often an image of the class was drawn; ``positive`` and ``negative`` (C,), the accumulated
        gradient that raises and lowers its logit; ``gradient`` (C,), the mean size of the gradient on the own logit of
        its images, NaN without images: ``1 - p_y`` of what a cross-entropy sees, times the scales that a loss gives to
        single classes (KPS); ``p_histogram`` (C, BINS).
    """
    values = sums.cpu().numpy()
    total, size, of_label = (values[:, column] / (scale or 1.0) for column in range(SUMS))
    histogram = values[:, SUMS:].astype(np.int32)
    images = histogram.sum(axis=1)
    mean = np.where(images > 0, of_label / np.maximum(images, 1), np.nan)
    positive, negative = (np.maximum(size + sign * total, 0.0) / 2 for sign in (-1, 1))  # no rounding below zero
    return {"images": images, "positive": positive, "negative": negative, "gradient": mean, "p_histogram": histogram}


def write_epoch(out: Path, stage: int, epoch: int, sums: Tensor, scale: float) -> None:
    """Write ``OUT/dynamics/stage{S}-epoch{EEEE}.parquet``, one row a class; a file of that name is replaced.

    Args:
        out: The RUN folder.
        stage: 1, 2 or 3.
        epoch: From 1.
        sums: See :func:`epoch_columns`.
        scale: See :func:`epoch_columns`.

    Raises:
        LongtailError: The disk refuses.
    """
    columns = epoch_columns(sums, scale)
    count = len(columns["images"])
    bins = pa.FixedSizeListArray.from_arrays(pa.array(columns.pop("p_histogram").reshape(-1)), BINS)
    numbers: dict[str, Any] = {"stage": [stage] * count, "epoch": [epoch] * count, "class": range(count)}
    numbers["images"] = columns.pop("images")
    arrays = {name: pa.array(values, pa.int32()) for name, values in numbers.items()}
    arrays |= {name: pa.array(values, pa.float32()) for name, values in columns.items()}
    table = pa.table(arrays | {"p_histogram": bins})
    write_table(out / DYNAMICS_FOLDER / f"stage{stage}-epoch{epoch:04d}.parquet", table)
