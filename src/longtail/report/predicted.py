"""Configurations whose runs kept their test predictions, and the parts of the images that sections look at."""

from __future__ import annotations

from typing import Literal

import numpy as np

from longtail.analysis.groups import Mask, group_masks
from longtail.counts import GROUP_NAMES, GroupName
from longtail.report.compare import Comparison, Row
from longtail.report.palette import GROUP_LABELS
from longtail.report.runs import Predictions, RunResult

Part = Literal["all", "many", "medium", "few"]
PARTS: tuple[Part, ...] = ("all", *GROUP_NAMES)
PART_LABELS: dict[Part, str] = {part: "All images" if part == "all" else GROUP_LABELS[part] for part in PARTS}


def predicted_rows(comparison: Comparison) -> list[Row]:
    """The configurations with a run that kept its predictions of the test split; none where that is not compared."""
    if comparison.split != "test":
        return []
    return [row for row in comparison.final if known_predictions(row)]


def known_predictions(row: Row) -> list[tuple[RunResult, Predictions]]:
    """The runs of a configuration that kept their predictions, with them."""
    return [(run, run.predictions) for run in row.runs if run.predictions is not None and run.predictions.label.size]


def part_masks(run: RunResult, found: Predictions) -> dict[Part, Mask]:
    """Which of a run's test images each part holds, by their true class; shape (N,)."""
    masks: dict[Part, Mask] = {"all": np.ones(len(found.label), dtype=bool)}
    masks.update(group_masks(found.label, run.group_of).items())
    return masks


def smallest_group(run: RunResult) -> GroupName:
    """The shot group with the fewest training images a class that has classes at all."""
    return next(name for name in reversed(GROUP_NAMES) if name in run.group_of)
