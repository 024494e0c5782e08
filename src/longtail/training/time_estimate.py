"""The time that a run takes, estimated from its first images or steps and said once."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

import torch

from longtail.config.build import build
from longtail.config.recipes import scale_epochs
from longtail.config.schema import RunConfig
from longtail.config.stage import StageConfig
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import count_batches
from longtail.device import seeded
from longtail.errors import LongtailError
from longtail.formatting import duration_text
from longtail.models.inference_engine import WORTHWHILE
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine
from longtail.training.finetuning import measure_training_rate, with_length
from longtail.training.frozen_features import Trial
from longtail.training.loop import Callback, Progress, StageRun
from longtail.training.portfolio import LONGEST_CHOICE, seconds_to_choose
from longtail.training.stages import make_loss

TRIAL_SECONDS, TRIAL_IMAGES = 0.4, 512  # of images through a backbone: enough for a rate
FIRST_STEPS_SECONDS = 5.0  # of a stage that trains through the backbone
FEWEST_PIXELS = WORTHWHILE / 4  # through a backbone; fewer take seconds, and measuring them as long
SHORTEST = 30.0  # seconds of a run that are worth a line
RESERVE = 12.0  # seconds for the classifier, the evaluation on features, the files and the report
WATCHED_SHARE = 0.2  # of a stage: later, too much would be lost by beginning it again
MARGIN = 1.15  # on estimated times that a limit has to hold, as the machine may be busier later
REFERENCE_GFLOPS = 100.0  # of the machine on which the time of a choice was measured: two cores with AVX2
FORWARD_SHARE = 1 / 3  # of a training step: the backward pass takes twice the time of the forward pass


@dataclass(frozen=True)
class TimeEstimate:
    """The seconds that the rest of a run will take, by measured rates.

    Attributes:
        features: Of passing images through a frozen backbone.
        training: Of training steps and evaluations.

    Example:
        >>> print(TimeEstimate(features=660.0, training=55.0))
        about 12 minutes
    """

    features: float = 0.0
    training: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.features + self.training

    def __str__(self) -> str:
        return f"about {duration_text(self.seconds)}"


@dataclass(frozen=True)
class TimeLimit:
    """The time that a command may take.

    Attributes:
        seconds: All of it; None without a limit.
        begun: Reading of ``time.monotonic`` when the command began.

    Example:
        >>> TimeLimit().left
        inf
    """

    seconds: float | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.begun

    @property
    def left(self) -> float:
        """Seconds that are left; infinitely many without a limit."""
        return math.inf if self.seconds is None else self.seconds - self.spent


def relative_slowness() -> float:
    """Measure how much slower than :data:`REFERENCE_GFLOPS` this machine multiplies matrices, in half a second.

    Example:
        >>> relative_slowness() > 0
        True
    """
    left, right = torch.ones(512, 1024), torch.ones(1024, 1024)
    torch.mm(left, right)  # warms up
    begun, products = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.5:
        torch.mm(left, right)
        products += 1
    seconds = (time.perf_counter() - begun) / products
    return REFERENCE_GFLOPS * seconds / (2 * left.numel() * right.shape[1] / 1e9)


def seconds_per_feature(trial: Trial) -> float:
    """Measure the time of a feature from the file of its image, on more and more images until they take long enough."""
    trial(2)  # warms up
    size = 16  # enough for two cores; more cores need more, and get it
    while True:
        begun = time.perf_counter()
        features = trial(size)
        seconds = time.perf_counter() - begun
        if seconds > TRIAL_SECONDS or size >= TRIAL_IMAGES or features < size:
            return seconds / features
        size *= 2


def seconds_per_classifier_step(stage: StageConfig, counts: ClassCounts, model: LongTailModel) -> float:
    """Measure a training step of the classifier alone, on features."""
    device = next(model.head.parameters()).device
    features = torch.ones(stage.batch_size, model.num_features, device=device)
    labels = torch.arange(stage.batch_size, device=device) % counts.num_classes
    with seeded(device, 0):
        changed = copy.deepcopy(model)
        loss = make_loss(stage, counts, changed).to(device)
        changed.head.requires_grad_(True)
        for _ in range(2):  # the first step warms up
            begun = time.perf_counter()
            torch.autograd.backward(loss(changed.head(features), labels, features if loss.needs_features else None))
            seconds = time.perf_counter() - begun
    return seconds


def cost_of_pass(stage: StageConfig) -> float:
    """Return what a step on images costs in a stage, as a share of one that trains the whole network.

    Example:
        >>> cost_of_pass(StageConfig(train="all")), round(cost_of_pass(StageConfig(train="classifier")), 2)
        (1.0, 0.33)
    """
    return 1.0 if stage.train == "all" else FORWARD_SHARE


def training_passes(config: RunConfig, first: int = 1) -> float:
    """Return how often the stages on images pass these through the network, in passes that train all of it.

    Args:
        config: Of the run.
        first: Number of the stage to begin with.

    Example:
        >>> training_passes(build({"stage1": {"epochs": 10}, "stage2": {"epochs": 3, "train": "classifier"}}))
        11.0
    """
    stages = [stage for number, stage in config.stages.items() if number >= first and not stage.cached_views]
    return sum(cost_of_pass(stage) * stage.passes(config.data.image_size) for stage in stages)


class TimeKeeper(Callback):
    """Estimate how long a run takes from its first images, where it begins with features, else from its first steps.

    Args:
        config: Of the run.
        images: Number of images of each split.
        counts: Training images of each class.
        model: The network.
        engine: Device and precision of the training.
        say: Called once with one line, unless the run is short.

    Attributes:
        estimate: The result; None until something was measured.
    """

    def __init__(
        self,
        config: RunConfig,
        images: Mapping[str, int],
        counts: ClassCounts,
        model: LongTailModel,
        engine: Engine,
        say: Callable[[str], object],
    ) -> None:
        self.config, self.images, self.counts, self.model = config, images, counts, model
        self.engine, self._say = engine, say
        self.estimate: TimeEstimate | None = None
        self._begun, self._first = 0.0, 0

    def before_features(self, missing: int, trial: Trial) -> None:
        """Measure the rate of a backbone before its missing features, a given number, are computed."""
        if self.estimate is not None or missing * self.config.data.image_size**2 < FEWEST_PIXELS:
            return
        rate = seconds_per_feature(trial)
        evaluated = sum(count for split, count in self.images.items() if split != "train")
        features, training = rate * (missing + evaluated), 0.0
        for stage in self.config.stages.values():
            if stage.train == "all":
                size, batch = self.config.data.image_size, stage.batch_size
                rate_of_steps = measure_training_rate(
                    self.model, size, batch, self.engine, seconds=TRIAL_SECONDS, stage=stage
                )
                training += self._steps(stage) * batch / rate_of_steps
                continue
            if self.config.is_to_be_chosen:
                choosing = seconds_to_choose(
                    self.images["train"],
                    self.model.num_features,
                    self.counts.num_classes,
                    self.config.model.head,
                    epochs=stage.epochs,
                    batch_size=stage.batch_size,
                )
                is_limited = self.config.training.time_limit is not None
                training += relative_slowness() * choosing if is_limited or choosing <= LONGEST_CHOICE else 0.0
            elif stage.cached_views:
                training += self._steps(stage) * seconds_per_classifier_step(stage, self.counts, self.model)
        self.tell(TimeEstimate(features, training))

    def on_stage_begin(self, stage: StageRun) -> None:
        """Start the clock."""
        del stage
        self._begun, self._first = time.perf_counter(), 0

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Measure the first steps of a stage that trains through the backbone."""
        done = progress.epoch * stage.steps + progress.step
        ahead = [later for number, later in self.config.stages.items() if number > stage.index]
        is_small = self.config.stages[stage.index].cached_views and any(later.train == "all" for later in ahead)
        if self.estimate is not None or is_small:
            return
        if not self._first:  # the first step warms up
            self._begun, self._first = time.perf_counter(), done
            return
        seconds = time.perf_counter() - self._begun
        if seconds < FIRST_STEPS_SECONDS and progress.step < stage.steps:
            return
        step = seconds / (done - self._first)
        training = step * stage.steps_left(progress)
        now, full = stage.image_size(progress.epoch), self.config.data.image_size
        # From here on, of whole images through the whole network.
        step *= (full / (now or full)) ** 2 / cost_of_pass(self.config.stages[stage.index])
        forward, features = step / stage.batch_size * FORWARD_SHARE, 0.0
        validations = stage.epochs // self.config.training.validate_every if self.config.training.validate_every else 0
        evaluated = validations * self.images.get("validation", 0)
        for index, later in self.config.stages.items():
            if index < stage.index:
                continue
            evaluated += sum(count for split, count in self.images.items() if split != "train")
            if index > stage.index and later.cached_views:
                features += forward * self.images["train"] * later.cached_views
            elif index > stage.index:
                share = cost_of_pass(later) * later.passes(full) / (later.epochs * later.epoch_share)
                training += share * step * self._steps(later) * later.batch_size / stage.batch_size
        self.tell(TimeEstimate(features, training + forward * evaluated))

    def _steps(self, stage: StageConfig) -> int:
        return stage.epochs * count_batches(round(stage.epoch_share * self.images["train"]), stage.batch_size)

    def tell(self, estimate: TimeEstimate) -> None:
        """Take an estimate, and say it unless the run is short."""
        self.estimate = estimate
        if estimate.seconds >= SHORTEST:
            self._say(f"this takes {estimate}")


