"""Checkpoints: whole or absent, the previous one kept, nothing pickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from longtail.errors import LongtailError
from longtail.run import checkpoint
from longtail.run.checkpoint import (
    LAST,
    PREVIOUS,
    TrainingState,
    load_checkpoint,
    load_optimizer_tensors,
    load_weights,
    optimizer_tensors,
    save_checkpoint,
)

VALUES = {
    "phase": "in a stage",
    "stage": 1,
    "epoch": 1,
    "step": 0,
    "history": [],
    "stage_results": {},
    "scale": 1.0,
    "data_hash": "sha256:0",
    "classes": ["ä", "b"],
    "seconds": {"startup": 0.5},
    "updates": 0,
    "loss_scaling": {},
}


def state(value: float) -> TrainingState:
    saved = TrainingState(values=VALUES | {"epoch": int(value)})
    saved.put("model", {"weight": torch.full((3,), value)})
    return saved


def test_values_and_tensors_come_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.values == VALUES
    assert loaded.take("model")["weight"].tolist() == [1.0, 1.0, 1.0]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing") is None


def test_the_previous_one_is_kept_and_used_where_the_last_is_damaged(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        save_checkpoint(tmp_path, state(value))
    folder = tmp_path / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == [LAST, PREVIOUS]
    whole = (folder / LAST).read_bytes()
    (folder / LAST).write_bytes(whole[: len(whole) // 2])
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.values["epoch"] == 2


def test_two_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    for name in (LAST, PREVIOUS):
        (tmp_path / "checkpoint" / name).write_bytes(b"no")
    with pytest.raises(LongtailError, match="train again"):
        load_checkpoint(tmp_path)


def test_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = state(1)
    twice.values["classes"] = ["cat", "cat"]
    save_checkpoint(tmp_path, twice)
    with pytest.raises(LongtailError, match=r"last\.safetensors: 'classes'"):
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, state(1))

    def full(_: object, path: str, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(LongtailError, match="space"):
        save_checkpoint(tmp_path, state(2))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.values["epoch"] == 1
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == [LAST]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(kind: type[torch.optim.Optimizer]) -> None:
    def make() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return layer, kind(layer.parameters(), lr=0.1, **options)

    def step(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    straight, straight_optimizer = make()
    for _ in range(4):
        step(straight, straight_optimizer)
    first, first_optimizer = make()
    step(first, first_optimizer)
    step(first, first_optimizer)
    second, second_optimizer = make()
    second.load_state_dict(first.state_dict())
    load_optimizer_tensors(second_optimizer, optimizer_tensors(first_optimizer))
    step(second, second_optimizer)
    step(second, second_optimizer)
    assert torch.equal(second.weight, straight.weight)


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(LongtailError, match="another model"):
        load_weights(nn.Linear(3, 2), nn.Linear(4, 2).state_dict(), "the model")
