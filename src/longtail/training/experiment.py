"""One experiment from configuration to result: data, network, two stages, evaluation, files; resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtail.config.check import check_config, check_stages
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig, StageConfig
from longtail.console import Reporter
from longtail.device import step_seed
from longtail.errors import LongtailError
from longtail.models.adapters import merge_adapters
from longtail.models.model import LongTailModel
from longtail.run.checkpoint import (
    Phase,
    TrainingState,
    load_checkpoint,
    load_optimizer_tensors,
    load_weights,
    optimizer_tensors,
    save_checkpoint,
)
from longtail.run.dynamics import write_epoch
from longtail.run.environment import hardware
from longtail.run.folder import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    CONFUSION_FILE,
    EXAMPLES_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    SPLITS_FILE,
    WEIGHTS_FILE,
    refuse_existing,
    stage_name,
)
from longtail.run.model_files import save_model
from longtail.run.model_info import ModelInfo
from longtail.run.splits import write_splits
from longtail.run.write import (
    describe_throughput,
    write_confusion,
    write_history,
    write_json,
    write_predictions,
    write_yaml,
)
from longtail.training.agreement import require_agreement, run_facts
from longtail.training.clustered_intervals import with_group_intervals
from longtail.training.engine import Engine
from longtail.training.evaluate import Evaluation, evaluate, prediction_table
from longtail.training.examples import write_examples
from longtail.training.frozen_features import CachedViews, Classifier, FeatureStore
from longtail.training.gradient_recorder import Recorder
from longtail.training.interrupt import Interrupted, InterruptGuard
from longtail.training.meter import Meter
from longtail.training.prepare import PreparedData, prepare_data
from longtail.training.progress import describe
from longtail.training.results import FORMAT, main_figures, model_info, run_metrics
from longtail.training.setup import describe_data, make_decoder, make_loaders, make_model
from longtail.training.stage_loop import StageLoop
from longtail.training.stages import (
    MovingAverage,
    attach_recorder,
    build_pass,
    make_average,
    make_loss,
    make_transform,
    set_trainable,
)
from longtail.training.tracking import Tracking, final_figures
from longtail.training.train_epoch import warm_up


class Experiment:
    """A run in a folder. Build it, then call :meth:`run`.

    Args:
        config: Everything the run is made from.
        out: The RUN folder.
        reporter: Tells the user what happens.
        engine: Device, precision, processes.
        resuming: A checkpoint will follow, so published weights are not needed.
        classes: Class names that the run was started with, if known: the source is matched to them.

    Raises:
        LongtailError: The configuration or the data cannot be used.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        reporter: Reporter,
        engine: Engine,
        *,
        resuming: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        begun = time.perf_counter()
        self.config = config
        self.out = out
        self.engine = engine
        self.reporter = reporter if self.engine.is_main else Reporter(quiet=True)
        self.tracking = Tracking(config, out, self.reporter, is_main=engine.is_main)
        self.transform = make_transform(config.data)
        self.stages = check_stages(config)
        self.frozen = all(stage.train != "all" and stage.cached_views for stage in self.stages.values())
        self.prepared = self._prepare(classes)
        self.data_hash = self.prepared.data_hash  # now: a folder may change while it is trained on
        describe_data(self.prepared, config.data.source, self.reporter)
        self.decoders = {
            name: make_decoder(split, name, config.data) for name, split in self.prepared.data.splits.items()
        }
        self.loaders = make_loaders(self.decoders, config.data, engine.device, self.reporter, once=self.frozen)
        self.model = make_model(config, self.prepared.counts, self.reporter, resuming=resuming)
        # Beside those of the epochs.
        self.seconds = dict.fromkeys(("startup", "compile", "features", "evaluation", "saving"), 0.0)
        self.features = FeatureStore(
            engine, self.model, self.loaders, self.decoders, self.transform, self.reporter, self.seconds,
            fixed=self.frozen, on_disk=config.data.cache, source=config.data.source,
        )  # fmt: skip
        for stage in self.stages.values():  # an option that the loss refuses is found before anything is trained
            make_loss(stage, self.prepared.counts, self.model)
        self.history: list[dict[str, Any]] = []
        self.stage_results: dict[str, Any] = {}
        self.final: dict[str, Evaluation] = {}  # by split, once the last stage is done
        self.scale = 1.0
        self.average: MovingAverage | None = None  # of the weights, while a stage keeps one
        self.recorder: Recorder | None = None  # of the gradients on the logits, while a stage is trained
        self.seconds["startup"] = time.perf_counter() - begun

    def _prepare(self, classes: Sequence[str] | None) -> PreparedData:
        """Read the images, and check that all processes read the same."""
        if self.engine.world_size == 1:
            return prepare_data(self.config.data, self.reporter, classes=classes)
        prepared: list[PreparedData] = []

        def facts() -> dict[str, str]:
            prepared.append(prepare_data(self.config.data, self.reporter, classes=classes))
            return run_facts(self.config, prepared[0])

        require_agreement(self.engine, facts)
        return prepared[0]

    def run(self, state: TrainingState | None = None) -> dict[str, Any]:
        """Train from the start, or go on from a checkpoint; return what ``metrics.json`` holds.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the checkpoint is written.
            LongtailError: The loss became NaN, or the checkpoint does not fit.
        """
        if state is not None:
            self._restore(state)
        if self.engine.is_main:
            prepared, column = self.prepared, self.config.data.group_column
            write_splits(self.out / SPLITS_FILE, prepared.data.splits, prepared.source, prepared.origins, column)
        with self.tracking:
            with InterruptGuard() as guard:
                for index, stage in self.stages.items():
                    if state is None or index >= state.values["stage"]:
                        resumed = state if state is not None and index == state.values["stage"] else None
                        self._run_stage(index, stage, resumed, guard)
            return self._finish()

    # --- one stage ---------------------------------------------------------------------------------------------------

    def _run_stage(self, index: int, stage: StageConfig, state: TrainingState | None, guard: InterruptGuard) -> None:
        torch.manual_seed(step_seed(self.config.training.seed, index, 1))
        if state is not None and state.phase == "between stages":
            # Its weights are the start of this stage, before it changes the classifier.
            self._load_weights(state)
            state = None
        set_trainable(self.model, stage, self.config.model)
        self.model.to(self.engine.device)
        if state is not None:
            self._load_weights(state)
        self.average = make_average(self.model, self.config.training.ema_decay, state)
        if self.config.training.compile:
            # PyTorch keeps a few graphs of the same code, also of networks that are gone, and then compiles no more.
            torch.compiler.reset()
        views = self._views(index, stage, guard) if stage.cached_views else None
        work, sampler = build_pass(
            self.engine, stage, index, model=self.model, counts=self.prepared.counts,
            labels=self.prepared.data.splits["train"].labels,
            loader=self.loaders["train"] if views is None else views,
            transform=self.transform if views is None else views,
            network=None if views is None else Classifier(self.model),
        )  # fmt: skip
        if self.average is not None:
            work.after_step = self.average.update
        if self.config.training.compile:
            begun = time.perf_counter()
            warm_up(work, sampler.indices())
            self.seconds["compile"] += time.perf_counter() - begun
        if self.config.training.record_dynamics:  # not before: the batches that warm up are no part of an epoch
            self.recorder = attach_recorder(work, None if state is None else state.tensors.get("dynamics.sums"))
        optimizer = getattr(work.optimizer, "optimizer", work.optimizer)  # accelerate wraps it for float16
        self.scale = work.loss.logit_scale
        loop = StageLoop(
            index, stage, work, sampler, guard, self.reporter, self.config.training.checkpoint_steps,
            record=self._record,
            save=lambda epoch, step, meter: self._save("in a stage", index, epoch, step, optimizer, meter),
        )  # fmt: skip
        if state is None:
            loop.run()
        else:
            load_optimizer_tensors(optimizer, state.take("optimizer"))
            loop.run(state.values["epoch"], state.values["step"], state.tensors.get("meter.sums"))
        self.engine.release()
        if self.average is not None:
            self.model.load_state_dict(self.average.network.state_dict())
            self.average = None
        self._finish_stage(index)

    def _views(self, index: int, stage: StageConfig, guard: InterruptGuard) -> CachedViews:
        def stop() -> None:
            if guard.requested and self.engine.world_size == 1:
                raise Interrupted

        return self.features.views(index, stage.cached_views, self.config.training.seed, stop)

    def _record(self, row: dict[str, Any]) -> None:
        """Add an epoch to the history, with the validation figures where they are due."""
        every, last = self.config.training.validate_every, row["progress"] == 1
        if "validation" in self.loaders and (last or (every and row["epoch"] % every == 0)):
            network = self.average.network if self.average is not None else self.model
            summary = self._evaluate("validation", network).summary
            row |= {
                "validation_loss": summary["nll"], "validation_accuracy": summary["accuracy"],
                "validation_balanced_accuracy": summary["balanced_accuracy"],
            }  # fmt: skip
        self.history.append(row)
        if self.engine.is_main:
            write_history(self.out / HISTORY_FILE, self.history)
        self.tracking.log(row, step=len(self.history))
        if self.recorder is not None:
            sums = self.engine.sum(self.recorder.sums)
            if self.engine.is_main:
                write_epoch(self.out, row["stage"], row["epoch"], sums, self.recorder.scale)
            self.recorder.start()

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _save(
        self,
        phase: Phase,
        index: int,
        epoch: int = 0,
        step: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        meter: Meter | None = None,
    ) -> None:
        begun = time.perf_counter()
        if not torch.stack([weight.isfinite().all() for weight in self.model.parameters()]).all():
            raise LongtailError(
                f"the weights are no longer finite numbers after epoch {epoch}, step {step} of stage {index}; the "
                f"checkpoint before is kept: train with a lower --stage{index}.optimizer.lr or a --training.clip_norm."
            )
        sums = self.engine.sum(meter.sums) if meter is not None and step else None
        dynamics = self.engine.sum(self.recorder.sums) if self.recorder is not None and step else None
        if self.engine.is_main:
            state = TrainingState(values={
                "format": FORMAT, "phase": phase, "stage": index, "epoch": epoch, "step": step, "history": self.history,
                "stage_results": self.stage_results, "seconds": self.seconds, "scale": self.scale,
                "data_hash": self.data_hash, "classes": list(self.prepared.counts.names),
                "updates": 0 if self.average is None else self.average.updates,
                "loss_scaling": self.engine.loss_scaling,
            })  # fmt: skip
            state.put("model", self.model.state_dict())
            if optimizer is not None:
                state.put("optimizer", optimizer_tensors(optimizer))
            if self.average is not None:
                state.put("average", self.average.network.state_dict())
            if sums is not None:
                state.put("meter", {"sums": sums})
            if dynamics is not None:
                state.put("dynamics", {"sums": dynamics})
            save_checkpoint(self.out / CHECKPOINT_FOLDER, state)
        self.engine.wait()
        self.seconds["saving"] += time.perf_counter() - begun

    def _restore(self, state: TrainingState) -> None:
        values = state.values
        if values.get("format") != FORMAT:
            raise LongtailError(
                f"the checkpoint in {self.out} was written by another version of longtail; resume with that version, "
                "or train into a new --out."
            )
        if values["data_hash"] != self.data_hash:
            raise LongtailError(
                f"the images of {self.config.data.source!r} are not those that {self.out} was started with; put them "
                "back to resume, or train into a new --out."
            )
        self.history = values["history"]
        self.stage_results = values["stage_results"]
        for name, value in values.get("seconds", {}).items():
            self.seconds[name] += value
        self.scale = values["scale"]
        self.engine.loss_scaling = values.get("loss_scaling", {})  # a checkpoint of an older version has none
        last = max(self.stages)
        values.setdefault("phase", _phase(values, last))
        if state.phase == "trained":  # only the last files are missing
            set_trainable(self.model, self.stages[last], self.config.model)
            self._load_weights(state)
            self.model.to(self.engine.device)

    def _load_weights(self, state: TrainingState) -> None:
        load_weights(self.model, state.take("model"), f"the model {self.config.model.name!r}")

    # --- results -----------------------------------------------------------------------------------------------------

    def _finish_stage(self, index: int) -> None:
        last = index == max(self.stages)
        found: dict[str, Evaluation] = {
            name: self._evaluate(name, self.model, keep_predictions=last and name == "test")
            for name in ("validation", "test")
            if name in self.loaders
        }
        self.stage_results[f"stage{index}"] = {name: main_figures(result.summary) for name, result in found.items()}
        if last:
            self.final = found
        # What the last stage came to is the result, which who started the run shows; of a fold nobody else does.
        shown = "test" in found and (not last or self.config.data.fold is not None)
        test = [f"test {describe(found['test'].summary)}"] if shown else []
        self.reporter.say(f"stage {index} done: {'; '.join([*test, describe_throughput(self.history, index)])}")
        if not last and self.engine.is_main:  # what another stage 2 can start from
            save_model(merge_adapters(self.model), self._info(index), self.out / stage_name(index))
        following = min((i for i in self.stages if i > index), default=index + 1)
        self._save("trained" if last else "between stages", following)

    def _evaluate(self, name: str, model: LongTailModel, *, keep_predictions: bool = False) -> Evaluation:
        views = self.features.plain(name) if self.frozen else None
        begun = time.perf_counter()
        self.engine.share_buffers(model)
        result = evaluate(
            self.engine, model if views is None else Classifier(model),
            self.loaders[name] if views is None else views, self.transform if views is None else views,
            num_images=len(self.prepared.data.splits[name]), counts=self.prepared.counts,
            groups=self.prepared.groups, scores=self._scores, keep_predictions=keep_predictions,
        )  # fmt: skip
        result = with_group_intervals(result, self.prepared.data.splits[name], self.config.data.group_column)
        self.seconds["evaluation"] += time.perf_counter() - begun
        return result

    def _scores(self, logits: Tensor) -> Tensor:
        return logits * self.scale

    def _finish(self) -> dict[str, Any]:
        if not self.final:  # resumed after the last stage
            self._finish_stage(max(self.stages))
        test = self.final.get("test")
        metrics = run_metrics(
            self.config, self.prepared, self.stages, found=self.final, stage_results=self.stage_results,
            history=self.history, seconds=self.seconds,
            machine=hardware(self.engine.device) | {"processes": self.engine.world_size},
        )  # fmt: skip
        if self.engine.is_main:
            save_model(merge_adapters(self.model), self._info(max(self.stages)), self.out)
            if test is not None:
                splits, counts = self.prepared.data.splits, self.prepared.counts.array
                examples = self.out / EXAMPLES_FILE
                with self.reporter.bar("example images", len(counts)) as bar:
                    write_examples(examples, splits["train"], splits["test"], test.predictions, counts, tick=bar.tick)
                classes, column = self.prepared.data.classes, self.config.data.group_column
                table = prediction_table(test, splits["test"], classes, group_column=column)
                write_predictions(self.out / PREDICTIONS_FILE, table)
                write_confusion(self.out / CONFUSION_FILE, test.predictions, self.prepared.counts.names)
            self.tracking.log(final_figures(metrics), step=len(self.history))
            write_json(self.out / METRICS_FILE, metrics)  # last: its presence says that the run is complete
        self.engine.wait()
        return metrics

    def _info(self, stage: int) -> ModelInfo:
        return model_info(self.config, self.prepared, self.model, self.stages[stage], self.scale)


