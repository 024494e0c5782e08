"""Whole runs: what stage 2 begins with, options that must not change the method, and what is refused."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_stage import cpu, make_stage
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from longtail.config.build import build, with_options
from longtail.config.checks import check_config
from longtail.config.options import merge
from longtail.config.recipes import base_config, list_recipes
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.config.stage import StageConfig
from longtail.console import Reporter
from longtail.device import prepare_torchvision
from longtail.errors import LongtailError
from longtail.losses.base import LongTailLoss
from longtail.models.model import build_model
from longtail.run.checkpoint import load_checkpoint
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, Progress, StageRun, train_epoch

Build = Callable[..., RunConfig]


STILL: dict[str, Any] = {"epochs": 1, "optimizer": {"lr": 0.0}}  # a stage that changes nothing by its steps


def without_and_with_stage_2(config: RunConfig, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Weights of a run without its second stage, and of the whole run."""
    reporter = Reporter(quiet=True)
    start_run(with_options(config, {"stage2.epochs": 0}), folder / "first", reporter)
    start_run(config, folder / "both", reporter)
    return [load_file(folder / name / "model.safetensors") for name in ("first", "both")]


def test_stage_2_starts_from_the_classifier_of_stage_1(small_config: Build, tmp_path: Path) -> None:
    first, both = without_and_with_stage_2(small_config("cifar-lt/gcl", stage1={"epochs": 1}, stage2=STILL), tmp_path)
    assert all(torch.equal(first[key], both[key]) for key in first)


def test_crt_starts_the_classifier_anew(small_config: Build, tmp_path: Path) -> None:
    config = small_config("cifar-lt/mixup-crt", stage1={"epochs": 1}, stage2=STILL)
    first, both = without_and_with_stage_2(config, tmp_path)
    assert not torch.equal(first["head.weight"], both["head.weight"])
    assert all(torch.equal(first[key], both[key]) for key in first if key.startswith("backbone"))


