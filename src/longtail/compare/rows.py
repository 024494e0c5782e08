"""Row and Comparison: configurations side by side, with what a reader has to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from longtail.compare.wording import Spread
from longtail.evaluation.significance import Difference
from longtail.run.result import Ends, RunResult


@dataclass(frozen=True)
class Row:
    """One configuration, or what it was after an earlier stage.

    Attributes:
        name: The recipe, and the options that differ from rows of the same recipe.
        stage: The stage measured, None for the finished run.
        runs: The runs folded into this row, one per seed.
        values: Metric to mean and deviation, None where nothing was measured.
        differences: The same, minus the first row: over pairs of runs with equal seed and images where there are any.
        pairs: How many pairs that were; 0 where the means were subtracted.
        colour: Which colour of the run palette the row has in every figure.
        label: The name without the ``DATA/`` that all rows share, for figures.
        intervals: Metric to the 95 % interval that its number of test images leaves; the mean of those of the runs.
    """

    name: str
    stage: int | None
    runs: tuple[RunResult, ...]
    values: dict[str, Spread | None]
    differences: dict[str, Difference | None]
    pairs: int = 0
    colour: int = 0
    label: str = ""
    intervals: Mapping[str, Ends | None] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The training seeds that are known."""
        return [run.seed for run in self.runs if run.seed is not None]


@dataclass(frozen=True)
class Comparison:
    """Rows to compare and what a reader has to know before trusting them.

    Attributes:
        rows: The baseline, which differences are against, then the other configurations in the order given.
        split: The split that was measured, or None when no run was evaluated.
        notes: One sentence each: other test images, another training subset, single seeds, repeated seeds.
    """

    rows: tuple[Row, ...]
    split: Literal["test", "validation"] | None
    notes: tuple[str, ...]

    @property
    def final(self) -> tuple[Row, ...]:
        """The rows of finished runs, without those of earlier stages."""
        return tuple(row for row in self.rows if row.stage is None)
