"""The learning rate of an epoch as a pure function, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from longtail.config.schema import ScheduleConfig
from longtail.errors import UsageError


def learning_rate(schedule: ScheduleConfig, peak: float, epoch: int, epochs: int) -> float:
    """Return the learning rate of one epoch.

    Args:
        schedule: Warm-up, milestones and factors, or cosine.
        peak: Learning rate after warm-up.
        epoch: Epoch index from 0.
        epochs: Epochs of the stage.

    Returns:
        The learning rate that all steps of this epoch use.

    Example:
        >>> published = ScheduleConfig("multistep", warmup_epochs=5, milestones=[160, 180], factors=[0.1, 0.01])
        >>> [round(learning_rate(published, 0.1, epoch, 200), 4) for epoch in (0, 4, 159, 160, 180)]
        [0.02, 0.1, 0.1, 0.01, 0.001]
    """
    if epoch < schedule.warmup_epochs:
        return peak * (epoch + 1) / schedule.warmup_epochs
    if schedule.name == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    factor = 1.0
    for milestone, value in zip(schedule.milestones, schedule.factors, strict=True):
        if schedule.name == "multistep" and epoch >= milestone:
            factor = value
    return peak * factor


def check_schedule(schedule: ScheduleConfig, where: str) -> None:
    """Check that milestones and factors fit together.

    Raises:
        UsageError: They do not.

    Example:
        >>> check_schedule(ScheduleConfig("multistep", milestones=[3]), "--stage1.schedule")
        Traceback (most recent call last):
        longtail.errors.UsageError: --stage1.schedule needs one factor per milestone, got 1 milestones and 0 factors.
    """
    milestones, factors = schedule.milestones, schedule.factors
    if len(milestones) != len(factors):
        raise UsageError(
            f"{where} needs one factor per milestone, got {len(milestones)} milestones and {len(factors)} factors."
        )
    if list(milestones) != sorted(milestones):
        raise UsageError(f"{where}.milestones must rise, got {milestones}.")
