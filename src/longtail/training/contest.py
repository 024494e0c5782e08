"""Networks, image sizes and fits that a run leaves open, with what is known of them so far: times and scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from longtail.config.build import build
from longtail.config.recipes import with_model
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts, IntArray
from longtail.data.dataset import Split
from longtail.data.splits import unit_numbers
from longtail.data.subsets import ranks_within_class
from longtail.errors import LongtailError
from longtail.formatting import duration_text, figure_text
from longtail.run.portfolio import METRIC_WORDS
from longtail.run.search import Presentation, PresentationResult
from longtail.training.cross_validation import Samples, can_choose
from longtail.training.engine import Engine
from longtail.training.finetuning import TRIAL_SHARE, WORTHWHILE_EPOCHS, measure_training_rate
from longtail.training.frozen_features import StoredFeatures
from longtail.training.judgment import Judgment, compare
from longtail.training.portfolio import LONGEST_CHOICE, judge_features, seconds_to_choose, seconds_to_judge
from longtail.training.prepared_data import PreparedData
from longtail.training.setup import Setup, count_passes, set_up
from longtail.training.time_estimate import (
    FORWARD_SHARE,
    MARGIN,
    RESERVE,
    TimeLimit,
    relative_slowness,
    seconds_per_feature,
)

SHARE: Final = 0.1
"""Part of the time limit that comparing networks may take."""
FEWEST: Final = 6
"""Images of a class in the sample, as far as it has them: two for each of three folds."""


@dataclass
class Contest:
    """Networks, sizes and fits that a run leaves open, and what is needed to compare them.

    Attributes:
        config: Of the run, with what is open in its ``search``.
        prepared: Its data.
        engine: Device, precision, processes.
        reporter: Messages and progress bars for the user.
        seconds: The time of computing features is added to ``features``.
        limit: The time that there is.
        stop: Called now and then; may raise to leave.
    """

    config: RunConfig
    prepared: PreparedData
    engine: Engine
    reporter: Reporter
    seconds: dict[str, float]
    limit: TimeLimit
    stop: Callable[[], object] = lambda: None
    results: dict[Presentation, PresentationResult] = field(default_factory=dict, init=False)
    judged: dict[Presentation, Judgment] = field(default_factory=dict, init=False)
    _setups: dict[Presentation, Setup] = field(default_factory=dict, init=False)
    _rates: dict[Presentation, float] = field(default_factory=dict, init=False)
    _training_rates: dict[Presentation, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        search, data = self.config.search, self.config.data
        self.networks = search.networks if len(search.networks) > 1 else [self.config.model.name]
        self.sizes = search.sizes if len(search.sizes) > 1 else [data.image_size]
        self.fits = search.fits if len(search.fits) > 1 else [data.fit]

    @cached_property
    def units(self) -> IntArray | None:
        """Numbers of the training images that stay together, shape (N,); None if each is one."""
        return unit_numbers(self.prepared.data.splits["train"], self.config.data.group_column)

    @cached_property
    def rows(self) -> IntArray:
        """The training images of the sample."""
        labels, seed = self.prepared.data.splits["train"].labels, self.config.training.seed
        return sample_rows(labels, self.config.search.images, units=self.units, seed=seed)

    @cached_property
    def sample(self) -> Split:
        """The images of the sample."""
        return self.prepared.data.splits["train"].select(self.rows)

    @cached_property
    def counts(self) -> ClassCounts:
        """Images of the sample per class."""
        return ClassCounts.from_labels(self.sample.labels.tolist(), self.prepared.counts.names)

    @property
    def sampled_units(self) -> IntArray | None:
        """Those of :attr:`units` that are in the sample."""
        return None if self.units is None else self.units[self.rows]

    @property
    def several(self) -> bool:
        """Whether there is more than one presentation."""
        return len(self.networks) * len(self.sizes) * len(self.fits) > 1

    @property
    def can_compare(self) -> bool:
        """Whether the sample can be divided into folds, and be judged; several processes cannot time each other."""
        enough = can_choose(self.sample.labels, self.counts, self.sampled_units, self.config.training.seed)
        return enough and self.engine.world_size == 1 and not self.is_too_long

    @property
    def is_too_long(self) -> bool:
        """Whether judging all presentations takes too long, where no time limit says how long it may take."""
        presentations = len(self.networks) + len(self.sizes) + len(self.fits) - 2
        return self.limit.seconds is None and presentations * self.seconds_to_judge(self.first) > LONGEST_CHOICE

    @cached_property
    def slowness(self) -> float:
        """How much slower than the machine of reference this one is; 1 without a time limit.

        Whether anything is chosen then does not depend on what else a machine does.
        """
        return 1.0 if self.limit.seconds is None else relative_slowness()

    def set_up(self, presentation: Presentation) -> Setup:
        """Build a network and open the sample as it is shown to it, once."""
        if presentation not in self._setups:
            config, silent = with_presentation(self.config, presentation), Reporter(quiet=True)
            self._setups[presentation] = set_up(
                config, {"train": self.sample}, self.counts, self.engine, silent, self.seconds, passes=self.images
            )
        return self._setups[presentation]

    @property
    def first(self) -> Presentation:
        """The presentation that the comparison begins with, the fastest of the first network."""
        return Presentation(self.networks[0], self.sizes[0], self.fits[0])

    @property
    def images(self) -> int:
        """Number of images that a run passes through the network."""
        return count_passes(self.config, self.prepared.data.splits)

    @property
    def training_images(self) -> int:
        """Number of training images."""
        return len(self.prepared.data.splits["train"])

    @property
    def evaluated(self) -> int:
        """Number of images that are not trained on."""
        return sum(map(len, self.prepared.data.splits.values())) - self.training_images

    @property
    def for_another_network(self) -> float:
        """Seconds that judging each of the other networks may take."""
        return math.inf if self.limit.seconds is None else SHARE * self.limit.seconds / max(len(self.networks) - 1, 1)

    def samples(self, stored: StoredFeatures) -> Samples:
        """Return stored features of the training images as classifiers are tried on them."""
        features, labels, training = stored.features[0].cpu(), stored.labels.cpu(), self.config.training
        counts, groups = self.prepared.counts, self.prepared.groups
        return Samples(features, labels, counts, groups, training.metric, self.units, training.seed)

    def seconds_per_image(self, presentation: Presentation) -> float:
        """Return the time from the file of an image to its feature, measured once."""
        if presentation not in self._rates:
            self._rates[presentation] = seconds_per_feature(self.set_up(presentation).features.trial("train"))
        return self._rates[presentation]

    def seconds_to_judge(self, presentation: Presentation) -> float:
        """Return the seconds of judging the features of the sample."""
        num_features, classes = self.set_up(presentation).model.num_features, self.counts.num_classes
        return self.slowness * seconds_to_judge(len(self.sample), num_features, classes)

    def seconds_for_sample(self, presentation: Presentation) -> float:
        """Return the seconds for the features of the sample, and for judging them."""
        return len(self.sample) * self.seconds_per_image(presentation) + self.seconds_to_judge(presentation)

    def seconds_of_run(self, presentation: Presentation) -> float:
        """Return the seconds that a run with a presentation has left to do, by the measured time of an image."""
        seconds = self.images * self.seconds_per_image(presentation) + self.seconds_to_finetune(presentation)
        if not self.expected_hindrance:
            seconds += self.seconds_to_choose(self.set_up(presentation).model.num_features)
        return MARGIN * seconds + RESERVE

    def seconds_left_to_choose(self, presentation: Presentation) -> float:
        """Return the seconds that choosing a classifier may take.

        The images that are evaluated come after it, at the slowest rate that was measured, and fine-tuning that was
        asked for, of which :meth:`require_time` has promised an epoch.
        """
        if self.limit.seconds is None:
            return math.inf
        evaluation = self.evaluated * max(self._rates.values(), default=0.0)
        after = evaluation + self.seconds_to_finetune(presentation, most=1.0)
        return self.limit.left - RESERVE - MARGIN * after

    def seconds_to_choose(self, num_features: int) -> float:
        """Return the seconds that choosing a classifier takes; 0 where one was named."""
        if not self.config.is_to_be_chosen:
            return 0.0
        classes, head, stage = self.prepared.counts.num_classes, self.config.model.head, self.config.stage1
        return self.slowness * seconds_to_choose(
            self.training_images, num_features, classes, head, epochs=stage.epochs, batch_size=stage.batch_size
        )

    def hindrance(self, num_features: int, within: float) -> str:
        """Say in a clause why no classifier can be chosen; empty if one can.

        Args:
            num_features: Feature size.
            within: Seconds for it, where the time is limited.
        """
        labels, seed = self.prepared.data.splits["train"].labels, self.config.training.seed
        if not can_choose(labels, self.prepared.counts, self.units, seed):
            return "too few images can be held out"
        seconds = self.seconds_to_choose(num_features)
        longest = LONGEST_CHOICE if self.limit.seconds is None else within
        return f"choosing one would take about {duration_text(seconds)}" if seconds > longest else ""

    @cached_property
    def expected_hindrance(self) -> str:
        """Why no classifier will be chosen, even on the fastest presentation; empty if one will."""
        features = self.images * self.seconds_per_image(self.first)
        after = features + self.seconds_to_finetune(self.first, most=1.0)
        return self.hindrance(self.set_up(self.first).model.num_features, (self.limit.left - RESERVE) / MARGIN - after)

    def training_rate(self, presentation: Presentation) -> float:
        """Return how many images a second fine-tuning takes, measured once."""
        if presentation not in self._training_rates:
            stage, model = self.config.finetune, self.set_up(presentation).model
            rate = measure_training_rate(model, presentation.size, stage.batch_size, self.engine, stage=stage)
            self._training_rates[presentation] = rate
        return self._training_rates[presentation]

    def seconds_to_finetune(self, presentation: Presentation, most: float = math.inf) -> float:
        """Return the seconds of the fine-tuning that was asked for, with its evaluation; 0 where none was.

        Args:
            presentation: Network, size and fit.
            most: Epochs that count.
        """
        stage = self.config.finetune
        if not stage.epochs:
            return 0.0
        passes = self.training_images * min(stage.epochs * stage.epoch_share, most) + self.evaluated * FORWARD_SHARE
        return passes / self.training_rate(presentation)

    def require_time(self) -> None:
        """Make sure that the time limit allows the fastest presentation, with an epoch of fine-tuning if asked for.

        Raises:
            LongtailError: It does not; the shortest possible limit is named.
        """
        if self.limit.seconds is None:
            return
        seconds = self.images * self.seconds_per_image(self.first) + self.seconds_to_finetune(self.first, most=1.0)
        shortest = self.limit.spent + MARGIN * seconds + RESERVE
        if shortest > self.limit.seconds:
            raise LongtailError(
                f"--time-limit {self.limit.seconds:.0f}s is too short for {self.images:,} images on this machine: the "
                f"shortest possible is --time-limit {10 * math.ceil(shortest / 10)}s."
            )

    def epochs_within(self, seconds: float) -> float:
        """Return the epochs of the whole network that a time allows after its trial, at the fastest presentation."""
        return (1 - TRIAL_SHARE) * seconds * self.training_rate(self.first) / self.training_images

    @cached_property
    def kept_for_finetuning(self) -> float:
        """Seconds that are not for the frozen network: half of those left, if they are enough for either network."""
        if not self.config.search.finetuning or self.limit.seconds is None:
            return 0.0
        half = self.limit.left / 2
        frozen = self.seconds_for_sample(self.first) + self.seconds_of_run(self.first)
        is_enough = frozen <= half and self.epochs_within(half) >= WORTHWHILE_EPOCHS
        return half if is_enough else 0.0

    def has_time_for(self, presentation: Presentation, within: float = math.inf, before: float = 0.0) -> bool:
        """Whether the time allows to judge a presentation on the sample, and then a run that takes it.

        Args:
            presentation: Network, size and fit.
            within: Seconds that judging it may take.
            before: Seconds that are spent until then.
        """
        sample = self.seconds_for_sample(presentation)
        left = self.limit.left - before - self.kept_for_finetuning
        return self.seconds_of_run(presentation) + sample <= left and sample <= within

    def attempt(self, presentation: Presentation, within: float = math.inf) -> bool:
        """Judge a presentation on the sample, unless the time does not allow it; return whether it was judged.

        Args:
            presentation: Network, size and fit.
            within: Seconds that judging it may take.
        """
        setup = self.set_up(presentation)
        seconds = self.limit.spent + self.seconds_to_judge(presentation) + self.seconds_of_run(presentation)
        minutes = seconds / 60
        self.results[presentation] = PresentationResult(presentation, round(minutes, 2))
        if not self.has_time_for(presentation, within):
            return False
        stored = setup.features.plain("train", self.stop)
        samples = replace(self.samples(stored), counts=self.counts, units=self.sampled_units)
        self.judged[presentation] = judge_features(samples, self.stop)
        judged, metric = self.judged[presentation], self.config.training.metric
        self.reporter.say(
            f"{presentation}: {METRIC_WORDS[metric]} {figure_text(judged.score, judged.interval(metric))} "
            f"on {len(self.sample):,} training images, {duration_text(60 * self.results[presentation].minutes)} in all"
        )
        return True

    def best(self) -> Presentation:
        """Return the fastest of the presentations that are as good as the best so far."""
        ordered = sorted(self.judged, key=self.seconds_per_image)
        behind, chosen = compare([self.judged[each] for each in ordered])
        for each, (gap, error) in zip(ordered, behind, strict=True):
            judged = self.judged[each]
            self.results[each] = replace(
                self.results[each],
                score=judged.score,
                interval=judged.interval(judged.metric),
                behind=gap,
                behind_error=error,
            )
        return ordered[chosen]


def sample_rows(labels: IntArray, most: int, *, units: IntArray | None = None, seed: int = 0) -> IntArray:
    """Draw a sample in which large classes are cut to one size, so that small ones keep all of their images.

    Args:
        labels: Class indices, shape (N,).
        most: Images of the sample; a few more where every class needs some.
        units: Numbers of the images that are taken or left together, shape (N,); None if each image is one.
        seed: Seed of the draw.

    Returns:
        Row numbers, rising.

    Example:
        >>> labels = np.array([0] * 50 + [1] * 5 + [2] * 2)
        >>> np.bincount(labels[sample_rows(labels, 17)]).tolist()
        [10, 5, 2]
    """
    sizes = np.bincount(labels)
    cap = max(FEWEST, max((size for size in range(1, most + 1) if np.minimum(sizes, size).sum() <= most), default=0))
    if units is None:
        return np.flatnonzero(ranks_within_class(labels, seed=seed) < cap)
    left, taken = np.minimum(sizes, cap), np.zeros(len(labels), dtype=bool)
    order = np.argsort(units, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
    for number in np.random.default_rng(seed).permutation(len(groups)):
        rows = groups[number]
        if (left[labels[rows]] > 0).any():
            taken[rows] = True
            np.subtract.at(left, labels[rows], 1)
    return np.flatnonzero(taken)


def with_presentation(config: RunConfig, presentation: Presentation) -> RunConfig:
    """Return a configuration with a presentation, in which none is open.

    Another network comes with the normalization that it was trained on; for the same one, the configuration's stays.

    Example:
        >>> changed = with_presentation(RunConfig(), Presentation("timm:resnet18", 96, "pad"))
        >>> changed.model.name, changed.data.image_size, changed.data.resize, changed.data.fit
        ('timm:resnet18', 96, 101, 'pad')
    """
    values = asdict(config)
    resize = values["data"]["resize"]
    values["data"]["resize"] = resize and round(presentation.size * resize / values["data"]["image_size"])
    values["data"]["image_size"] = presentation.size
    if presentation.network != config.model.name:
        values = with_model(values, presentation.network, presentation.size)
    values["data"]["fit"] = presentation.fit
    values["search"] |= {"networks": [], "sizes": [], "fits": [], "finetuning": False, "from_nothing": ""}
    return build(values)
