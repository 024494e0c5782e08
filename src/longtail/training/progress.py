"""Progress: where training stands, and the figures of a run in one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from longtail.formatting import figure_text

State = Literal["not begun", "in a stage", "between stages", "trained", "evaluated"]
"""Where training stands: a stage includes the end of its last epoch, before its results are measured."""


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        stage: 1 or 2, the stage under way; between stages the following one, and 1 more than the last one after it.
        epoch: Finished epochs of that stage.
        step: Finished steps of its next epoch.
        state: The same in words.

    Example:
        >>> Progress(1, epoch=4, step=20).describe(epochs=200)
        'at stage 1, epoch 5, step 20'
    """

    stage: int
    epoch: int = 0
    step: int = 0
    state: State = "in a stage"

    def describe(self, epochs: int) -> str:
        """Say where a run continues, given the number of epochs of its stage."""
        if self.state in ("trained", "evaluated"):
            return "after the last stage: the files of the result are still to be written"
        if self.state == "in a stage" and self.epoch == epochs:
            return f"at the end of stage {self.stage}"
        return f"at stage {self.stage}, epoch {self.epoch + 1}, step {self.step}"


NOT_BEGUN: Final = Progress(1, state="not begun")


def describe(summary: Mapping[str, Any]) -> str:
    """Say the main figures of a summary in one line, with their intervals where it has them.

    Example:
        >>> figures = {"accuracy": 0.5, "balanced_accuracy": 0.4, "many": 0.75, "medium": None, "few": 0.1}
        >>> describe(figures)
        'accuracy 50.0%, balanced accuracy 40.0%, many 75.0, medium n/a, few 10.0'
        >>> describe(figures | {"intervals": {"accuracy": [0.41, 0.59]}})
        'accuracy 50.0% (41.0–59.0), balanced accuracy 40.0%, many 75.0, medium n/a, few 10.0'
    """
    intervals = summary.get("intervals") or {}
    whole = ("accuracy", "balanced_accuracy")
    means = [f"{name.replace('_', ' ')} {figure_text(summary[name], intervals.get(name))}" for name in whole]
    groups = [
        f"{name} {figure_text(summary[name], intervals.get(name), unit=False)}" for name in ("many", "medium", "few")
    ]
    return ", ".join([*means, *groups])
