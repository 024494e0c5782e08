"""A contest of networks, image sizes and fits, on a sample of the training images and within the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from longtail.config.build import build
from longtail.config.recipes import with_model
from longtail.config.schema import RunConfig
from longtail.config.stage import FINETUNING
from longtail.console import Reporter
from longtail.counts import ClassCounts, IntArray
from longtail.data.dataset import Split
from longtail.data.splits import unit_numbers
from longtail.data.subsets import ranks_within_class
from longtail.errors import LongtailError
from longtail.formatting import figure_text
from longtail.models.candidate_networks import accepted_size
from longtail.run.portfolio import METRIC_WORDS
from longtail.run.search import Presentation, PresentationResult, Search
from longtail.training.engine import Engine
from longtail.training.finetuning import TRIAL_SHARE, WORTHWHILE_EPOCHS, measure_training_rate
from longtail.training.judgment import Judgment, compare
from longtail.training.portfolio import can_choose, judge_features, seconds_to_choose
from longtail.training.prepared_data import PreparedData
from longtail.training.setup import Setup, count_passes, set_up
from longtail.training.time_estimate import (
    MARGIN,
    RESERVE,
    TimeLimit,
    duration_text,
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

    def __post_init__(self) -> None:
        search = self.config.search
        self.networks = search.networks or [self.config.model.name]
        self.sizes = search.sizes or [self.config.data.image_size]
        self.fits = search.fits or [self.config.data.fit]

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
        """Whether the sample can be divided into folds; several processes cannot time each other."""
        enough = can_choose(self.sample.labels, self.counts, self.sampled_units, self.config.training.seed)
        return enough and self.engine.world_size == 1

    @cached_property
    def slowness(self) -> float:
        """How much slower than the machine of reference this one is."""
        return relative_slowness()

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

    def seconds_per_image(self, presentation: Presentation, setup: Setup) -> float:
        """Return the time from the file of an image to its feature, measured once."""
        if presentation not in self._rates:
            self._rates[presentation] = seconds_per_feature(setup.features.trial("train"))
        return self._rates[presentation]

    def seconds_of_run(self, presentation: Presentation, setup: Setup) -> float:
        """Return the seconds that a run with a presentation has left to do, by the measured time of an image."""
        choosing = self.seconds_to_choose(setup.model.num_features) if self.has_time_to_choose else 0.0
        return MARGIN * (self.images * self.seconds_per_image(presentation, setup) + choosing) + RESERVE

    @property
    def seconds_to_evaluate(self) -> float:
        """Seconds for the features of the images that are evaluated, at the slowest rate that was measured."""
        return MARGIN * self.evaluated * max(self._rates.values(), default=0.0)

    def seconds_to_choose(self, num_features: int) -> float:
        """Return the seconds that choosing a classifier takes; 0 where one was named.

        They are those of this machine where the time is limited, else of the machine of reference: whether anything is
        chosen then does not depend on what else a machine does.
        """
        if not self.config.is_to_be_chosen:
            return 0.0
        seconds = seconds_to_choose(self.training_images, num_features, self.prepared.counts.num_classes)
        return seconds if self.limit.seconds is None else self.slowness * seconds

    @cached_property
    def has_time_to_choose(self) -> bool:
        """Whether the time allows to choose a classifier, at least on the fastest presentation."""
        setup = self.set_up(self.first)
        features = self.images * self.seconds_per_image(self.first, setup)
        return MARGIN * (features + self.seconds_to_choose(setup.model.num_features)) + RESERVE <= self.limit.left

    def require_time(self) -> None:
        """Make sure that the time limit allows the fastest presentation.

        Raises:
            LongtailError: It does not; the shortest possible limit is named.
        """
        if self.limit.seconds is None:
            return
        setup = self.set_up(self.first)
        shortest = self.limit.spent + MARGIN * self.images * self.seconds_per_image(self.first, setup) + RESERVE
        if shortest > self.limit.seconds:
            raise LongtailError(
                f"--time-limit {self.limit.seconds:.0f}s is too short for {self.images:,} images on this machine: the "
                f"shortest possible is --time-limit {10 * math.ceil(shortest / 10)}s."
            )

    @cached_property
    def kept_for_finetuning(self) -> float:
        """Seconds that are not for the frozen network: half of those left, if the whole network learns enough in it."""
        if not self.config.search.finetuning or self.limit.seconds is None:
            return 0.0
        rate = measure_training_rate(self.set_up(self.first).model, self.first.size, FINETUNING.batch_size)
        half = self.limit.left / 2
        epochs = (1 - TRIAL_SHARE) * half * rate / self.training_images
        return half if epochs >= WORTHWHILE_EPOCHS else 0.0

    def attempt(self, presentation: Presentation, within: float = math.inf) -> bool:
        """Judge a presentation on the sample, unless the time does not allow it; return whether it was judged.

        Args:
            presentation: Network, size and fit.
            within: Seconds that its features of the sample may take.
        """
        setup = self.set_up(presentation)
        needed = self.seconds_of_run(presentation, setup)
        self.results[presentation] = PresentationResult(presentation, round((self.limit.spent + needed) / 60, 2))
        sample = self._rates[presentation] * len(self.sample)
        if needed + sample > self.limit.left - self.kept_for_finetuning or sample > within:
            return False
        stored = setup.features.plain("train", self.stop)
        self.judged[presentation] = judge_features(
            stored.features[0].cpu(),
            stored.labels.cpu(),
            self.counts,
            self.prepared.groups,
            metric=self.config.training.metric,
            units=self.sampled_units,
            seed=self.config.training.seed,
            stop=self.stop,
        )
        judged, metric = self.judged[presentation], self.config.training.metric
        self.reporter.say(
            f"{presentation}: {METRIC_WORDS[metric]} {figure_text(judged.score, judged.interval(metric))} "
            f"on {len(self.sample):,} training images, {duration_text(60 * self.results[presentation].minutes)} in all"
        )
        return True

    def best(self) -> Presentation:
        """Return the fastest of the presentations that are as good as the best so far."""
        ordered = sorted(self.judged, key=lambda each: self._rates[each])
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


def choose_presentation(contest: Contest) -> tuple[RunConfig, Search | None]:
    """Choose network, image size and fit as far as they are open, and return the configuration with that choice.

    Sizes are tried from small to large, then the other fits, then the other networks, each at the best so far; what the
    time does not allow is left out. Every presentation is judged on the same images by the same folds. Among those as
    good as the best, the fastest is taken.

    Args:
        contest: What is compared.

    Returns:
        The configuration, in which nothing of this kind is open, and what was compared; None where nothing was.
    """
    begun = time.perf_counter()
    first = contest.first
    if not (contest.several or contest.config.search.finetuning) or not contest.can_compare:
        if contest.several and contest.engine.world_size > 1:
            contest.reporter.say(
                "note: several processes compare no networks, sizes and fits: the first ones are taken"
            )
        largest = _largest(contest)
        return _with_size(
            with_presentation(contest.config, largest), largest, "the largest that there is time for"
        ), None
    for size in contest.sizes:
        if not contest.attempt(replace(first, size=size)):
            break
    if not contest.judged:
        return _with_size(with_presentation(contest.config, first), first, "the largest that there is time for"), None
    for fit in contest.fits[1:]:
        contest.attempt(replace(contest.best(), fit=fit))
    share = math.inf if contest.limit.seconds is None else SHARE * contest.limit.seconds
    for network in contest.networks[1:]:
        best = contest.best()
        other = replace(best, network=network, size=accepted_size(network, best.size))
        contest.attempt(other, within=share / len(contest.networks[1:]))
    chosen, considered = contest.best(), list(contest.results)
    search = Search(
        metric=contest.config.training.metric,
        images=len(contest.sample),
        time_limit=contest.limit.seconds,
        presentations=tuple(contest.results.values()),
        chosen=considered.index(chosen),
        seconds=round(time.perf_counter() - begun, 1),
        more_time=_what_more_time_buys(contest, chosen),
    )
    return _with_reasons(with_presentation(contest.config, chosen), search), search


def _largest(contest: Contest) -> Presentation:
    """Return the first network and fit at the largest size for which there is time, where none can be compared."""
    shown = [replace(contest.first, size=size) for size in reversed(contest.sizes)]
    if contest.limit.seconds is None:
        return shown[0]
    fitting = (each for each in shown if contest.seconds_of_run(each, contest.set_up(each)) <= contest.limit.left)
    return next(fitting, shown[-1])


def _what_more_time_buys(contest: Contest, chosen: Presentation) -> str:
    """Say what the next larger size would take, and what the last step up brought; empty if none was left out."""
    left_out = [each for each, result in contest.results.items() if result.score is None]
    if not left_out:
        return ""
    following, limit = contest.results[left_out[0]], contest.limit.seconds or 0.0
    sizes = [each for each in contest.judged if (each.network, each.fit) == (chosen.network, contest.fits[0])]
    metric = METRIC_WORDS[contest.config.training.metric]
    kept = 2 if contest.kept_for_finetuning else 1  # half of the time is not for the frozen network
    # One that was left out as its sample takes long might itself fit: a longer limit has a larger share for samples.
    minutes = max(math.ceil(kept * following.minutes), math.floor(limit / 60) + 1)
    text = f"more time would buy {left_out[0]}, from about {minutes} minutes on"
    if len(sizes) < 2:
        return f"{text}."
    before, last = (contest.judged[each] for each in sizes[-2:])
    drawn = last.replicates[last.metric] - before.replicates[last.metric]
    gain, error = last.score - before.score, float(np.std(drawn))
    return (
        f"{text}; the step from {sizes[-2].size} to {sizes[-1].size} px changed {metric} by "
        f"{100 * gain:+.1f} ± {100 * error:.1f} points."
    )


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


def _with_size(config: RunConfig, shown: Presentation, reason: str) -> RunConfig:
    """Return a configuration whose reason for the size of the images is another one, if that is not the usual size."""
    reasons = [
        replace(each, value=shown.size, reason=reason)
        if not isinstance(each, str) and each.option == "data.image_size" and each.value != shown.size
        else each
        for each in config.reasons
    ]
    return replace(config, reasons=reasons)


def _with_reasons(config: RunConfig, search: Search) -> RunConfig:
    """Return a configuration whose reasons say what was compared."""
    choice = search.choice.presentation
    topics: dict[str, str | int] = {"model.name": choice.network, "data.image_size": choice.size}
    word = "the best" if search.choice.behind == 0 else "the fastest of those as good as the best"
    compared = f"{word} of {len(search.tried)} that were compared on {search.images:,} training images"
    several = {
        "model.name": len({each.presentation.network for each in search.tried}) > 1,
        "data.image_size": len({(each.presentation.size, each.presentation.fit) for each in search.tried}) > 1,
    }
    reasons = [
        replace(each, value=topics[each.option], reason=compared)
        if not isinstance(each, str) and several.get(each.option)
        else each
        for each in config.reasons
    ]
    return replace(config, reasons=reasons)
