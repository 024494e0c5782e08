"""Trials of training whole networks: on most of the training images, judged on the rest, within the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from longtail.config.build import build
from longtail.config.recipes import base_config
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.config.stage import StageConfig
from longtail.console import Bar
from longtail.data.dataset import ImageData
from longtail.data.splits import fold_numbers
from longtail.errors import LongtailError, first_line
from longtail.models.candidate_networks import accepted_size
from longtail.run.portfolio import METRIC_WORDS, Portfolio
from longtail.run.search import Presentation, WholeNetworkResult
from longtail.training.candidates import classifier_of
from longtail.training.contest import Contest, with_presentation
from longtail.training.finetuning import (
    MOST_FINETUNING,
    TRIAL_SHARE,
    WORTHWHILE_EPOCHS,
    finetune_stage,
    measure_training_rate,
)
from longtail.training.frozen_features import StoredFeatures
from longtail.training.judgment import TAUS, HeldOut, Judgment, bootstrap_draws, compare
from longtail.training.loop import Callback, Progress, StageRun
from longtail.training.portfolio import judge_candidate
from longtail.training.setup import make_network
from longtail.training.time_estimate import FORWARD_SHARE, MARGIN, RESERVE

HELD_OUT: Final = 5  # number of folds, one of which is judged
FEWEST_EPOCHS: Final = 1.0
"""Epochs of fine-tuning after the trial; where there is time for fewer, it is not tried."""
FEWEST_FROM_NOTHING: Final = 20.0
"""The same for a network that is trained from nothing."""
MOST_FROM_NOTHING: Final = 200
LATE: Final = 1.5
"""A trial whose steps take this many times the time that they were given is given up."""
LEAST_AGAIN: Final = 0.5
"""Share of the epochs of its trial that a network which won has to be trained for on all images, to be taken."""
TINY_SIDE: Final = 32  # pixels, as the CIFAR networks see
RECIPE: Final = "images/logit-adjustment"  # that a network is trained with from nothing
LONGER: Final = "More time would let the whole network train longer."
LONGER_TRIAL: Final = "More time would let the whole network train longer on trial, after which it may win."
ALL_IMAGES: Final = "More time would let the whole network, which won its trial, be trained on all images."


@dataclass(frozen=True)
class TrialRun:
    """What a trial leaves.

    Attributes:
        logits: Of the images that were held out, scaled as before softmax, (M, C).
        images_per_second: Rate of its training of the whole network.
    """

    logits: Tensor
    images_per_second: float


class LateTrialError(Exception):
    """A trial takes much longer than it was given."""


class TrialWatch(Callback):
    """Stops a trial when the user asks to or when it is late, and moves a bar in its last stage.

    Args:
        stop: Called after each step; raises an error when the user asks to stop.
        bar: Of the progress.
        stage: The last stage, which trains the whole network.
        seconds: Time that its steps were given; from :data:`LATE` times that on, :class:`LateTrialError` is raised.
    """

    def __init__(self, stop: Callable[[], object], bar: Bar, stage: int, seconds: float) -> None:
        self.stop, self.bar, self.stage, self.seconds = stop, bar, stage, seconds
        self._begun = 0.0

    def on_stage_begin(self, stage: StageRun) -> None:
        """Start the clock."""
        del stage
        self._begun = time.perf_counter()

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Look whether to stop, and move the bar."""
        self.stop()
        if stage.index != self.stage:
            return
        self.bar.tick()
        is_over = progress.epoch * stage.steps + progress.step == stage.epochs * stage.steps
        if time.perf_counter() - self._begun > LATE * self.seconds and not is_over:
            raise LateTrialError


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


@dataclass(frozen=True)
class Attempt:
    """A network that is trained whole, and how.

    Attributes:
        plan: What there is time for.
        configure: Changes a configuration to one that trains this network, from the plan, images and seconds.
        title: In words.
        most: Epochs that it is trained for, at most.
        taus: Strengths of logit adjustment after training that its classifier can take.
    """

    plan: Plan
    configure: Callable[[RunConfig, Plan, int, float], RunConfig]
    title: str
    most: int
    taus: tuple[float, ...] = TAUS


