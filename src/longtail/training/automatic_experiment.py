"""A run that leaves something open or has a time limit: choose, fit to the time, then train as any other."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from longtail.config.schema import RunConfig
from longtail.config.stage import StageConfig
from longtail.console import Reporter
from longtail.data.dataset import ImageData
from longtail.data.loading.loaders import count_batches
from longtail.errors import LongtailError
from longtail.models.heads import build_head
from longtail.run.layout import write_config
from longtail.run.portfolio import write_portfolio
from longtail.run.search import (
    NO_MORE,
    Presentation,
    Search,
    describe_search,
    left_open,
    nothing_compared,
    read_search,
    write_search,
)
from longtail.training.contest import Contest
from longtail.training.experiment import Experiment
from longtail.training.head_choice import choose_head
from longtail.training.loop import Callback, Progress
from longtail.training.network_trials import TrialRun, TrialWatch, try_whole_networks
from longtail.training.presentation import choose_presentation
from longtail.training.split_evaluation import collect_logits
from longtail.training.stages import head_name
from longtail.training.time_estimate import Pace, TimeLimit, TooSlowError, fit_to_limit, shortened, without_limit

MORE_EPOCHS: Final = "More time would buy all of the epochs: the first steps were slower than estimated."


class AutomaticExperiment(Experiment):
    """An experiment that completes its configuration itself, on the training images and in the time there is.

    Network, image size, fit and classifier that the configuration leaves open are compared first. With a time limit,
    what trains through the network is shortened to what fits, and once more where its first steps are slower than
    estimated. The configuration in the RUN folder is complete from then on.

    It takes the arguments of :class:`Experiment`.

    Raises:
        LongtailError: As for :class:`Experiment`; or there is a time limit and several processes, or it is too short.
    """

    def set_up(self) -> None:
        """Set up what is complete; what is open is chosen when the run begins."""
        config = self.config
        self.limit = TimeLimit(config.training.time_limit, self.begun)
        if self.limit.seconds is not None and self.engine.world_size > 1:
            raise LongtailError("--time-limit is for one process: leave it out, or start the command without torchrun.")
        self.contest = Contest(
            config, self.prepared, self.engine, self.reporter, self.seconds, self.limit, self.stop_if_asked
        )
        if config.is_on_features_through(min(config.stages)):
            self.contest.require_time()
        if config.is_open:
            return
        super().set_up()
        if self.limit.seconds is not None and self.state is None:
            fitted, more_time = self._in_time(config)
            self._go_on_with(without_limit(fitted))
            write_config(self.out, self.config)
            write_search(self.out, self._with_more_time(nothing_compared(config), [more_time]))

    def train(self) -> None:
        """Choose what is open, and train."""
        if self.config.is_open:
            self.choose()
        super().train()

    def train_stage(self, index: int, stage: StageConfig, *further: Callback) -> None:
        """Train a stage; with a time limit, shorten it and begin it again where its first steps are too slow."""
        if self.limit.seconds is None or stage.train != "all":
            super().train_stage(index, stage, *further)
            return
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        evaluated = sum(count for name, count in self.images.items() if name != "train")
        is_shortest = stage.epochs == 1 and stage is not self.config.finetune  # which may end within an epoch
        note = self.reporter.say if is_shortest else None
        try:
            super().train_stage(index, stage, Pace(self.limit, evaluated, self.config.data.image_size, note), *further)
        except TooSlowError as slow:
            self.engine.release()
            self.average = self.recorder = None
            self.model.load_state_dict(before)
            self._go_on_with(shortened(self.config, index, self.images, self.limit, slow.images_per_second))
            write_config(self.out, self.config)
            search = read_search(self.out)
            if search is not None and search.more_time == NO_MORE:
                write_search(self.out, replace(search, more_time=MORE_EPOCHS))
            self.save_checkpoint(Progress(index, state="between stages"))
            shorter = self.stages[index]
            epochs = shorter.epochs * shorter.epoch_share
            self.reporter.say(f"shortened to {epochs:.3g} epochs: the first steps were slower than estimated")
            super().train_stage(index, shorter, *further)

    def choose(self) -> None:
        """Choose what is open, on the training images, and go on as if it had been asked for."""
        before, asked = self.config, left_open(self.config)
        config, search = choose_presentation(self.contest)
        more_time = [search.more_time] if search is not None else []
        if search is None and config.data.image_size < self.contest.sizes[-1]:
            more_time = [f"More time would buy images of {self.contest.sizes[-1]} pixels."]
        self._set_up(replace(self.config, **{name: getattr(config, name) for name in ("model", "data", "reasons")}))
        if search is not None:
            self.reporter.say(describe_search(search))
        if config.is_to_be_chosen:
            stored = self._stored_views(1, config.stage1)
            begun = time.perf_counter()
            config, portfolio = choose_head(self.contest, config, stored, self.model)
            self.seconds["choosing"] += time.perf_counter() - begun
            if self.engine.is_main:
                write_portfolio(self.out, replace(portfolio, asked=asked))
            if not portfolio.candidates and not self.contest.hindrance(self.model.num_features, math.inf):
                more_time.append("More time would buy the choice of a classifier.")
            if before.search.finetuning and search is not None:
                config, trials, longer = try_whole_networks(self.contest, config, portfolio, stored, self._train_apart)
                search, more_time = replace(search, trials=trials), [*more_time, longer]
        if config.finetune.epochs and before.finetune.epochs:  # of a length that the user gave
            config, longer = self._in_time(config, has_features=before.is_to_be_chosen)
            more_time.append(longer)
        if search is None and (self.limit.seconds is not None or not before.is_to_be_chosen):
            search = nothing_compared(before)  # else the portfolio records what was asked for
        if search is not None:
            search = replace(self._with_more_time(search, more_time), asked=asked)
            if self.engine.is_main:
                write_search(self.out, search)
        config = without_limit(config)
        if self.engine.is_main:
            write_config(self.out, config)
        if config.data != self.config.data or config.model.name != self.config.model.name:  # a whole network won
            self._set_up(config)
            return
        self._go_on_with(config)
        if before.is_to_be_chosen:
            head = build_head(head_name(config.model), self.model.num_features, self.model.num_classes)
            self.model.head, self.model.head_name = head.to(self.engine.device), head_name(config.model)

    def _with_more_time(self, search: Search, sentences: Sequence[str]) -> Search:
        """Return a record that tells what more time would buy, where it is limited, and say so."""
        if self.limit.seconds is None:
            return search
        more_time = " ".join(filter(None, sentences)) or NO_MORE
        self.reporter.say(more_time)
        return replace(search, more_time=more_time)

    def _train_apart(self, config: RunConfig, data: ImageData, seconds: float) -> TrialRun:
        """Train a configuration on other splits in some seconds; leave nothing but its answers to the test split."""
        stage, last = config.last_stage, max(config.stages)
        steps = stage.epochs * count_batches(int(len(data.splits["train"]) * stage.epoch_share), stage.batch_size)
        title = f"trial of {config.model.name}"
        with TemporaryDirectory(prefix="longtail-") as folder, self.reporter.bar(title, steps) as bar:
            watch = TrialWatch(self.stop_if_asked, bar, last, seconds)
            silent = Reporter(quiet=True)
            trial = Experiment(config, Path(folder), silent, self.engine, source=data, callbacks=[watch])
            trial.guard = self.guard
            try:
                trial.train()
            finally:  # also where it was given up
                self.engine.release()
            logits, _ = collect_logits(
                self.engine, trial.model, trial.inputs["test"], num_images=len(data.splits["test"])
            )
        return TrialRun(logits * trial.record.scale, trial.record.history[-1]["images_per_second"])

    def _in_time(self, config: RunConfig, *, has_features: bool = False) -> tuple[RunConfig, str]:
        """Return a configuration that is short enough for the time limit, and what more time would buy."""
        if self.limit.seconds is None:
            return config, ""
        shown = Presentation(config.model.name, config.data.image_size, config.data.fit)
        begins_on_features = config.is_on_features_through(min(config.stages))
        return fit_to_limit(
            config,
            self.images,
            self.model,
            self.engine,
            self.limit,
            self.reporter.say,
            seconds_per_image=self.contest.seconds_per_image(shown) if begins_on_features else None,
            has_features=has_features,
        )
