"""The state of a run as a checkpoint holds it: composed of what is under way, and put back into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longtail.config.stage import section_name
from longtail.counts import ClassCounts
from longtail.errors import LongtailError
from longtail.models.model import LongTailModel
from longtail.run.checkpoint import (
    TrainingState,
    laid_out_like,
    load_optimizer_tensors,
    load_weights,
    optimizer_tensors,
)
from longtail.training.artifacts import Record
from longtail.training.engine import Engine
from longtail.training.gradient_recorder import GradientRecorder
from longtail.training.loop import MovingAverage, Progress, StageRun
from longtail.training.sharding import share_of, undivided


def progress_of(values: Mapping[str, Any], last_stage: int) -> Progress:
    """Return where training stood.

    Args:
        values: Plain values of a checkpoint. Those of earlier versions do not name the state.
        last_stage: Number of the last stage of the run.

    Example:
        >>> progress_of({"stage": 2, "epoch": 0, "step": 0}, last_stage=2).state
        'between stages'
    """
    index, epoch, step = values["stage"], values["epoch"], values["step"]
    inferred = "trained" if index > last_stage else "in a stage" if epoch or step else "between stages"
    return Progress(index, epoch, step, values.get("phase", inferred))


def compose_state(
    progress: Progress,
    record: Record,
    model: LongTailModel,
    engine: Engine,
    *,
    counts: ClassCounts,
    data_hash: str,
    stage: StageRun | None = None,
    average: MovingAverage | None = None,
    recorder: GradientRecorder | None = None,
) -> TrainingState | None:
    """Compose everything that a resumed run needs; every process has to call this.

    Args:
        progress: Where training stands.
        record: Record of the run.
        model: The network, with the weights of the stage under way.
        engine: Device, precision, processes.
        counts: Training images per class.
        data_hash: Hash of the images.
        stage: The stage under way, if any.
        average: The moving average of the weights, if the stage has one.
        recorder: Recorder of its gradients, if there is one.

    Returns:
        The state on the main process, None on others.

    Raises:
        LongtailError: A weight is not a finite number.
    """
    if not torch.stack([weight.isfinite().all() for weight in model.parameters()]).all():
        raise LongtailError(
            f"the weights are no longer finite numbers after epoch {progress.epoch}, step {progress.step} of stage "
            f"{progress.stage}; the checkpoint before is kept: train with a lower "
            f"--{section_name(progress.stage)}.optimizer.lr or a --training.clip_norm."
        )
    optimizer: dict[str, Tensor] = {} if stage is None else undivided(optimizer_tensors(stage.optimizer))
    sums: dict[str, Tensor] = {}  # of the epoch under way
    if stage is not None and progress.step:
        sums["meter"] = engine.sum(stage.meter.sums)
        if recorder is not None:
            sums["dynamics"] = engine.sum(recorder.sums)
    positions = [] if stage is None else engine.gather(stage.sampler.tensors())
    if not engine.is_main:
        return None
    state = TrainingState(
        values={
            "phase": progress.state,
            "stage": progress.stage,
            "epoch": progress.epoch,
            "step": progress.step,
            **vars(record),
            "data_hash": data_hash,
            "classes": list(counts.names),
            "updates": 0 if average is None else average.updates,
            "loss_scaling": engine.loss_scaling,
        }
    )
    state.put("model", model.state_dict())
    state.put("optimizer", optimizer)
    if average is not None:
        state.put("average", average.network.state_dict())
    for name, values in sums.items():
        state.put(name, {"sums": values})
    for tensors in positions:
        state.put("sampler", tensors)
    return state


def continue_stage(
    state: TrainingState,
    stage: StageRun,
    engine: Engine,
    average: MovingAverage | None = None,
    recorder: GradientRecorder | None = None,
) -> None:
    """Put the state of a checkpoint within a stage into what trains it; the weights are in the network already.

    Args:
        state: The checkpoint.
        stage: The stage, as it begins.
        engine: Device, precision, processes.
        average: The moving average of the weights, if the stage has one.
        recorder: Recorder of its gradients, if there is one.
    """
    place = share_of if engine.is_divided else laid_out_like
    load_optimizer_tensors(stage.optimizer, state.take("optimizer"), place)
    if average is not None:
        load_weights(average.network, state.take("average"), "the averaged model")
        average.updates = int(state.values["updates"])
    stage.sampler.load_tensors(state.take("sampler"))
    if recorder is not None and engine.is_main:  # the sums are those of all processes together
        recorder.start(state.tensors.get("dynamics.sums"))