def plan_finetuning(contest: Contest, chosen: Presentation) -> Iterator[Plan]:
    """Measure what there is time for at each image size up to the chosen one, the smallest first.

    Args:
        contest: What was compared, with the time that is left.
        chosen: The presentation that the frozen network is shown.
    """
    sizes = {accepted_size(chosen.network, min(size, chosen.size)) for size in contest.sizes}
    for size in sorted(sizes):
        presentation = replace(chosen, size=size)
        rate = contest.training_rate(presentation)
        # Features of all images at this size, and the evaluation of a network that has changed.
        other = contest.images * contest.seconds_per_image(presentation) + contest.evaluated * FORWARD_SHARE / rate
        yield Plan(presentation, rate, (contest.limit.left - RESERVE) / MARGIN - other)


def plan_from_nothing(contest: Contest, config: RunConfig) -> Plan:
    """Measure what there is time for with the network that is trained from nothing.

    Args:
        contest: What was compared, with the time that is left.
        config: The configuration that trains the chosen classifier.
    """
    shown = Presentation(contest.config.search.from_nothing, TINY_SIDE, config.data.fit)
    trained, engine = from_nothing(config, Plan(shown, 1.0, 1.0), contest.training_images, 1.0), contest.engine
    model, stage = make_network(trained, contest.prepared.counts, contest.reporter).to(engine.device), trained.stage1
    rate = measure_training_rate(model, shown.size, stage.batch_size, engine, stage=stage)
    return Plan(shown, rate, (contest.limit.left - RESERVE) / MARGIN - contest.evaluated * FORWARD_SHARE / rate)


def find_attempts(contest: Contest, config: RunConfig) -> tuple[list[Attempt], str]:
    """Return the networks that there is time to train whole, and what more time would allow.

    Args:
        contest: What was compared, with the time that is left.
        config: The configuration that trains the chosen classifier.
    """
    images, attempts, more = contest.training_images, list[Attempt](), ""
    plans = plan_finetuning(contest, Presentation(config.model.name, config.data.image_size, config.data.fit))
    plan = next(plans)
    for larger in plans:  # a step at a size that there is no time for takes long to measure, and much memory
        if larger.epochs(images) < WORTHWHILE_EPOCHS:
            break
        plan = larger
    if plan.epochs(images) >= FEWEST_EPOCHS:
        attempts.append(Attempt(plan, finetuned, "whole network", MOST_FINETUNING))
    else:
        missing = FEWEST_EPOCHS * images / plan.rate / (1 - TRIAL_SHARE) - plan.seconds
        minutes = int(np.ceil((contest.limit.spent + contest.limit.left + MARGIN * missing) / 60))
        more = f"More time would let the whole network be trained, from about {minutes} minutes on."
    if contest.config.search.from_nothing:
        plan = plan_from_nothing(contest, config)
        if plan.epochs(images) >= FEWEST_FROM_NOTHING:
            attempts.append(Attempt(plan, from_nothing, "from nothing", MOST_FROM_NOTHING, taus=(0.0,)))
    return attempts, more


@dataclass(frozen=True)
class Trial:
    """A trial that was made.

    Attributes:
        attempt: What was tried.
        stage: The stage that trained the network.
        run: What it left.
        seconds: All of its time.
        judgment: Of its answers to the images held out.
    """

    attempt: Attempt
    stage: StageConfig
    run: TrialRun
    seconds: float
    judgment: Judgment

    @property
    def epochs(self) -> float:
        """Passes over its images."""
        return self.stage.epochs * self.stage.epoch_share

    def result(self, frozen: Judgment, images: int, *, taken: bool) -> WholeNetworkResult:
        """Return the figures next to those of the classifier on the frozen network."""
        metric = frozen.metric
        return WholeNetworkResult(
            presentation=self.attempt.plan.presentation,
            images=images,
            epochs=self.epochs,
            images_per_second=round(self.run.images_per_second, 1),
            score=self.judgment.score,
            frozen_score=frozen.score,
            gain=self.judgment.score - frozen.score,
            gain_error=float(np.std(self.judgment.replicates[metric] - frozen.replicates[metric])),
            tau=self.judgment.tau,
            taken=taken,
        )


