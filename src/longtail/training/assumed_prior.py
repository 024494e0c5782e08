"""Which mix of classes a trained network's probabilities assume: a function of how its last stage was trained."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from longtail.config.schema import RunConfig, StageConfig
from longtail.counts import ClassCounts, FloatArray
from longtail.data.samplers import class_probabilities
from longtail.losses import LongTailLoss, build_loss


def trained_prior(config: RunConfig, counts: ClassCounts) -> Literal["train", "uniform"]:
    """Return the mix that the probabilities of a finished run assume, by its last stage; see :func:`assumed_prior`."""
    return assumed_prior(config.stage2 if config.stage2.epochs else config.stage1, counts)


def assumed_prior(stage: StageConfig, counts: ClassCounts) -> Literal["train", "uniform"]:
    """Return which of two mixes is nearer to the one that a stage's network comes to assume.

    A network trained with cross-entropy learns the probabilities of the mix it sees: how often a class is drawn,
    times the weight its images have in the loss, both at the end of the stage. A loss that adjusts its logits by
    the prior (:attr:`~longtail.losses.LongTailLoss.prior_exponent`) takes ``pi^tau`` out of that. The answer is
    ``"uniform"`` where the mix has less than half the spread (of logarithms) of the training images, as with class-
    balanced draws, inverse weights, or ``tau = 1``. Losses with margins (LDAM, KPS, FBL, GCL) change the
    probabilities in ways no mix of classes describes; they count by draws and weights alone.

    Args:
        stage: The last stage that has epochs.
        counts: Training images per class.

    Example:
        >>> assumed_prior(StageConfig(), ClassCounts([90, 10]))
        'train'
        >>> assumed_prior(StageConfig(sampler="class-balanced"), ClassCounts([90, 10]))
        'uniform'
    """
    loss = build_loss(stage.loss.name, counts, stage.loss.options)
    log_prior = np.log(counts.prior)
    mix = np.log(_draws(stage, counts)) + np.log(_weights(loss)) - loss.prior_exponent * log_prior
    return "uniform" if np.std(mix) < np.std(log_prior) / 2 else "train"


def _draws(stage: StageConfig, counts: ClassCounts) -> FloatArray:
    strategy = "instance" if stage.sampler == "shuffle" else stage.sampler
    return class_probabilities(counts.at_least_one.astype(np.int64), strategy, progress=1.0).numpy()


def _weights(loss: LongTailLoss) -> FloatArray:
    """The weight of each class at the end of the stage, (C,), above zero."""
    loss.progress = 1.0
    each = torch.stack([loss.mean_divisor(torch.tensor([label])) for label in range(loss.num_classes)])
    return np.asarray(each.clamp_min(torch.finfo(torch.float32).tiny).numpy(), dtype=np.float64)
