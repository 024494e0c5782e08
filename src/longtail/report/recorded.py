"""read_dynamics: what a run recorded of its gradients, epoch by epoch, read into arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longtail.analysis.saturation import BINS
from longtail.errors import LongtailError

FOLDER = "dynamics"
COLUMNS = ("class", "images", "positive", "negative", "gradient", "p_histogram")
NAME = re.compile(r"stage(\d+)-epoch(\d+)\.parquet")


@dataclass(frozen=True)
class Dynamics:
    """E epochs of C classes, in the order they were trained in.

    Attributes:
        stage: Stage of each epoch, shape (E,).
        images: How often an image of the class was drawn, shape (E, C).
        positive: Accumulated gradient that raises the logit of the class, shape (E, C).
        negative: Accumulated gradient that lowers it, shape (E, C).
        gradient: Mean size of the gradient on the own logit of its images, shape (E, C); NaN without images.
        histogram: Images by p_y, in the bins of :data:`longtail.analysis.saturation.EDGES`, shape (E, C, BINS).
    """

    stage: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    positive: npt.NDArray[np.float64]
    negative: npt.NDArray[np.float64]
    gradient: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int32]

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Epochs over all stages, from 1, shape (E,)."""
        return np.arange(1, len(self.stage) + 1)

    @property
    def end_of_stage_1(self) -> int:
        """The last epoch of the first stage that was recorded, as an index."""
        return int(np.flatnonzero(self.stage == self.stage[0])[-1])

    @property
    def stage_2(self) -> int | None:
        """How many epochs lie before the second stage that was recorded; None where there is one stage."""
        return self.end_of_stage_1 + 1 if self.stage[-1] != self.stage[0] else None


def read_dynamics(run: Path, num_classes: int) -> Dynamics | None:
    """Read what a run recorded.

    Args:
        run: A RUN folder.
        num_classes: Classes of the run.

    Returns:
        None where the run recorded nothing.

    Raises:
        LongtailError: A file is damaged or missing in the row, or of a run with other classes.
    """
    found = {
        (int(name[1]), int(name[2])): path
        for path in sorted((run / FOLDER).glob("*.parquet"))
        if (name := NAME.fullmatch(path.name))
    }
    if not found:
        return None
    order = sorted(found)
    _check_order(order, run)
    columns = [_read(found[key], num_classes) for key in order]
    together = {name: np.stack([one[name] for one in columns]) for name in columns[0]}
    return Dynamics(stage=np.array([stage for stage, _ in order], dtype=np.int64), **together)


def _check_order(order: list[tuple[int, int]], run: Path) -> None:
    expected = 1
    for (stage, epoch), before in zip(order, [None, *order], strict=False):
        expected = 1 if before is None or before[0] != stage else expected + 1
        if epoch != expected:
            raise LongtailError(
                f"{run / FOLDER} has no file of stage {stage}, epoch {expected}: put it back, or move the folder away "
                "to report without it."
            )


def _read(path: Path, num_classes: int) -> dict[str, npt.NDArray[Any]]:
    remedy = f"put it back, or move {path.parent} away to report without it"
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
        bins = table["p_histogram"].combine_chunks().flatten().to_numpy().reshape(len(table), BINS)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise LongtailError(f"{path} cannot be read: {remedy}.") from error
    if not np.array_equal(table["class"].to_numpy(), np.arange(num_classes)):
        raise LongtailError(f"{path} is of a run with other classes: {remedy}.")
    floats = {name: table[name].to_numpy().astype(np.float64) for name in ("positive", "negative", "gradient")}
    return floats | {"images": table["images"].to_numpy().astype(np.int64), "histogram": bins.astype(np.int32)}