class TooSlowError(Exception):
    """A stage would end after the time limit.

    Attributes:
        images_per_second: The rate of its steps, of images as large as they are in the end.
    """

    def __init__(self, images_per_second: float) -> None:
        super().__init__(f"{images_per_second:.1f} images/s")
        self.images_per_second = images_per_second


class Pace(Callback):
    """Watch the first steps of a stage that trains the backbone; raise :class:`TooSlowError` if it will end late.

    Its length was decided by an estimate, which knows nothing of images that decode slowly or of other programs that
    have started since. Only the first fifth of the steps, within the first epoch, is watched: later, too much would be
    lost by beginning again.

    Args:
        limit: The time that there is.
        evaluated: Images that are evaluated after the stage.
        image_size: Side in pixels of these.
        say: For a stage that cannot be shorter: called once with a note, and nothing is raised.
    """

    def __init__(
        self, limit: TimeLimit, evaluated: int, image_size: int, say: Callable[[str], object] | None = None
    ) -> None:
        self.limit, self.evaluated, self.image_size, self._say = limit, evaluated, image_size, say
        self._begun, self._first, self._is_late = 0.0, 0, False

    def on_stage_begin(self, stage: StageRun) -> None:
        """Start the clock."""
        del stage
        self._begun, self._first = time.perf_counter(), 0

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Compare the time that the rest of the stage takes at the rate so far with the time that is left."""
        steps, done = stage.epochs * stage.steps, progress.step
        if self._is_late or progress.epoch or done > max(steps * WATCHED_SHARE, 2):
            return
        if not self._first:  # the first step warms up
            self._begun, self._first = time.perf_counter(), done
            return
        seconds = time.perf_counter() - self._begun
        if seconds < min(FIRST_STEPS_SECONDS, WATCHED_SHARE * self.limit.left):
            return
        rate = (done - self._first) * stage.batch_size / seconds
        whole = rate * ((stage.image_size(progress.epoch) or self.image_size) / self.image_size) ** 2
        seconds = stage.steps_left(progress) * stage.batch_size / rate + self.evaluated * FORWARD_SHARE / whole
        self._is_late = seconds + RESERVE > self.limit.left
        if not self._is_late:
            return
        if self._say is None:
            raise TooSlowError(whole)
        late = duration_text(seconds + RESERVE - self.limit.left)
        self._say(
            f"note: this ends about {late} after the time limit: one epoch is the least, and slower than estimated"
        )


def shortened(
    config: RunConfig, index: int, images: Mapping[str, int], limit: TimeLimit, images_per_second: float
) -> RunConfig:
    """Return a configuration whose training of the backbone ends in time at a measured rate.

    Args:
        config: Of the run.
        index: The stage under way; those before it stay as they are.
        images: Number of images of each split.
        limit: The time that there is.
        images_per_second: Rate of the training.

    Example:
        >>> config = build({"stage1": {"epochs": 10}})
        >>> limit = TimeLimit(100.0)
        >>> shortened(config, 1, {"train": 1000, "test": 300}, limit, images_per_second=50.0).stage1.epochs
        3
    """
    evaluated = sum(count for name, count in images.items() if name != "train")
    left = max((limit.left - RESERVE - evaluated * FORWARD_SHARE / images_per_second) / MARGIN, 1.0)
    passes = images["train"] * training_passes(config, index)
    return _scaled(config, index, min(left * images_per_second / passes, 1.0))


def _scaled(config: RunConfig, index: int, share: float) -> RunConfig:
    """Return a configuration in which a stage that trains the backbone takes a share of its length, and later ones too.

    Fine-tuning may end within an epoch; published schedules have whole epochs, one at least.
    """
    stage = config.stages[index]
    if stage is config.finetune:
        return replace(config, finetune=with_length(stage, share * stage.epochs * stage.epoch_share))
    return build(scale_epochs(asdict(config), max(1, int(share * stage.epochs)), first=index))


def fit_to_limit(
    config: RunConfig,
    images: Mapping[str, int],
    model: LongTailModel,
    engine: Engine,
    limit: TimeLimit,
    say: Callable[[str], object],
    *,
    seconds_per_image: float | None = None,
    has_features: bool = False,
) -> tuple[RunConfig, str]:
    """Return a configuration whose stages are short enough for a time limit, all shortened in the same proportion.

    Only stages that train the backbone take long, by the measured time of their steps. With it comes a sentence that
    says what more time would buy, empty if nothing was shortened.

    Args:
        config: Of the run.
        images: Number of images of each split.
        model: The network.
        engine: Precision of the training.
        limit: The time that there is.
        say: Called with one line where anything is shortened.
        seconds_per_image: From the file of an image to its feature, for stages on features; by default a forward pass.
        has_features: The features of the training images are there already.

    Raises:
        LongtailError: There is no time for an epoch; the shortest possible limit is named.
    """
    through = [stage for stage in config.stages.values() if not stage.cached_views]
    if not through or limit.seconds is None:
        return config, ""
    rate = measure_training_rate(model, config.data.image_size, through[0].batch_size, engine, stage=through[0])
    forward, evaluated = MARGIN * FORWARD_SHARE / rate, sum(count for name, count in images.items() if name != "train")
    feature = forward if seconds_per_image is None else MARGIN * seconds_per_image
    stages, every = list(config.stages.values()), config.training.validate_every
    # Shortened: the steps, and the validations between them. Left: evaluations, those of stages on features once, and
    # the features that these train on. As Contest.require_time has it, which has promised an epoch of fine-tuning.
    validations = sum(stage.epochs // every for stage in through) if every else 0
    epochs = sum(stage.epochs * stage.epoch_share for stage in through)
    steps = MARGIN * images["train"] * training_passes(config) / rate
    whole = steps + forward * validations * images.get("validation", 0)
    views = 0 if has_features else max(stage.cached_views for stage in stages)
    computed = evaluated * (len(through) < len(stages)) + views * images["train"]
    fixed, least = forward * evaluated * len(through) + feature * computed, min(1 / epochs, 1)
    shortest = RESERVE + fixed + least * steps
    if limit.left < shortest:
        linear = "" if stages[0].cached_views else "; or --mode linear"
        raise LongtailError(
            f"--time-limit {limit.seconds:.0f}s is too short for an epoch of {images['train']:,} images on this "
            f"machine: the shortest possible is --time-limit {10 * math.ceil((limit.spent + shortest) / 10)}s{linear}."
        )
    share = min(max((limit.left - RESERVE - fixed) / whole, least), 1.0)
    if share == 1:
        return config, ""
    index = min(number for number, stage in config.stages.items() if not stage.cached_views)
    fitted = _scaled(config, index, share)
    shorter = fitted.stages[index]
    length = shorter.epochs * shorter.epoch_share
    minutes = math.ceil((limit.spent + RESERVE + fixed + whole) / 60)
    say(f"shortened from {config.stages[index].epochs} to {length:.3g} epochs, for which there is time")
    return fitted, f"More time would buy all of the epochs, from about {minutes} minutes on."


def without_limit(config: RunConfig) -> RunConfig:
    """Return a configuration that no longer has a time limit: what it decided is in the configuration.

    Example:
        >>> without_limit(build({"training": {"time_limit": 60.0}})).training.time_limit is None
        True
    """
    return replace(config, training=replace(config.training, time_limit=None))
