"""Two processes that divide a network's weights among them train what one process trains, and resume one another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ctrl_c import CtrlC
from safetensors.torch import load_file
from torch import nn

from longtail.config.schema import RunConfig
from longtail.console import Interrupted, Reporter
from longtail.errors import UsageError
from longtail.run.checkpoint import load_checkpoint
from longtail.training.launch import resume_run, start_run
from longtail.training.sharding import blocks

Runs = tuple[Path, Path, Path]
OPTIONS: dict[str, Any] = {
    "data": {"augmentation": "crop-flip"},
    "model": {"name": "timm:test_vit", "pretrained": False},
    "stage1": {"epochs": 2, "epoch_share": 0.3, "batch_size": 8, "optimizer": {"lr": 0.05}},
    "training": {"precision": "fp32", "clip_norm": 5.0},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, launch_two: Callable[..., None]) -> Runs:
    """A run by one process; one that two processes went on with; one that they began and one process went on with."""
    from longtail.config.resolve import resolve

    folder, quiet = tmp_path_factory.mktemp("sharding"), Reporter(quiet=True)
    data = {"source": "digits", "image_size": 32, "imbalance_ratio": 20, "validation_fraction": 0.0}
    config = resolve(OPTIONS, {"data": data})
    start_run(config, folder / "one", quiet)
    with pytest.raises(Interrupted):
        start_run(config, folder / "one-two", quiet, callbacks=[CtrlC(1, 1, 10)])
    launch_two(Path(__file__).with_name("sharding_worker.py"), str(folder / "one-two"), str(folder / "two-one"))
    resume_run(config, folder / "two-one", quiet)
    return folder / "one", folder / "one-two", folder / "two-one"


def test_the_weights_are_those_of_one_process(runs: Runs) -> None:
    one, *others = (load_file(run / "model.safetensors") for run in runs)
    for weights in others:
        assert weights.keys() == one.keys()
        for name, values in weights.items():
            torch.testing.assert_close(values, one[name], rtol=0, atol=1e-5)


def test_the_checkpoint_of_two_processes_is_whole(runs: Runs) -> None:
    state = load_checkpoint(runs[1])
    assert state is not None
    assert {name: tuple(values.shape) for name, values in state.take("model").items()} == {
        name: tuple(values.shape) for name, values in load_file(runs[0] / "model.safetensors").items()
    }


def test_blocks_are_the_elements_of_sequences() -> None:
    block = nn.Sequential(nn.Linear(2, 2))
    network = nn.Sequential(nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ReLU(), block)
    assert list(blocks(network)) == [network[0]]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"training": {"compile": True}}, "compile"),
        ({"training": {"ema_decay": 0.9}}, "ema_decay"),
        ({"stage2": {"epochs": 1, "optimizer": {"name": "muon"}}}, "stage2.*muon"),
        ({"stage1": {"loss": {"name": "feature-noise"}}}, "feature-noise"),
        ({"stage1": {"train": "classifier", "cached_views": 1}}, "cached_views"),
    ],
)
def test_what_needs_the_network_whole_is_refused(
    small_config: Callable[..., RunConfig], options: dict[str, Any], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        small_config(**options | {"training": {"shard": True} | options.get("training", {})})