def test_the_moving_average_is_the_one_computed_by_hand(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    """One step an epoch, so that the weights after each step are those of a run of that many epochs."""
    weights_by_run = {}
    for name, epochs, decay in (("1", 1, None), ("2", 2, None), ("3", 3, None), ("average", 3, 0.5)):
        stage = {"epochs": epochs, "batch_size": 10_000, "optimizer": {"lr": 0.02, "weight_decay": 0.0}}
        start_run(small_config(stage1=stage, training={"ema_decay": decay}), tmp_path / name, quiet)
        weights_by_run[name] = load_file(tmp_path / name / "model.safetensors")
    second, third = 1 - 2 ** (-2 / 3), 0.5  # 1 - (step)^(-2/3), rising from 0 at the first step to the decay asked for
    for key, value in weights_by_run["average"].items():
        after_two = second * weights_by_run["1"][key] + (1 - second) * weights_by_run["2"][key]
        torch.testing.assert_close(value, third * after_two + (1 - third) * weights_by_run["3"][key])
    assert not torch.equal(weights_by_run["1"]["head.weight"], weights_by_run["3"]["head.weight"])


@pytest.mark.parametrize("training", [{}, {"accumulation": 4}])
def test_a_last_batch_of_one_image_does_not_trouble_batch_normalization(training: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build_model("timm:resnet10t", 3, "linear")  # its last feature map is 1 x 1 for these images
    stage = make_stage(StageConfig(epochs=1, batch_size=8), cpu(**training), model, images=17)
    train_epoch(stage, 0)
    assert stage.steps == 2
    assert stage.meter.sums[2].item() == 17


def test_weights_that_are_not_finite_are_never_saved(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    class Ruin(Callback):
        def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
            if row["epoch"] == 2:
                stage.model.get_parameter("head.weight").data.fill_(float("inf"))

    config = small_config(stage1={"epochs": 3}, data={"validation_fraction": 0.0})
    with pytest.raises(LongtailError, match="finite"):
        start_run(config, tmp_path / "run", quiet, callbacks=[Ruin()])
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state.values["epoch"] == 1


def test_resuming_needs_no_published_weights(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    config = small_config(model={"name": "timm:test_resnet.r160_in1k"}, stage1={"epochs": 1})
    start_run(config, tmp_path / "run", quiet)
    (tmp_path / "run" / "metrics.json").unlink()
    config = with_options(config, {"model.pretrained": True})  # on a hub, which tests never reach: a new run is refused
    with pytest.raises(LongtailError, match="this machine"):
        start_run(config, tmp_path / "new", quiet)
    assert resume_run(config, tmp_path / "run", quiet)["test"]["num_images"] == 359


@pytest.mark.parametrize("steps", [0, 1])
def test_a_loss_that_turns_nan_stops_and_keeps_the_last_good_checkpoint(
    steps: int, small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(stage1={"epochs": 3}, training={"checkpoint_steps": steps})
    from longtail.losses import CrossEntropyLoss

    original = CrossEntropyLoss.forward

    def burst(self: CrossEntropyLoss, *args: Any, **options: Any) -> torch.Tensor:
        value = original(self, *args, **options)
        return value * float("nan") if self.progress > 0.5 else value

    monkeypatch.setattr(CrossEntropyLoss, "forward", burst)
    with pytest.raises(LongtailError, match=r"epoch 2, step \d+, learning rate 0\.02.*--stage1\.optimizer\.lr"):
        start_run(config, tmp_path / "run", quiet)
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert (state.values["stage"], state.values["epoch"]) == (1, 1)
    assert all(tensor.isfinite().all() for tensor in state.take("model").values())


def test_a_cosine_loss_on_a_linear_classifier_is_refused(small_config: Build) -> None:
    with pytest.raises(LongtailError, match=r"--model\.head cosine"):
        small_config("cifar-lt/gcl", model={"head": "linear"})


LARGE = [name for name in list_recipes() if name.split("/")[0] in {"imagenet-lt", "inaturalist", "places-lt"}]


@pytest.mark.parametrize("name", LARGE)
def test_the_large_recipes_run_on_a_stand_in_of_the_same_shape(name: str, quiet: Reporter, tmp_path: Path) -> None:
    """Everything of the recipe but its size: a small timm network, small images, one epoch a stage."""
    from longtail.config.options import merge
    from longtail.config.recipes import base_config

    recipe = base_config(name, epochs=1)
    small = recipe["model"]["name"].replace("resnet50", "test_resnet").replace("resnet152", "test_resnet")
    trainable = [part.replace("layer4.2", "layer4.0") for part in recipe["model"]["trainable"]]
    config = complete(
        build(
            merge(
                recipe,
                {
                    "data": {"source": "digits", "imbalance_ratio": 20, "image_size": 32, "resize": 36},
                    "model": {"name": small, "pretrained": False, "trainable": trainable},
                    "stage1": {"batch_size": 256},
                    "stage2": {"batch_size": 256},
                },
            )
        )
    )
    metrics = start_run(config, tmp_path / "run", quiet)
    assert metrics["test"]["num_images"] == 359
    expected = {"stage1", "stage2"} if recipe["stage2"]["epochs"] else {"stage1"}
    assert set(metrics["stages"]) == expected


def test_checkpoints_within_an_epoch_are_no_part_of_its_time(
    small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only saving moves: every save takes 1,000 seconds."""
    from longtail.run import checkpoint

    real, late = time.perf_counter, [0.0]

    def saving(*args: Any, **options: Any) -> None:
        late[0] += 1000.0

    monkeypatch.setattr(time, "perf_counter", lambda: real() + late[0])
    monkeypatch.setattr(checkpoint, "save_checkpoint", saving)
    metrics = start_run(small_config(epochs=1, training={"checkpoint_steps": 2}), tmp_path / "run", quiet)
    assert metrics["seconds"]["saving"] >= 2000
    assert metrics["seconds"]["stage1"] < 1000


@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cl") is None, reason="torch.compile needs a compiler")
def test_a_compiled_run_ends_where_the_plain_one_does_and_compiles_nothing_within_an_epoch(
    small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress, noise, mixup, a short last batch and the second stage included; without code generation, for speed."""
    from torch._dynamo.utils import counters

    config = small_config("cifar-lt/gcl", epochs=2, training={"precision": "bf16"})
    start_run(config, tmp_path / "plain", quiet)
    config = with_options(config, {"training.compile": True})
    captured = partial(torch.compile, backend="aot_eager", dynamic=False)
    monkeypatch.setattr(torch, "compile", lambda module, **_: captured(module))
    graphs: list[tuple[int, int]] = []

    class Count(Callback):
        before = 0

        def on_step_begin(self, stage: StageRun, progress: Progress) -> None:
            if progress.step == 0:
                self.before = counters["stats"]["unique_graphs"]

        def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
            graphs.append((self.before, counters["stats"]["unique_graphs"]))

    metrics = start_run(config, tmp_path / "compiled", quiet, callbacks=[Count()])
    assert len(graphs) == 3
    assert graphs[0][0] > 0  # compiled before the first epoch ...
    assert all(before == after for before, after in graphs)  # ... and never within one
    assert metrics["seconds"]["compile"] > 0
    plain, compiled = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[key], compiled[key], atol=0.03) for key in plain)


@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cl") is None, reason="torch.compile needs a compiler")
def test_generated_code_trains_as_the_plain_network(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    stage = {"epochs": 1, "batch_size": 64, "epoch_share": 0.4, "mixing": "none"}
    runs = {}
    for compiled in (False, True):
        config = small_config("cifar-lt/ce", stage1=stage, training={"compile": compiled})
        start_run(config, tmp_path / str(compiled), quiet)
        runs[compiled] = load_file(tmp_path / str(compiled) / "model.safetensors")
    assert all(torch.allclose(runs[False][name], runs[True][name], atol=1e-4) for name in runs[False])


prepare_torchvision()

LOSSES = {  # of each stage
    "gcl": ("GCLLoss", "GCLLoss"),
    "agcl": ("AngularGCLLoss", "AngularGCLLoss"),
    "kps-ga": ("KPSLoss",),
    "fbl": ("FBLoss",),
    "logit-adjustment": ("LogitAdjustedLoss",),
    "mixup-crt": ("CrossEntropyLoss", "CrossEntropyLoss"),
}
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
        "model": {"pretrained": False},
        "training": {"precision": "fp32"},
        "stage1": stage | views[0],
        "stage2": stage | views[1],
    }
    return complete(build(merge(values, overrides)))


@pytest.mark.parametrize("mode", ["linear", "finetune", "lora", "scratch"])
@pytest.mark.parametrize("method", LOSSES)
def test_every_method_in_every_mode(
    method: str,
    mode: str,
    photos: Path,
    tmp_path: Path,
    watch: Watch,
    quiet: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
