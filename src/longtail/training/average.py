"""The moving average of the weights that a stage may keep and end with: timm's, and how often it was updated."""

from __future__ import annotations

from typing import cast

from longtail.models.model import LongTailModel
from longtail.training.checkpoint import TrainingState, load_weights


class MovingAverage:
    """An exponential moving average of a network's weights.

    Args:
        model: The network that is trained.
        decay: What stays of the average at each step, in (0, 1), once it has risen to that.

    Attributes:
        updates: How often it was updated in this stage.
    """

    def __init__(self, model: LongTailModel, decay: float) -> None:
        from longtail.models.torchvision_fix import prepare_torchvision

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

    def update(self) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        self.timm.update(self.model, step=self.updates)


def make_average(model: LongTailModel, decay: float | None, state: TrainingState | None) -> MovingAverage | None:
    """Begin an average, or go on with that of a checkpoint.

    Args:
        model: The network that is trained.
        decay: Of the average; there is none for None.
        state: A checkpoint of this stage, if it goes on.
    """
    if decay is None:
        return None
    average = MovingAverage(model, decay)
    if state is not None:
        load_weights(average.network, state.take("average"), "the averaged model")
        average.updates = int(state.values["updates"])
    return average
