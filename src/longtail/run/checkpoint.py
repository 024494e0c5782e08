"""Checkpoints: one safetensors file with everything a run needs to continue, replaced whole, the previous one kept."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longtail.errors import LongtailError

Phase = Literal["in a stage", "between stages", "trained"]
"""Where training stood: within a stage (including its last epoch), before the next one, or after the last."""

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"


@dataclass
class TrainingState:
    """Where a run stands: tensors by name, and plain values that fit JSON.

    Attributes:
        tensors: Weights, optimiser state and running sums, flat, by dotted name.
        values: Phase, stage, epoch, step, history and other numbers and strings.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        """Where training stood."""
        phase: Phase = self.values["phase"]
        return phase

    def put(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Add tensors under ``prefix.``; they are copied to contiguous CPU memory."""
        for name, tensor in tensors.items():
            self.tensors[f"{prefix}.{name}"] = tensor.detach().to("cpu", copy=True).contiguous()

    def take(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under ``prefix.``, the prefix removed."""
        start = f"{prefix}."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    """Write the state to ``folder/last.safetensors``; what was there becomes ``previous.safetensors``.

    At every instant ``last.safetensors`` is a whole file: the new one is written under a temporary name, flushed to
    the disk and renamed over it.

    Raises:
        OSError: The disk is full or not writable; the checkpoints that were there are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, previous, new = folder / LAST, folder / PREVIOUS, folder / "new.tmp"
    try:
        save_file(state.tensors, new, metadata={"state": json.dumps(state.values)})
    except (SafetensorError, OSError) as error:
        new.unlink(missing_ok=True)
        # safetensors wraps the error of the operating system; a full disk should read as one.
        raise OSError(f"cannot write {new}: {error}") from error
    with new.open("rb") as file:
        os.fsync(file.fileno())
    if last.exists():
        keep = folder / "previous.tmp"
        keep.unlink(missing_ok=True)
        _link_or_copy(last, keep)
        keep.replace(previous)
    new.replace(last)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoint folder of a finished run, if there is one.

    Raises:
        LongtailError: The system refuses.
    """
    if not folder.is_dir():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LongtailError(
            f"the run in {folder.parent} is complete, but {folder} cannot be removed ({error.strerror or error}): "
            "remove it yourself, or keep it with --keep-checkpoints."
        ) from error


def load_checkpoint(folder: Path) -> TrainingState | None:
    """Read the last checkpoint, the previous one where the last is damaged; None where there is none.

    Raises:
        LongtailError: Both files are damaged.
    """
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    for path in found:
        try:
            return _read(path)
        except (SafetensorError, ValueError, KeyError):
            continue
    if found:
        raise LongtailError(f"every checkpoint in {folder} is damaged; delete {folder.parent} and train again.")
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state tensors of an optimiser by ``parameter index.name``.

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


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put tensors from :func:`optimizer_tensors` back, each in the memory layout of its parameter.

    A file keeps no layout, and a fused optimiser walks parameter and state side by side without looking at theirs.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        laid_out = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_weights(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Load a state dict strictly.

    Raises:
        LongtailError: The names or shapes do not fit: the checkpoint belongs to another model.
    """
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise LongtailError(
            f"the checkpoint does not fit {what} ({reason}); resume with the configuration it was made with."
        ) from error


def _read(path: Path) -> TrainingState:
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()["state"])
        return TrainingState({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
