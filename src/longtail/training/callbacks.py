"""What hangs on the training loop of a run: the moving average of the weights, and the progress bar of a stage."""

from __future__ import annotations

from typing import Self, cast

from longtail.console import Bar
from longtail.models.model import LongTailModel
from longtail.run.checkpoint import TrainingState, load_weights
from longtail.training.loop import Callback, StageRun
from longtail.training.progress import Progress

AGREE_STEPS = 10  # several processes ask each other this often whether to stop; the bar moves as often


class MovingAverage(Callback):
    """An exponential moving average of a network's weights.

    Args:
        model: The network that is trained.
        decay: What remains of the average at each step, in (0, 1), once it has risen to that.

    Attributes:
        updates: How often it was updated in this stage.
    """

    def __init__(self, model: LongTailModel, decay: float) -> None:
        from longtail.models.timm import prepare_torchvision

        prepare_torchvision()
        from timm.utils.model_ema import ModelEmaV3

        self.model = model
        # The decay rises from 0: else a short run would average in the weights that it began with.
        self.timm = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.updates = 0

    @property
    def network(self) -> LongTailModel:
        """The network with the averaged weights."""
        return cast("LongTailModel", self.timm.module)

    def load(self, state: TrainingState) -> Self:
        """Continue the average of a checkpoint."""
        load_weights(self.network, state.take("average"), "the averaged model")
        self.updates = int(state.values["updates"])
        return self

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Take in the weights after a step."""
        del stage, progress
        self.updates += 1
        self.timm.update(self.model, step=self.updates)


class StageBar(Callback):
    """Shows on a bar how far a stage is, and its mean loss.

    Args:
        bar: Counts the steps of all epochs of the stage.
    """

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Move the bar now and then."""
        if progress.step % AGREE_STEPS == 0 or progress.step == stage.steps:
            loss = "" if stage.meter.mean_loss is None else f"  loss {stage.meter.mean_loss:.3f}"
            done = progress.epoch * stage.steps + progress.step
            self.bar.update(done, f"epoch {progress.epoch + 1}/{stage.epochs}{loss}")
