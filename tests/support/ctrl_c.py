"""A user who presses Ctrl-C at a chosen moment of training, as a callback of the run."""

from __future__ import annotations

import signal
from typing import Any

from longtail.training.loop import Callback, Progress, StageRun


class CtrlC(Callback):
    """Sends SIGINT to this process.

    Args:
        stage: 1 or 2.
        epoch: Finished epochs of the stage.
        step: Finished steps of the next epoch; 0 is the end of the epoch before, ahead of its checkpoint.
    """

    def __init__(self, stage: int, epoch: int, step: int = 0) -> None:
        self.moment = Progress(stage, epoch, step)

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Press after a step."""
        self._press(progress)

    def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
        """Press after an epoch."""
        self._press(Progress(stage.index, row["epoch"]))

    def _press(self, progress: Progress) -> None:
        if progress == self.moment:
            signal.raise_signal(signal.SIGINT)