def try_whole_networks(
    contest: Contest,
    config: RunConfig,
    portfolio: Portfolio,
    stored: StoredFeatures,
    train: Callable[[RunConfig, ImageData, float], TrialRun],
) -> tuple[RunConfig, tuple[WholeNetworkResult, ...], str]:
    """Try to train whole networks, and return the configuration of the one that wins on images held out, if one does.

    A fifth of the training images is held out, stratified and by units. The pretrained network trains on the rest, from
    the classifier that was chosen, at the largest image size for which there is time; where images are tiny, a small
    network also trains from nothing. The trials take a third of the time that is left. The classifier on the frozen
    network, trained on the same images, is judged on the same ones. A network that wins trains on all images in the
    time that is left, if that allows half of the epochs of its trial.

    Args:
        contest: What was compared, with the time that is left.
        config: The configuration that trains the chosen classifier.
        portfolio: The choice; where none could be made, the classifier of the configuration is the usual one.
        stored: Features of the training images, as the frozen network is shown them.
        train: Trains a configuration on the training split of images in some seconds, and answers to those of the test
            split; raises :class:`LateTrialError` where it takes much longer.

    Returns:
        The configuration to go on with, the figures of each trial, and what more time would buy.
    """
    split, units = contest.prepared.data.splits["train"], contest.units
    try:
        numbers = fold_numbers(split.labels, HELD_OUT, seed=config.training.seed, units=units)
    except LongtailError:  # fewer groups than folds
        return config, (), ""
    held, rest = np.flatnonzero(numbers == 0), np.flatnonzero(numbers != 0)
    attempts, more = find_attempts(contest, config)
    if not attempts:
        return config, (), more
    metric, seed = config.training.metric, config.training.seed
    frozen = judge_candidate(
        classifier_of(portfolio, stored.features.shape[-1], len(split), config.model.head),
        contest.samples(stored),
        held,
        epochs=config.stage1.epochs,
        batch_size=config.stage1.batch_size,
        stop=contest.stop,
    )
    draws = bootstrap_draws(held, units, seed)
    out = HeldOut(split.labels[held], contest.prepared.counts, contest.prepared.groups, metric, draws)
    splits = {"train": split.select(rest), "test": split.select(held)}
    data = ImageData(contest.prepared.data.source, contest.prepared.data.classes, splits)
    trials, is_late = list[Trial](), False
    for attempt in attempts:
        seconds = TRIAL_SHARE / len(attempts) * attempt.plan.seconds
        begun = time.perf_counter()
        try:
            trial = _for_trial(attempt.configure(config, attempt.plan, len(rest), seconds))
            run = train(trial, data, seconds)
        except LateTrialError:
            is_late = True
            contest.reporter.say(f"note: {attempt.title} is left out, as its trial took much longer than estimated.")
            continue
        except (LongtailError, torch.OutOfMemoryError) as error:  # the classifier on the frozen network is there
            contest.reporter.say(f"note: {attempt.title} is left out, as training failed: {first_line(error)}")
            continue
        judgment = out.judge(run.logits, attempt.taus)
        trials.append(Trial(attempt, trial.last_stage, run, time.perf_counter() - begun, judgment))
    _, best = compare([frozen, *(each.judgment for each in trials)])
    changed = _go_on(contest, config, trials[best - 1], len(rest), len(held)) if best else None
    taken = best if changed is not None else 0
    results = tuple(
        each.result(frozen, len(held), taken=number == taken) for number, each in enumerate(trials, start=1)
    )
    for each, result in zip(trials, results, strict=True):
        contest.reporter.say(_describe(each.attempt.title, result, METRIC_WORDS[metric]))
    if changed is not None:
        stage = changed.last_stage
        is_longest = stage.epochs * stage.epoch_share >= trials[best - 1].attempt.most
        return changed, results, "" if is_longest else LONGER
    if best:
        reason = f"the whole network won on {len(held):,} training images held out, with too little time left for all"
        return config.with_reasons({"mode": ("linear", reason)}), results, ALL_IMAGES
    if is_late or any(each.epochs < each.attempt.most for each in trials):
        more = more or LONGER_TRIAL
    reason = f"no network that is trained whole won on {len(held):,} training images held out"
    return config.with_reasons({"mode": ("linear", reason)} if trials else {}), results, more


