"""The section on training: accuracy, loss and learning rate over the epochs, of every seed."""

from __future__ import annotations

import numpy as np

from longtail.compare.table import Comparison
from longtail.report.builders import EpochMeasure, EpochSection
from longtail.report.select import Measured

COLUMNS = ("train_accuracy", "validation_accuracy", "train_loss", "validation_loss", "learning_rate")


def histories(comparison: Comparison) -> list[Measured]:
    """The columns of the history of every run that has one, shape (E, 1) each."""
    shown = []
    for row in comparison.final:
        for run in row.runs:
            if run.history:
                columns = [[epoch.values.get(name) for epoch in run.history] for name in COLUMNS]
                values = dict(zip(COLUMNS, np.array(columns, dtype=np.float64)[..., None], strict=True))
                stage = np.array([epoch.stage for epoch in run.history], dtype=np.int64)
                shown.append(Measured(row, run, 1, values, stage=stage))
    return shown


SECTION = EpochSection(
    "curves",
    "Training",
    "Training accuracy is counted on the batches as the loop drew and changed them: at the end of stage 1 {numbers}.",
    histories,
    (
        EpochMeasure(
            {"Training": "train_accuracy", "Validation": "validation_accuracy"},
            "curve-accuracy",
            "Accuracy",
            "Accuracy",
            ".1%",
            include=(0.0, 1.0),
        ),
        EpochMeasure(
            {"Training": "train_loss", "Validation": "validation_loss"},
            "curve-loss",
            "Loss",
            "Loss",
            ".3f",
            include=(0.0,),
        ),
        EpochMeasure(
            {"Rate": "learning_rate"}, "curve-learning_rate", "Learning rate", "Learning rate", ".2g", log=True
        ),
    ),
    panels="groups",
    by_group=False,
)