def make_engine(config: RunConfig) -> Engine:
    """Start device, precision and processes.

    Raises:
        LongtailError: The machine cannot compute in the precision asked for.
    """
    try:
        return Engine(config.training)
    except ValueError as error:
        raise LongtailError(f"--training.precision {config.training.precision} does not work here: {error}") from error


def start_run(config: RunConfig, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Train into a new folder and return the metrics.

    Raises:
        LongtailError: The folder holds something already.
    """
    refuse_existing(out)
    check_config(config)
    config = complete(config)
    engine = make_engine(config)
    was_there = out.exists()
    engine.wait()  # every process has looked at the folder before the first one writes to it
    if engine.is_main:
        write_yaml(out / CONFIG_FILE, asdict(config))
    try:
        experiment = Experiment(config, out, reporter, engine)
    except BaseException:  # nothing is trained yet: leave no trace, so that the same command works once mended
        if engine.is_main:
            (out / CONFIG_FILE).unlink(missing_ok=True)
            if not was_there:
                with suppress(OSError):  # somebody else has put a file there: leave it
                    out.rmdir()
        raise
    return experiment.run()


def resume_run(config: RunConfig, out: Path, reporter: Reporter, *, moved: bool = False) -> dict[str, Any]:
    """Continue a run from its last checkpoint, from the start where it has none yet, and return the metrics.

    Args:
        config: The configuration of the run.
        out: The RUN folder.
        reporter: Tells the user what happens.
        moved: Whether the source of the configuration is a new path, which is stored once the images prove the same.

    Raises:
        LongtailError: The run is finished, or its checkpoint does not fit.
    """
    state = load_checkpoint(out / CHECKPOINT_FOLDER)
    if state is None and (out / WEIGHTS_FILE).is_file():
        raise LongtailError(
            f"{out} holds a trained model and no checkpoint to continue from, as a finished run removes it: train into "
            "a new --out."
        )
    check_config(config)
    config = complete(config)
    experiment = Experiment(
        config,
        out,
        reporter,
        make_engine(config),
        resuming=state is not None,
        classes=None if state is None else state.values.get("classes"),
    )
    if state is not None:
        experiment.reporter.say(f"resuming {_place(state.values, experiment.stages)}")
    if moved and experiment.engine.is_main and (state is None or state.values["data_hash"] == experiment.data_hash):
        write_yaml(out / CONFIG_FILE, asdict(config))
    return experiment.run(state)


def _phase(values: Mapping[str, Any], last: int) -> Phase:
    """Infer where training stood from a checkpoint of an earlier version, which does not record it."""
    if values["stage"] > last:
        return "trained"
    return "in a stage" if values["epoch"] or values["step"] else "between stages"


def _place(values: Mapping[str, Any], stages: Mapping[int, StageConfig]) -> str:
    """Describe where a checkpoint continues."""
    stage, epoch, step = (values[name] for name in ("stage", "epoch", "step"))
    if stage not in stages:
        return "after the last stage: the files of the result are still to be written"
    if epoch == stages[stage].epochs:
        return f"at the end of stage {stage}"
    return f"at stage {stage}, epoch {epoch + 1}, step {step}"
