"""Every method in every mode: its loss trains, in as many stages as it has, and only what the mode trains moves."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from longtail.config.build import build
from longtail.config.recipes import base_config
from longtail.config.resolve import check_config, complete
from longtail.config.schema import RunConfig, merge
from longtail.console import Reporter
from longtail.device import prepare_torchvision
from longtail.losses.base import LongTailLoss
from longtail.training.experiment import start_run

prepare_torchvision()

LOSSES = {  # of each stage
    "gcl": ("GCLLoss", "GCLLoss"), "agcl": ("AngularGCLLoss", "AngularGCLLoss"), "kps-ga": ("KPSLoss",),
    "fbl": ("FBLoss",), "logit-adjustment": ("LogitAdjustedLoss",),
    "mixup-crt": ("CrossEntropyLoss", "CrossEntropyLoss"),
}  # fmt: skip
IMAGES = {"train/a": 8, "train/b": 4, "train/c": 2, "test/a": 1, "test/b": 1, "test/c": 1}
CLASSES, RANK = 3, 8


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("peft") is not None:
        import peft  # noqa: F401
    gc.collect()
    gc.freeze()  # as in conftest.py: a collection after each stage would go through all of it
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for folder, count in IMAGES.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / folder / f"{number}.png")
    return root


class Watch:
    """What a training does: losses with their progress, and the tensors that each optimizer moves."""

    def __init__(self) -> None:
        self.progress: dict[str, list[float]] = {}
        self.losses: list[str] = []
        self.moved: dict[int, list[Tensor]] = {}
        self._optimizers: list[Any] = []  # kept, so that no two have the same id

    def loss(self, module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, LongTailLoss) and output.requires_grad:
            name = type(module).__name__
            self.losses.append(name)
            self.progress.setdefault(name, []).append(float(module.progress))

    def step(self, optimizer: Any, *_: Any) -> None:
        self._optimizers.append(optimizer)
        rows = (each for group in optimizer.param_groups for each in group["params"])
        self.moved[id(optimizer)] = [each for each in rows if each.grad is not None and bool(each.grad.any())]


@pytest.fixture
def watch() -> Iterator[Watch]:
    seen = Watch()
    hooks = register_module_forward_hook(seen.loss), register_optimizer_step_pre_hook(seen.step)
    yield seen
    for hook in hooks:
        hook.remove()


def tiny(method: str, mode: str, source: Path) -> RunConfig:
    """Three steps of a transformer of 0.4 million weights, and as many of the second stage."""
    values = base_config(f"images/{method}", epochs=1, mode=mode, model="timm:test_vit", image_size=32)
    stage = {"batch_size": 4, "schedule": {"warmup_epochs": 0}}
    views = [{"cached_views": 1} if values[name]["cached_views"] else {} for name in ("stage1", "stage2")]
    overrides = {
        "data": {"source": str(source), "augmentation": "flip", "resize": 32, "validation_fraction": 0.0, "workers": 0},
        "model": {"pretrained": False}, "training": {"precision": "fp32"}, "stage1": stage | views[0],
        "stage2": stage | views[1],
    }  # fmt: skip
    return complete(build(merge(values, overrides)))


@pytest.mark.parametrize("mode", ["linear", "finetune", "lora", "scratch"])
@pytest.mark.parametrize("method", LOSSES)
def test_every_method_in_every_mode(
    method: str, mode: str, photos: Path, tmp_path: Path, watch: Watch, quiet: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if mode == "lora":
        pytest.importorskip("peft", reason="peft is not installed")
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    config = tiny(method, mode, photos)
    check_config(config)
    metrics = start_run(config, tmp_path / "run", quiet)
    assert metrics["test"]["num_images"] == CLASSES

    stages = LOSSES[method]
    assert len(metrics["stages"]) == len(watch.moved) == len(stages)
    assert dict.fromkeys(watch.losses) == dict.fromkeys(stages)
    for seen in watch.progress.values():
        assert min(seen) == 0
        assert max(seen) > 0.6  # where KPS begins to adjust gradients

    model = load_file(tmp_path / "run" / "model.safetensors")
    assert not any("lora" in name for name in model)
    first, *second = (sorted(each.shape for each in moved) for moved in watch.moved.values())
    head = sorted(each.shape for name, each in model.items() if name.startswith("head."))
    assert second == [head] * len(second)
    everything = sorted(each.shape for each in model.values())
    if mode == "linear":
        assert first == head
    elif mode == "lora":
        assert len(head) < len(first)
        assert all(RANK in shape or shape[0] == CLASSES for shape in first)
    else:
        assert first == everything
    if second:
        before = load_file(tmp_path / "run" / "stage1" / "model.safetensors")
        assert {name.split(".")[0] for name in model if not torch.equal(before[name], model[name])} == {"head"}