def _go_on(contest: Contest, config: RunConfig, won: Trial, trained: int, held: int) -> RunConfig | None:
    """Return the configuration that trains the network that won on all images, in the time that is left.

    None where that is much shorter than the trial was: what won there is not what this would give.

    Args:
        contest: What was compared, with the time that is left.
        config: The configuration that trains the chosen classifier.
        won: The trial that won.
        trained: Images that it was trained on.
        held: Images that were held out.
    """
    images, rate = contest.training_images, won.run.images_per_second
    # What the trial did besides its steps, such as decoding, comes again with all images.
    besides = max(won.seconds - won.epochs * trained / rate, 0.0) * images / trained
    evaluation = contest.evaluated * FORWARD_SHARE / rate
    left = (contest.limit.left - RESERVE - besides - evaluation) / MARGIN
    changed = won.attempt.configure(config, replace(won.attempt.plan, rate=rate), images, max(left, 1.0))
    last = changed.last_stage
    if last.epochs * last.epoch_share < LEAST_AGAIN * won.epochs:
        return None
    changed = replace(changed, model=replace(changed.model, tau=won.judgment.tau))
    reason, told = f"won on {held:,} training images held out", dict[str, tuple[str | int, str]]()
    if changed.finetune.epochs:
        told["mode"] = "linear, then all of the network", reason
    else:
        told = {
            "model.name": (changed.model.name, reason),
            "mode": (changed.mode, reason),
            "recipe": (changed.recipe, reason),
            "stage1.epochs": (changed.stage1.epochs, "as long as the time allows"),
        }
    if changed.data.image_size != config.data.image_size:
        told["data.image_size"] = changed.data.image_size, reason
    return changed.with_reasons(told)


def finetuned(config: RunConfig, plan: Plan, images: int, seconds: float) -> RunConfig:
    """Return a configuration that trains the chosen classifier and then the whole network for some time."""
    config = with_presentation(config, plan.presentation)
    stage = finetune_stage(config.last_stage, images, seconds, plan.rate, config.finetune)
    return complete(replace(config, finetune=stage))


def from_nothing(config: RunConfig, plan: Plan, images: int, seconds: float) -> RunConfig:
    """Return a configuration that trains a small network from nothing for some time, on images of its own size."""
    epochs = min(max(int(seconds * plan.rate / images), 1), MOST_FROM_NOTHING)
    shown = plan.presentation
    values = base_config(RECIPE, epochs=epochs, mode="scratch", model=shown.network)
    values["stage1"]["batch_size"] = 64 if images < 20_000 else 256
    own = {name: values["data"][name] for name in ("mean", "std", "interpolation")}
    own |= {"image_size": shown.size, "resize": None, "augmentation": "crop-flip"}
    kept = {"data": asdict(config.data) | own, "training": asdict(config.training)}
    made = build(values | kept | {"recipe": RECIPE, "mode": "scratch"})
    return complete(replace(made, reasons=config.reasons))


def _for_trial(config: RunConfig) -> RunConfig:
    """Return a configuration that takes the splits of its source as they are, and leaves nothing behind."""
    data = replace(
        config.data, imbalance_ratio=None, validation_fraction=0.0, folds=0, fold=None, skip_unreadable=False
    )
    model = replace(config.model, tau=0.0)
    training = replace(config.training, tracker="none", time_limit=None, record_dynamics=False)
    return replace(config, data=data, model=model, training=training)


def _describe(title: str, result: WholeNetworkResult, metric: str) -> str:
    return (
        f"{title}, {result.presentation}, {result.epochs:.3g} epochs: {metric} "
        f"{100 * result.score:.1f}% on {result.images:,} training images held out, {100 * result.frozen_score:.1f}% "
        f"with the network frozen ({100 * result.gain:+.1f} \u00b1 {100 * result.gain_error:.1f}): "
        f"{'taken' if result.taken else 'left out'}"
    )
