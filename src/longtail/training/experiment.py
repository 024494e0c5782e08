"""A run from configuration to result: set up, train the stages, evaluate, save; resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from longtail.config.auto import PORTFOLIO
from longtail.config.schema import RunConfig
from longtail.config.stage import AUTO_LOSS, StageConfig
from longtail.console import Bar, Interrupted, InterruptGuard, Reporter
from longtail.data.dataset import ImageData
from longtail.data.loading.workers import lost_workers_explained
from longtail.device import hardware, step_seed
from longtail.errors import LongtailError
from longtail.models.adapters import merge_adapters
from longtail.models.heads import StandardizedHead
from longtail.models.inference_engine import check_engine, engine_version
from longtail.models.model import LongTailModel
from longtail.run import checkpoint
from longtail.run.layout import METRICS_FILE, PORTFOLIO_FILE, stage_name
from longtail.run.model_files import save_model
from longtail.run.result import Draws, write_metrics
from longtail.run.split_record import write_splits
from longtail.run.tables import describe_throughput, write_confusion, write_examples, write_history, write_predictions
from longtail.training.artifacts import Record, count_draws, describe, example_images, model_info, run_metrics
from longtail.training.candidates import adjust_head
from longtail.training.engine import Engine
from longtail.training.forward_pass import Inputs, TrainingInputs
from longtail.training.frozen_features import Classifier, StoredFeatures
from longtail.training.gradient_recorder import GradientRecorder
from longtail.training.loop import Callback, MovingAverage, Progress, StageRun, stop_on_nan, train_epoch, warm_up
from longtail.training.prepared_data import (
    describe_data,
    make_decoder,
    make_inputs,
    prepare_data,
    require_trainable_stream,
    run_facts,
)
from longtail.training.run_state import compose_state, continue_stage, progress_of
from longtail.training.setup import set_up
from longtail.training.sharding import collect
from longtail.training.split_evaluation import Evaluation, evaluate, prediction_table, with_group_intervals
from longtail.training.stages import build_stage, make_loss, set_trainable
from longtail.training.time_estimate import TimeKeeper
from longtail.training.tracking import Tracking

AGREE_STEPS = 10  # several processes ask each other this often whether to stop; the bar moves as often


class Experiment(Callback):
    """A run in a folder. It is set up when it is made; :meth:`run` trains, evaluates and saves, in this order.

    Args:
        config: Everything the run is made from.
        out: The RUN folder.
        reporter: Messages and progress bars for the user.
        engine: Device, precision, processes.
        state: The checkpoint to continue from.
        source: The source of the images, where it has been read already.
        callbacks: Called before those of the run itself.
        begun: Reading of ``time.monotonic`` from which a time limit counts; now when not given.

    Attributes:
        progress: Where training stands, as of the last checkpoint.

    Raises:
        LongtailError: The configuration or the data cannot be used, or the checkpoint does not fit them.
    """

    bar: Bar  # of the stage under way

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        reporter: Reporter,
        engine: Engine,
        *,
        state: checkpoint.TrainingState | None = None,
        source: ImageData | None = None,
        callbacks: Sequence[Callback] = (),
        begun: float | None = None,
    ) -> None:
        started, self.begun = time.perf_counter(), time.monotonic() if begun is None else begun
        self.config, self.out, self.engine, self.state = config, out, engine, state
        self.reporter = reporter if engine.is_main else Reporter(quiet=True)
        self.tracking = Tracking(config, out, self.reporter, is_main=engine.is_main)
        self.callbacks = callbacks
        self.guard = InterruptGuard()

        check_engine(config.training.engine, engine.device)  # before anything is read

        # Data
        classes = None if state is None else state.values.get("classes")
        self.prepared = engine.agree(
            lambda: prepare_data(config.data, self.reporter, source=source, classes=classes),
            partial(run_facts, config),
        )
        require_trainable_stream(config, self.prepared)
        self.data_hash = self.prepared.data_hash  # now: a folder may change while it is trained on
        describe_data(self.prepared, config.data.source, self.reporter)

        # Results
        self.progress = Progress(1, state="not begun")
        self.record, self.final = Record(), dict[str, Evaluation]()  # the second by split, after the last stage
        self.seconds = self.record.seconds

        # Network
        self.average: MovingAverage | None = None  # of the weights, while a stage has one
        self.recorder: GradientRecorder | None = None  # of the gradients on the logits, while a stage is trained
        self.set_up()
        self.seconds["startup"] += time.perf_counter() - started

    def run(self) -> dict[str, Any]:
        """Train what is left to train, evaluate it, write the files of the result; return ``metrics.json``.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the checkpoint is written.
            LongtailError: The loss became NaN.
        """
        if self.engine.is_main and not self.prepared.is_streamed:  # a stream has no list of its images
            prepared, column = self.prepared, self.config.data.group_column
            write_splits(self.out, prepared.data.splits, prepared.source, prepared.origins, column)
        with self.tracking:
            with self.guard, lost_workers_explained():
                self.train()
                self.evaluate(self.last_stage)
            return self.save()

    # --- setup -------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Build the network, open the images, and continue from the checkpoint, if there is one."""
        self._set_up(self.config)
        if self.state is not None:
            self._restore(self.state)

    def _go_on_with(self, config: RunConfig) -> None:
        """Take over a configuration that has the same network and images."""
        self.config, self.stages, self.last_stage = config, config.stages, max(config.stages)
        self.time.config = self.tracking.config = config

    def _set_up(self, config: RunConfig) -> None:
        """Take over a configuration: build its network and open its images."""
        splits, counts = self.prepared.data.splits, self.prepared.counts
        resuming = self.state is not None
        setup = set_up(config, splits, counts, self.engine, self.reporter, self.seconds, resuming=resuming)
        self.model, self.inputs, self.features = setup.model, setup.inputs, setup.features
        self.shown = None if self.features.fixed else config.data  # how the images of `inputs` are decoded
        for stage in config.stages.values():  # an option that the loss refuses is found before anything is trained
            if stage.loss.name != AUTO_LOSS:
                make_loss(stage, counts, self.model)
        self.images = {name: len(split) for name, split in splits.items()}
        self.time = TimeKeeper(config, self.images, counts, self.model, self.engine, self.reporter.say)
        self.features.before = self.time.before_features
        self._go_on_with(config)

    def _restore(self, state: checkpoint.TrainingState) -> None:
        """Continue from a checkpoint: history, figures, weights; the rest when its stage begins."""
        values = state.values
        if values["data_hash"] != self.data_hash:
            raise LongtailError(
                f"the images of {self.config.data.source!r} are not those that {self.out} was started with; put them "
                "back to resume, or train into a new --out."
            )
        self.progress = progress_of(values, self.last_stage)
        index = self.progress.stage
        self.record.resume(values)
        self.engine.loss_scaling = values.get("loss_scaling", {})  # a checkpoint of an older version has none
        for number, stage in self.stages.items():  # a stage may add to the network, before its first checkpoint
            if number < index or (number == index and self.progress.state != "between stages"):
                set_trainable(self.model, stage, self.config.model)
        checkpoint.load_weights(self.model, state.take("model"), f"the model {self.config.model.name!r}")
        epochs = self.stages[index].epochs if index in self.stages else 0
        self.reporter.say(f"resuming {self.progress.describe(epochs)}")

    # --- train -------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train the stages that are left, each from the weights of the one before."""
        for index in list(self.stages):  # a stage may shorten those after it
            if index < self.progress.stage:
                continue
            self.train_stage(index, self.stages[index])
            if index != self.last_stage:
                self.evaluate(index)
                if self.engine.is_main:  # what another stage 2 can start from
                    self._save_model(index, self.out / stage_name(index))
                following = min(number for number in self.stages if number > index)
                self.save_checkpoint(Progress(following, state="between stages"))
        if self.config.model.tau:
            adjust_head(self.model, self.config.model.tau, self.prepared.counts, self.record.scale)

    def _stored_views(self, index: int, stage: StageConfig) -> StoredFeatures:
        """Return the features that a stage trains on; those of evaluation, where images are not augmented."""
        if not self.features.fixed:
            self._show_images(stage)
        plain = stage.cached_views == 1 and not self.inputs["train"].transform.is_random
        if plain and self.config.is_on_features_through(index):
            return self.features.plain("train", self.stop_if_asked)
        return self.features.views(index, stage.cached_views, self.config.training.seed, self.stop_if_asked)

    def _show_images(self, stage: StageConfig) -> None:
        """Decode the images for a stage that passes them through the network, augmented as it asks for."""
        data = self.config.data
        data = data if stage.augmentation is None else replace(data, augmentation=stage.augmentation)
        if data != self.shown:
            self.inputs.clear()  # makes room
            decoders = {name: make_decoder(split, name, data) for name, split in self.prepared.data.splits.items()}
            self.inputs |= make_inputs(decoders, data, self.engine.device, self.reporter)
            self.shown = data

    def train_stage(self, index: int, stage: StageConfig, *further: Callback) -> None:
        """Train one stage from its start, or from the checkpoint within it."""
        training = self.config.training
        state = self.state if self.progress.state == "in a stage" and self.progress.stage == index else None
        if state is None:
            self.progress = Progress(index)
            torch.manual_seed(step_seed(training.seed, index, 1))  # what is drawn anew has a seed for each stage
            set_trainable(self.model, stage, self.config.model)
        decay = training.ema_decay if stage.ema_decay is None else stage.ema_decay
        if decay is not None:
            self.average = MovingAverage(self.model, decay)
        inputs: TrainingInputs[Any]
        if stage.cached_views:
            inputs = stored = self._stored_views(index, stage)
            if isinstance(self.model.head, StandardizedHead) and state is None and index == min(self.stages):
                self.model.head.start_from(stored.features[0], stored.labels)
        else:
            self._show_images(stage)
            inputs = self.inputs["train"]
        work = build_stage(
            self.engine,
            stage,
            index,
            model=self.model,
            counts=self.prepared.counts,
            inputs=inputs,
            network=Classifier(self.model) if stage.cached_views else None,
        )
        self.record.scale = work.loss.logit_scale
        if self.progress.epoch > stage.epochs or self.progress.step > work.steps:
            raise LongtailError(
                f"the checkpoint in {self.out} is {self.progress.describe(stage.epochs)}, beyond the {stage.epochs} "
                f"epochs of {work.steps} steps: resume with the configuration it was made with."
            )
        if training.compile:
            begun = time.perf_counter()
            warm_up(work)
            self.seconds["compile"] += time.perf_counter() - begun
        if training.record_dynamics:
            scaler = self.engine.accelerator.scaler
            self.recorder = GradientRecorder(work.loss, self.engine.device, scaler=scaler, out=self.out)
        if state is not None:
            continue_stage(state, work, self.engine, self.average, self.recorder)
        with self.reporter.bar(f"stage {index}", stage.epochs * work.steps) as self.bar:
            ours = (self.average, self.tracking, self.recorder, self.time, self, *further)
            work.callbacks = [*self.callbacks, *(callback for callback in ours if callback is not None)]
            for callback in work.callbacks:
                callback.on_stage_begin(work)
            step, sums = self.progress.step, None if state is None else state.tensors.get("meter.sums")
            for epoch in range(self.progress.epoch, stage.epochs):
                self.finish_epoch(work, train_epoch(work, epoch, step, sums))
                step, sums = 0, None
        self.record.draws |= count_draws(self.engine, work)
        for name, draws in self.record.draws.items():
            if name == stage_name(index):
                self.reporter.say(f"stage {index} saw {Draws.model_validate(draws).words}")
        self.engine.release()
        if self.average is not None:
            self.model.load_state_dict(self.average.network.state_dict())
        self.average = self.recorder = self.state = None

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Move the bar; save a checkpoint if it is due or the user asked to stop."""
        if progress.step % AGREE_STEPS == 0 or progress.step == stage.steps:
            loss = "" if stage.meter.mean_loss is None else f"  loss {stage.meter.mean_loss:.3f}"
            done = progress.epoch * stage.steps + progress.step
            self.bar.update(done, f"epoch {progress.epoch + 1}/{stage.epochs}{loss}")
        if progress.step == stage.steps:  # the end of the epoch saves, once its row is recorded
            return
        stopping, every = self._stop_at(progress.step), self.config.training.checkpoint_steps
        if stopping or (every and progress.step % every == 0):
            stop_on_nan(stage, progress.epoch)  # before the good checkpoint is replaced
            begun = time.perf_counter()
            self.save_checkpoint(progress, stage)
            stage.paused += time.perf_counter() - begun
        if stopping:
            raise Interrupted

    def finish_epoch(self, stage: StageRun, row: dict[str, Any]) -> None:
        """Add an epoch to the history, with the validation figures where they are due, and save a checkpoint."""
        self._collect(stage)
        every, epoch, last = self.config.training.validate_every, row["epoch"], row["epoch"] == stage.epochs
        if "validation" in self.inputs and (last or (every and epoch % every == 0)):
            network = self.model if self.average is None else self.average.network
            summary = self._measure("validation", network, stage.index).summary
            row["validation_loss"] = summary["nll"]
            row["validation_accuracy"] = summary["accuracy"]
            row["validation_balanced_accuracy"] = summary["balanced_accuracy"]
        self.record.history.append(row)
        if self.engine.is_main:
            write_history(self.out, self.record.history)
        for callback in stage.callbacks:
            callback.on_epoch_end(stage, row)
        self.save_checkpoint(Progress(stage.index, epoch), stage)
        if not last and self._stop_at(AGREE_STEPS):
            raise Interrupted

    def _collect(self, stage: StageRun) -> None:
        """Bring the weights of a stage into the whole network; they are there already where training is not divided."""
        if stage.model is not self.model:
            collect(stage.model, self.model)

    def _stop_at(self, step: int) -> bool:
        """Whether to stop now: several processes have to stop at the same step."""
        if self.engine.world_size == 1:
            return self.guard.requested
        if step % AGREE_STEPS:
            return False
        return bool(self.engine.sum(torch.tensor(float(self.guard.requested), device=self.engine.device)).item())

    def stop_if_asked(self) -> None:
        """Stop while features are computed; several processes finish them first."""
        if self.guard.requested and self.engine.world_size == 1:
            raise Interrupted

    # --- evaluate ----------------------------------------------------------------------------------------------------

    def evaluate(self, index: int) -> None:
        """Evaluate the network on its splits after a stage, and report the figures.

        The stages of a recipe are tested one by one, those of a choice once, at the end.
        """
        last = index == self.last_stage
        # A run that repeats a choice has no file of the portfolio; its recipe tells.
        is_chosen = self.config.recipe == PORTFOLIO or (self.out / PORTFOLIO_FILE).is_file()
        is_tested = last or not is_chosen
        results: dict[str, Evaluation] = {
            name: self._measure(name, self.model, index, keep_predictions=last and name == "test")
            for name in ("validation", "test")
            if name in self.inputs and (is_tested or name != "test")
        }
        self.record.stage_results[f"stage{index}"] = {
            name: {key: value for key, value in result.summary.items() if key != "per_class"}
            for name, result in results.items()
        }
        # The figures of the last stage are the result, which is shown by whoever started the run; those of a fold are
        # shown here only.
        shown = "test" in results and (not last or self.config.data.fold is not None)
        test = [f"test {describe(results['test'].summary)}"] if shown else []
        self.reporter.say(f"stage {index} done: {'; '.join([*test, describe_throughput(self.record.history, index)])}")
        if last:
            self.final = results
            self.save_checkpoint(Progress(index + 1, state="trained"))
            self.progress = Progress(index + 1, state="evaluated")

    def _measure(self, name: str, model: LongTailModel, stage: int, *, keep_predictions: bool = False) -> Evaluation:
        """Evaluate a network after a stage on a split, on stored features while no stage has trained the backbone."""
        on_features = self.config.is_on_features_through(stage)
        inputs: Inputs[Any] = self.features.plain(name) if on_features else self.inputs[name]
        begun = time.perf_counter()
        model.to(self.engine.device)
        self.engine.share_buffers(model)
        split = self.prepared.data.splits[name]
        result = evaluate(
            self.engine,
            Classifier(model) if on_features else model,
            inputs,
            num_images=len(split),
            counts=self.prepared.counts,
            groups=self.prepared.groups,
            scores=lambda logits: logits * self.record.scale,
            keep_predictions=keep_predictions,
        )
        model.to(self.engine.home)
        result = with_group_intervals(result, split, self.config.data.group_column)
        self.seconds["evaluation"] += time.perf_counter() - begun
        return result

    # --- save --------------------------------------------------------------------------------------------------------

    def save_checkpoint(self, progress: Progress, stage: StageRun | None = None) -> None:
        """Write everything that a resumed run needs; every process has to call this.

        Args:
            progress: Where training stands.
            stage: The stage under way, if any.
        """
        begun = time.perf_counter()
        if stage is not None:
            self._collect(stage)
        state = compose_state(
            progress,
            self.record,
            self.model,
            self.engine,
            counts=self.prepared.counts,
            data_hash=self.data_hash,
            stage=stage,
            average=self.average,
            recorder=self.recorder,
        )
        if state is not None:
            checkpoint.save_checkpoint(self.out, state)
        self.engine.wait()
        self.progress = progress
        self.seconds["saving"] += time.perf_counter() - begun

    def save(self) -> dict[str, Any]:
        """Write the files of the result; return the values of ``metrics.json``."""
        machine = hardware(self.engine.device) | {"processes": self.engine.world_size}
        if self.features.runs_on is not None:
            machine["engine"] = engine_version(self.features.runs_on)
        metrics = run_metrics(self.config, self.prepared, self.record, self.final, machine)
        if self.engine.is_main:
            self._save_model(self.last_stage, self.out)
            if "test" in self.final:
                self._save_predictions(self.final["test"])
            for callback in (*self.callbacks, self.tracking):
                callback.on_run_end(metrics)
            write_metrics(self.out, metrics)  # last: its presence says that the run is complete
        try:
            self.engine.wait()
        except RuntimeError:  # gloo's, where another process has come out of the same wait and left
            if not (self.out / METRICS_FILE).is_file():
                raise
        return metrics

    def _save_model(self, stage: int, folder: Path) -> None:
        tau = self.config.model.tau if stage == self.last_stage else 0.0
        info = model_info(self.config, self.prepared, self.model, self.stages[stage], self.record.scale, tau)
        save_model(merge_adapters(self.model).with_folded_head(), info, folder)

    def _save_predictions(self, test: Evaluation) -> None:
        """Write the predictions for the test split, its confusion matrix, and example images."""
        splits, counts = self.prepared.data.splits, self.prepared.counts
        with self.reporter.bar("example images", len(counts)) as bar:
            rows = example_images(
                splits["train"].examples, splits["test"], test.predictions, counts.array, tick=bar.tick
            )
        write_examples(self.out, rows)
        column = self.config.data.group_column
        write_predictions(self.out, prediction_table(test, splits["test"], counts.names, group_column=column))
        write_confusion(self.out, test.predictions, counts.names)
