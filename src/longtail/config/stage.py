"""The options of a stage of training: loss, optimizer, schedule, and what is trained on which draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from longtail.config.options import (
    Augmentation,
    Count,
    Fraction,
    Mixing,
    NotNegative,
    OptionGroup,
    Positive,
    Share,
    WholeNumber,
)
from longtail.errors import UsageError

MOST_EPOCHS = 1_000_000
_WARMUP_SHARE = 0.05  # of the steps of a stage
AUTO_LOSS = "auto"
"""The loss of stage 1 that stands for a classifier chosen by cross-validation on stored features; of fine-tuning, that
of the stage before."""
AUTO_SAMPLER = "auto"
"""The sampler of fine-tuning that stands for that of the stage before."""


@dataclass(frozen=True)
class LossConfig(OptionGroup):
    """A loss by its registered name, with its keyword options.

    Attributes:
        name: Registered name, for example ``gcl``; ``longtail recipes`` shows which exist. In stage 1, on stored
            features, ``auto`` chooses loss, optimizer and classifier by cross-validation on the training images.
        options: Keyword arguments of the loss, for example ``{scale: 30, noise: 0.5}``.
    """

    name: str = "cross-entropy"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerConfig(OptionGroup):
    """The optimizer.

    Attributes:
        name: Which one; ``muon`` trains matrices and convolutions of the backbone by Muon, and all else by AdamW.
        lr: Peak learning rate.
        momentum: Momentum of SGD and Muon.
        weight_decay: L2 penalty (SGD; Adam, of all but biases and normalization) or decoupled decay (AdamW, Muon).
        nesterov: Nesterov momentum of SGD and Muon.
        layer_decay: Learning rate of each layer of a timm backbone as a multiple of that of the layer above it; None
            trains all at the same rate.
        sgd_lr: With ``muon``, peak learning rate of SGD (momentum 0.9, weight decay 2e-4) for the classifier, biases
            and normalization, in place of AdamW at ``lr``.
    """

    name: Literal["sgd", "adam", "adamw", "muon"] = "sgd"
    lr: NotNegative = 0.1
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 2e-4
    nesterov: bool = False
    layer_decay: Share | None = None
    sgd_lr: Positive | None = None


@dataclass(frozen=True)
class ScheduleConfig(OptionGroup):
    """The learning rate over the epochs of a stage.

    Attributes:
        name: ``multistep`` multiplies by ``factors[i]`` after ``milestones[i]`` epochs; ``cosine`` falls to zero;
            ``warm-cosine`` does so with every step, after a linear warm-up over the first twentieth of all steps.
        warmup_epochs: Linear warm-up: epoch e (from 0) runs at ``lr * (e + 1) / warmup_epochs``.
        milestones: Epochs after which a factor applies, rising.
        factors: Learning rate as a multiple of the peak, one per milestone.
    """

    name: Literal["constant", "multistep", "cosine", "warm-cosine"] = "constant"
    warmup_epochs: WholeNumber = 0
    milestones: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)

    def check(self, where: str) -> None:
        """Check that milestones and factors fit together.

        Raises:
            UsageError: They do not.

        Example:
            >>> ScheduleConfig("multistep", milestones=[3]).check("schedule")
            Traceback (most recent call last):
            longtail.errors.UsageError: schedule needs one factor per milestone, got 1 milestones and 0 factors.
        """
        milestones, factors = len(self.milestones), len(self.factors)
        if milestones != factors:
            raise UsageError(
                f"{where} needs one factor per milestone, got {milestones} milestones and {factors} factors."
            )
        if self.milestones != sorted(self.milestones):
            raise UsageError(f"{where}.milestones must rise, got {self.milestones}.")

    def learning_rate(self, peak: float, done: float, epochs: int) -> float:
        """Return the learning rate of a step; it needs no state, also when a run is resumed.

        Args:
            peak: Learning rate after warm-up.
            done: Epochs before the step, with the share of the one under way; only ``warm-cosine`` looks at that share.
            epochs: Epochs of the stage.

        Example:
            >>> published = ScheduleConfig("multistep", warmup_epochs=5, milestones=[160, 180], factors=[0.1, 0.01])
            >>> [round(published.learning_rate(0.1, epoch, 200), 4) for epoch in (0, 4, 159, 160, 180)]
            [0.02, 0.1, 0.1, 0.01, 0.001]
            >>> [round(ScheduleConfig("warm-cosine").learning_rate(1.0, done, 2), 3) for done in (0.05, 0.1, 1.05, 2)]
            [0.5, 1.0, 0.5, 0.0]
        """
        if self.name == "warm-cosine":
            share = done / epochs
            if share < _WARMUP_SHARE:
                return peak * share / _WARMUP_SHARE
            return peak * 0.5 * (1 + math.cos(math.pi * (share - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))
        epoch = math.floor(done)
        if epoch < self.warmup_epochs:
            return peak * (epoch + 1) / self.warmup_epochs
        if self.name == "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        factor = 1.0
        for milestone, value in zip(self.milestones, self.factors, strict=True):
            if self.name == "multistep" and epoch >= milestone:
                factor = value
        return peak * factor


@dataclass(frozen=True)
class StageConfig(OptionGroup):
    """One pass of the training loop: what is trained, on which draws, with which loss and schedule.

    Attributes:
        epochs: Epochs; 0 leaves the stage out.
        epoch_share: Share of the sampler's draws that an epoch takes.
        batch_size: Images per optimizer step, over all processes together.
        sampler: ``shuffle`` (every image once an epoch) or a re-balancing strategy; ``auto``, in fine-tuning, is that
            of the stage before.
        train: ``all`` parameters, the ``classifier`` on a frozen backbone, or one ``scales`` per class (LWS).
        reset_classifier: Start the classifier anew instead of from the stage before (cRT).
        cached_views: Train a classifier on features computed once for this many augmented views of each image; 0 passes
            every batch through the backbone.
        mixing: Mix images of a batch; ``feature-mixup`` mixes features instead, where ``cached_views`` are trained on.
        mixing_alpha: Parameter of the Beta distribution that mixing draws from.
        mixing_until: Share of the epochs in which images are mixed; the rest trains on images as they are.
        image_sizes: Sides in pixels that images are scaled down to, each for an equal part of the epochs, for example
            ``[20, 24, 32]``; that of ``data.image_size`` throughout when empty.
        augmentation: Random changes to a training image in this stage, where it passes images through the backbone;
            those of ``data.augmentation`` when not given.
        freeze_batch_norm: Normalize batches by the running statistics of the network, which stay as they are.
        ema_decay: Decay of the moving average in this stage; that of ``training.ema_decay`` when not given.
        loss: The loss.
        optimizer: The optimizer.
        schedule: The learning-rate schedule.
    """

    epochs: Annotated[int, Ge(0), Le(MOST_EPOCHS)] = 0
    epoch_share: Share = 1.0
    batch_size: Count = 64
    sampler: str = "shuffle"
    train: Literal["all", "classifier", "scales"] = "all"
    reset_classifier: bool = False
    cached_views: WholeNumber = 0
    mixing: Mixing = "none"
    mixing_alpha: Positive = 1.0
    mixing_until: Share = 1.0
    image_sizes: list[Count] = field(default_factory=list)
    augmentation: Augmentation | None = None
    freeze_batch_norm: bool = False
    ema_decay: Fraction | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def passes(self, image_size: int) -> float:
        """Return how often the images are passed through the network; those of ``image_sizes`` count by their pixels.

        Args:
            image_size: Side in pixels of a whole pass.

        Example:
            >>> StageConfig(epochs=200).passes(32), StageConfig(epochs=90, image_sizes=[16, 32, 32]).passes(32)
            (200.0, 67.5)
        """
        sizes = [size_of_epoch(self.image_sizes, epoch, self.epochs) or image_size for epoch in range(self.epochs)]
        return self.epoch_share * sum(size**2 for size in sizes) / image_size**2


def size_of_epoch(sizes: Sequence[int], epoch: int, epochs: int) -> int | None:
    """Return the side in pixels that images are scaled to in an epoch, from 0; None where they are left as they are.

    Where there are fewer epochs than sizes, the last ones are taken.

    Example:
        >>> [size_of_epoch([16, 24, 32], epoch, 6) for epoch in range(6)], size_of_epoch([16, 32], 0, 1)
        ([16, 16, 24, 24, 32, 32], 32)
    """
    return sizes[len(sizes) - 1 - (epochs - 1 - epoch) * len(sizes) // epochs] if sizes else None


FINETUNING = StageConfig(
    batch_size=32,
    sampler=AUTO_SAMPLER,
    augmentation="crop-flip",
    freeze_batch_norm=True,
    loss=LossConfig(AUTO_LOSS),
    optimizer=OptimizerConfig("adamw", lr=2e-4, weight_decay=0.01),
    schedule=ScheduleConfig("warm-cosine"),
)
"""How all of a pretrained network trains on, after its classifier."""


def section_name(stage: int) -> str:
    """Return the group of options of a stage.

    Example:
        >>> section_name(1), section_name(3)
        ('stage1', 'finetune')
    """
    return "finetune" if stage == 3 else f"stage{stage}"
