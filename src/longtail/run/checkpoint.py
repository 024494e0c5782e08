"""Checkpoints: one safetensors file with everything a run needs to continue, replaced whole, the previous one kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import torch
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longtail.analysis.dynamics import BINS
from longtail.errors import LongtailError
from longtail.files import remove, write_json, writing
from longtail.run.dynamics import SUMS
from longtail.run.layout import CHECKPOINT_FOLDER, TRACKER_FILE
from longtail.run.model_files import check_weights
from longtail.run.result import Count, Metrics
from longtail.run.tables import EpochRow
from longtail.validation import FormatError, parse_json, read_json, require_format, validate

CHECKPOINT_FORMAT: Final = 1
LAST: Final = "last.safetensors"
PREVIOUS: Final = "previous.safetensors"

Phase: TypeAlias = Literal["in a stage", "between stages", "trained"]
"""Where training stood: within a stage (including its last epoch), before the next one, or after the last."""


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("names should differ")
    return names


class _Values(BaseModel):
    """The plain values of a checkpoint. An older version kept no phase, classes, updates and loss scaling."""

    stage: Annotated[int, Field(ge=1, le=4)]
    epoch: Count
    step: Count
    history: list[EpochRow]
    stage_results: dict[Annotated[str, Field(pattern="^stage[123]$")], dict[str, Metrics]]
    scale: float
    data_hash: str
    seconds: dict[str, float] = {}
    draws: dict[str, dict[str, list[Count]]] = {}
    phase: Phase | None = None
    classes: Annotated[list[str], AfterValidator(_distinct)] | None = None
    updates: Count = 0
    loss_scaling: dict[str, float | int] = {}


@dataclass
class TrainingState:
    """The state of a run: tensors by name, and plain values that fit JSON.

    Attributes:
        tensors: Weights, optimizer state and running sums, flat, by dotted name.
        values: Phase, stage, epoch, step, history and other numbers and strings.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def put(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Add tensors under ``prefix.``; they are copied to contiguous CPU memory."""
        for name, tensor in tensors.items():
            self.tensors[f"{prefix}.{name}"] = tensor.detach().to("cpu", copy=True).contiguous()

    def take(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under ``prefix.``, the prefix removed."""
        start = f"{prefix}."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


def save_checkpoint(run: Path, state: TrainingState) -> None:
    """Write the state to ``RUN/checkpoint/last.safetensors``; what was there becomes ``previous.safetensors``.

    At every instant ``last.safetensors`` is a whole file.

    Raises:
        LongtailError: The disk is full or not writable; the checkpoints that were there are untouched.
    """
    folder = run / CHECKPOINT_FOLDER
    last = folder / LAST
    values = {"format": CHECKPOINT_FORMAT, **state.values}
    with writing(last) as file:
        try:
            save_file(state.tensors, file.name, metadata={"state": json.dumps(values)})
        except SafetensorError as error:  # it wraps the error of the operating system; a full disk should read as one
            raise OSError(f"cannot write {last}: {error}") from error
        if last.exists():
            keep = folder / "previous.tmp"
            keep.unlink(missing_ok=True)
            try:
                os.link(last, keep)
            except OSError:  # a file system without hard links
                shutil.copyfile(last, keep)
            keep.replace(folder / PREVIOUS)


def remove_checkpoints(run: Path) -> None:
    """Remove the checkpoints of a finished run, if there are any.

    Raises:
        LongtailError: The system refuses.
    """
    remove(run / CHECKPOINT_FOLDER, "the run is complete, so remove it yourself, or keep it with --keep-checkpoints")


def load_checkpoint(run: Path) -> TrainingState | None:
    """Read the last checkpoint, the previous one where the last is damaged; None where there is none.

    Raises:
        FormatError: It has a newer format.
        LongtailError: Both files are damaged.
    """
    remedy, problem = f"delete {run} and train again", None
    for name in (LAST, PREVIOUS):
        path = run / CHECKPOINT_FOLDER / name
        try:
            return _read(path, remedy)
        except FileNotFoundError:
            continue
        except FormatError:
            raise
        except (SafetensorError, OSError) as error:
            problem = problem or LongtailError(f"{path} is damaged ({error}): {remedy}.")
        except LongtailError as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return None


def _read(path: Path, remedy: str) -> TrainingState:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("state", "")
        raw = parse_json(text, path, remedy)
        require_format(path, raw.get("format") if isinstance(raw, dict) else None, CHECKPOINT_FORMAT)
        stored = validate(TypeAdapter(_Values), text.encode(), path, remedy)
        values = stored.model_dump(exclude_unset=True, by_alias=True)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    classes = values.get("classes")
    for name, shape in (("meter.sums", (4,)), ("dynamics.sums", (len(classes) if classes else None, SUMS + BINS))):
        given = tuple(tensors[name].shape) if name in tensors else shape
        if len(given) != len(shape) or any(size not in {None, got} for size, got in zip(shape, given, strict=True)):
            raise LongtailError(f"{path}: the shape of {name!r} should be {shape}, not {given}: {remedy}.")
    return TrainingState(tensors, values)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state tensors of an optimizer by ``parameter index.name``.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> sgd = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
        >>> weight.sum().backward(); sgd.step()
        >>> optimizer_tensors(sgd)
        {'0.momentum_buffer': tensor([1.])}
    """
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, slots in state.items()
        for name, value in slots.items()
        if isinstance(value, Tensor)
    }


def laid_out_like(values: Tensor, parameter: Tensor) -> Tensor:
    """Return values of the shape of a parameter in its memory layout, and on its device; others as they are.

    A file keeps no layout, and a fused optimizer walks parameter and state side by side without looking at theirs.
    """
    if values.shape != parameter.shape:
        return values
    return torch.empty_like(parameter, dtype=values.dtype).copy_(values)


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    place: Callable[[Tensor, Tensor], Tensor] = laid_out_like,
) -> None:
    """Put tensors from :func:`optimizer_tensors` back.

    Args:
        optimizer: Of the same parameters.
        tensors: By ``parameter index.name``.
        place: Puts a tensor where the state of a parameter is.

    Raises:
        LongtailError: They are of another optimizer or model.
    """
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = {str(index): parameter for index, parameter in enumerate(ordered)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        like = parameters.get(index)
        if like is None or value.shape not in {like.shape, ()} or value.is_complex():
            raise LongtailError(
                f"the checkpoint does not fit the optimizer ({key[:60]!r} is {tuple(value.shape)}); resume with the "
                "configuration it was made with."
            )
        state.setdefault(int(index), {})[name] = place(value, like)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_weights(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Load a state dict strictly.

    Raises:
        LongtailError: The names or shapes do not fit: the checkpoint belongs to another model.
    """
    check_weights(module, tensors, f"the checkpoint of {what}")
    module.load_state_dict(tensors)


class Tracker(BaseModel):
    """The contents of ``tracker.json``: which run of which experiment tracker a run continues."""

    tracker: str
    run: str


def write_tracker(run: Path, tracker: Tracker) -> None:
    """Write ``tracker.json``.

    Raises:
        LongtailError: The disk refuses.
    """
    write_json(run / TRACKER_FILE, tracker.model_dump())


def read_tracker(run: Path) -> Tracker | None:
    """Read ``tracker.json``; None without the file.

    Raises:
        LongtailError: The file is damaged.
    """
    path = run / TRACKER_FILE
    return read_json(path, TypeAdapter(Tracker), "delete it to begin a new run there") if path.is_file() else None
