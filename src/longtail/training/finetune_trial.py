"""A trial of training the whole network: on most of the training images, judged on the rest, within the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from longtail.config.resolve import complete
from longtail.config.schema import FINETUNING, RunConfig
from longtail.data.dataset import ImageData
from longtail.data.splits import fold_numbers
from longtail.errors import LongtailError, first_line
from longtail.models.candidate_networks import accepted_size
from longtail.run.portfolio import METRIC_WORDS, Portfolio
from longtail.run.search import FinetuningResult, Presentation
from longtail.training.finetuning import TRIAL_SHARE, WORTHWHILE_EPOCHS, finetune_stage, measure_training_rate
from longtail.training.frozen_features import StoredFeatures
from longtail.training.judgment import HeldOut, bootstrap_draws, compare
from longtail.training.portfolio import judge_choice
from longtail.training.presentation import Contest, with_presentation
from longtail.training.time_estimate import FORWARD_SHARE, MARGIN, RESERVE

HELD_OUT: Final = 5  # number of folds, one of which is judged
FEWEST_EPOCHS: Final = 1.0
"""Epochs of the training after the trial; where there is time for fewer, nothing is tried."""


@dataclass(frozen=True)
class TrialRun:
    """What a trial leaves.

    Attributes:
        logits: Of the images that were held out, scaled as before softmax, (M, C).
        images_per_second: Rate of its training of the whole network.
    """

    logits: Tensor
    images_per_second: float


@dataclass(frozen=True)
class Plan:
    """What there is time for.

    Attributes:
        presentation: Network, size and fit.
        rate: Images per second of the training.
        seconds: Of the trial and the training after it.
    """

    presentation: Presentation
    rate: float
    seconds: float

    def epochs(self, images: int) -> float:
        """Epochs of the training after the trial."""
        return (1 - TRIAL_SHARE) * self.seconds * self.rate / images


def plan_finetuning(contest: Contest, chosen: Presentation) -> list[Plan]:
    """Measure what there is time for at each image size up to the chosen one, the largest first.

    Args:
        contest: What was compared, with the time that is left.
        chosen: The presentation that the frozen network is shown.
    """
    plans = []
    sizes = {accepted_size(chosen.network, min(size, chosen.size)) for size in contest.sizes}
    for size in sorted(sizes, reverse=True):
        presentation = replace(chosen, size=size)
        setup = contest.set_up(presentation)
        rate = measure_training_rate(setup.model, size, FINETUNING.batch_size)
        # Features of all images at this size, and the evaluation of a network that has changed.
        other = (
            contest.images * contest.seconds_per_image(presentation, setup) + contest.evaluated * FORWARD_SHARE / rate
        )
        plans.append(Plan(presentation, rate, (contest.limit.left - RESERVE) / MARGIN - other))
    return plans


def try_finetuning(
    contest: Contest,
    config: RunConfig,
    portfolio: Portfolio,
    stored: StoredFeatures,
    train: Callable[[RunConfig, ImageData], TrialRun],
) -> tuple[RunConfig, FinetuningResult | None, str]:
    """Try to train the whole network, and return the configuration that does it if it wins on images held out.

    A fifth of the training images is held out, stratified and by units. The network trains on the rest, from the
    classifier that was chosen, for a third of the time that is left, at the largest image size at which that is long
    enough; the classifier on the frozen network, trained on the same images, is judged on the same ones. If the whole
    network wins, it trains on all images in the time that is left.

    Args:
        contest: What was compared, with the time that is left.
        config: The configuration that trains the chosen classifier.
        portfolio: The choice.
        stored: Features of the training images, as the frozen network is shown them.
        train: Trains a configuration on the training split of images, and answers to those of the test split.

    Returns:
        The configuration to go on with, the figures of the trial, if there was one, and what more time would buy.
    """
    chosen = Presentation(config.model.name, config.data.image_size, config.data.fit)
    split, units = contest.prepared.data.splits["train"], contest.units
    try:
        numbers = fold_numbers(split.labels, HELD_OUT, seed=config.training.seed, units=units)
    except LongtailError:  # fewer groups than folds
        return config, None, ""
    held, rest = np.flatnonzero(numbers == 0), np.flatnonzero(numbers != 0)
    plans = plan_finetuning(contest, chosen)
    plan = next((each for each in plans if each.epochs(len(split)) >= WORTHWHILE_EPOCHS), plans[-1])
    if plan.epochs(len(split)) < FEWEST_EPOCHS:
        missing = FEWEST_EPOCHS * len(split) / plan.rate / (1 - TRIAL_SHARE) - plan.seconds
        minutes = int(np.ceil((contest.limit.spent + contest.limit.left + MARGIN * missing) / 60))
        return config, None, f"more time would let the whole network be trained, from about {minutes} minutes on."
    frozen = judge_choice(
        portfolio,
        stored.features[0].cpu(),
        stored.labels.cpu(),
        contest.prepared.counts,
        contest.prepared.groups,
        held,
        units=units,
        stop=contest.stop,
    )
    trial = _for_trial(_with_finetuning(config, plan, len(rest), TRIAL_SHARE * plan.seconds))
    splits = {"train": split.select(rest), "test": split.select(held)}
    data = ImageData(contest.prepared.data.source, contest.prepared.data.classes, splits)
    begun = time.perf_counter()
    try:
        run = train(trial, data)
    except (LongtailError, torch.OutOfMemoryError) as error:  # the classifier on the frozen network is there already
        contest.reporter.say(f"note: the whole network is left out, as training it failed: {first_line(error)}")
        return config, None, ""
    spent = time.perf_counter() - begun
    draws = bootstrap_draws(held, units, portfolio.seed)
    out = HeldOut(split.labels[held], contest.prepared.counts, contest.prepared.groups, portfolio.metric, draws)
    whole = out.judge(run.logits)
    _, better = compare([frozen, whole])
    drawn = whole.replicates[portfolio.metric] - frozen.replicates[portfolio.metric]
    result = FinetuningResult(
        presentation=plan.presentation,
        images=len(held),
        epochs=trial.finetune.epochs * trial.finetune.epoch_share,
        images_per_second=round(run.images_per_second, 1),
        score=whole.score,
        frozen_score=frozen.score,
        gain=whole.score - frozen.score,
        gain_error=float(np.std(drawn)),
        tau=whole.tau,
        taken=better == 1,
    )
    contest.reporter.say(_describe(result, portfolio))
    if not result.taken:
        return config, result, ""
    # What the trial did besides its steps, such as decoding, comes again with all images.
    steps = trial.finetune.epochs * trial.finetune.epoch_share * len(rest) / run.images_per_second
    besides = max(spent - steps, 0.0) * len(split) / len(rest)
    evaluation = contest.evaluated * FORWARD_SHARE / run.images_per_second
    left = (contest.limit.left - RESERVE - besides - evaluation) / MARGIN
    config = _with_finetuning(config, replace(plan, rate=run.images_per_second), len(split), max(left, 1.0))
    config = replace(config, model=replace(config.model, tau=whole.tau))
    return config, result, "more time would let the whole network train longer."


def _with_finetuning(config: RunConfig, plan: Plan, images: int, seconds: float) -> RunConfig:
    """Return a configuration that trains the chosen classifier and then the whole network for some time."""
    config = with_presentation(config, plan.presentation)
    stage = finetune_stage(config.stages[max(config.stages)], images, seconds, plan.rate)
    return complete(replace(config, finetune=stage))


def _for_trial(config: RunConfig) -> RunConfig:
    """Return a configuration that takes the splits of its source as they are, and leaves nothing behind."""
    data = replace(
        config.data, imbalance_ratio=None, validation_fraction=0.0, folds=0, fold=None, skip_unreadable=False
    )
    model = replace(config.model, tau=0.0)
    training = replace(config.training, tracker="none", time_limit=None, record_dynamics=False)
    return replace(config, data=data, model=model, training=training)


def _describe(result: FinetuningResult, portfolio: Portfolio) -> str:
    return (
        f"whole network, {result.presentation}, {result.epochs:.3g} epochs: {METRIC_WORDS[portfolio.metric]} "
        f"{100 * result.score:.1f}% on {result.images:,} training images held out, {100 * result.frozen_score:.1f}% "
        f"with the network frozen ({100 * result.gain:+.1f} \u00b1 {100 * result.gain_error:.1f}): "
        f"{'taken' if result.taken else 'left out'}"
    )
