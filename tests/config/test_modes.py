"""Linear, finetune and lora: what they train, features shared on disk, and a model that is an ordinary one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from longtail.config.build import build as build_config
from longtail.config.build import with_options
from longtail.config.recipes import base_config
from longtail.config.resolve import check_config, complete
from longtail.config.schema import OptimizerConfig, RunConfig, merge
from longtail.console import Reporter
from longtail.data.loading.cache_folder import by_source, cache_entries
from longtail.data.loading.loaders import ResidentLoader
from longtail.device import prepare_torchvision
from longtail.errors import LongtailError
from longtail.experiments.evaluate import evaluate_run
from longtail.run.layout import read_config as config_of
from longtail.run.model_files import load_run
from longtail.training import frozen_features as features
from longtail.training.experiment import resume_run, start_run
from longtail.training.prepared_data import prepare_data
from longtail.training.stages import parameter_groups

prepare_torchvision()

SMALL = {"image_size": 32, "resize": 32, "augmentation": "flip"}


def build(method: str, mode: str, network: str = "timm:test_resnet", **overrides: Any) -> RunConfig:
    """A tiny network of timm on the digits, without published weights."""
    values = base_config(f"images/{method}", epochs=2, mode=mode, model=network)
    tiny = {
        "data": {"source": "digits", "imbalance_ratio": 20} | SMALL, "model": {"pretrained": False},
        "training": {"precision": "fp32"},
    }  # fmt: skip
    return complete(build_config(merge(merge(values, tiny), overrides)))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A cache folder of its own, and the seeds of each pass over images that computes features into it."""
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []
    inner = features.backbone_pass

    def pass_once(*args: Any) -> Any:
        seen.append(str(args[-2]))
        return inner(*args)

    monkeypatch.setattr(features, "backbone_pass", pass_once)
    return seen


def test_linear_mode_trains_on_features_computed_once(counted: list[str], tmp_path: Path, quiet: Reporter) -> None:
    stage = {"cached_views": 2, "epochs": 15, "optimizer": {"lr": 0.02}}
    config = build("mixup-crt", "linear", "plain-cnn", stage1=stage, stage2=stage)
    check_config(config)
    metrics = start_run(config, tmp_path / "run", quiet)
    assert len(counted) == 3  # training images (both views at once), validation, test; stage 2 reads them from disk
    assert metrics["test"]["accuracy"] > 0.15
    before = load_file(tmp_path / "run" / "model.safetensors")
    start_run(config, tmp_path / "again", quiet)
    assert len(counted) == 3  # so does the next run
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(before[key], again[key]) for key in before)


def test_where_only_features_are_needed_no_pixels_are_kept(
    counted: list[str], tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtail.experiments.analyze import analyze_run

    monkeypatch.setattr("longtail.data.loading.cache.SMALLEST_BYTES", 0)
    monkeypatch.setattr(ResidentLoader, "__init__", None)  # nor are they in memory
    start_run(build("ce", "linear", stage1={"cached_views": 2}), tmp_path / "run", quiet)
    evaluate_run(tmp_path / "run")
    analyze_run(tmp_path / "run", projections=())
    (use,) = by_source(cache_entries())
    assert (use.source, use.what) == ("digits", "features of timm:test_resnet")
    images = sum(map(len, prepare_data(config_of(tmp_path / "run").data).data.splits.values()))
    assert use.images == images  # views count once


def test_what_trains_through_the_backbone_keeps_its_pixels(
    counted: list[str], tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longtail.data.loading.cache.SMALLEST_BYTES", 0)
    config = build("mixup-crt", "finetune", "plain-cnn", stage1={"optimizer": {"layer_decay": None}})
    start_run(config, tmp_path / "run", quiet)
    assert counted  # stage 2 is on features
    assert {use.what for use in by_source(cache_entries())} == {"pixels at 32 px"}


def test_other_pixels_have_other_features(counted: list[str], tmp_path: Path, quiet: Reporter) -> None:
    config = build("ce", "linear", stage1={"cached_views": 1})
    start_run(config, tmp_path / "run", quiet)
    config = with_options(config, {"data.mean": [0.4, 0.5, 0.5]})
    start_run(config, tmp_path / "other", quiet)
    assert len(counted) == 6
    config = with_options(config, {"training.seed": 1})
    start_run(config, tmp_path / "seed", quiet)
    assert len(counted) == 9  # a network of other weights, as these are no pretrained ones


def test_evaluation_on_features_is_that_of_the_whole_network(
    counted: list[str], tmp_path: Path, quiet: Reporter
) -> None:
    metrics = start_run(build("gcl", "linear"), tmp_path / "run", quiet)
    again = evaluate_run(tmp_path / "run")
    assert again["accuracy"] == metrics["test"]["accuracy"]
    assert again["nll"] == pytest.approx(metrics["test"]["nll"], rel=1e-4)


def test_finetuning_slows_layers_near_the_image(tmp_path: Path, quiet: Reporter) -> None:
    config = build("fbl", "finetune", data={"image_size": 32, "resize": 40, "augmentation": "random-resized-crop"})
    check_config(config)
    start_run(config, tmp_path / "run", quiet)
    model, _ = load_run(tmp_path / "run")
    groups = parameter_groups(model, OptimizerConfig(layer_decay=0.5, weight_decay=0.05))
    scales = [group["lr_scale"] for group in groups]
    assert scales == sorted(scales)
    assert scales[-1] == 1.0
    assert scales[0] < 0.1
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    unscaled = {group["weight_decay"] for group in groups}
    assert unscaled == {0.0, 0.05}  # none on norms and biases


def test_the_loop_uses_the_scale_of_each_group(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[float, float]] = []
    inner = torch.optim.AdamW.step

    def step(self: Any, *args: Any) -> Any:
        seen.append({group.get("lr_scale", 1.0): group["lr"] for group in self.param_groups})
        return inner(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    start_run(build("ce", "finetune"), tmp_path / "run", quiet)
    top = [step[1.0] for step in seen]
    assert max(top) > 0
    assert all(lr == pytest.approx(scale * step[1.0]) for step in seen for scale, lr in step.items())


def test_a_lora_run_resumes(tmp_path: Path, quiet: Reporter) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    config = build("gcl", "lora", "timm:test_vit", data=SMALL)
    check_config(config)
    start_run(config, tmp_path / "run", quiet)
    model, info = load_run(tmp_path / "run")  # an ordinary transformer
    assert info.model.name == "timm:test_vit"
    assert not any("lora" in name for name in model.state_dict())
    whole = load_file(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / "checkpoint" / "last.safetensors").unlink()  # back to the checkpoint before
    resume_run(config, tmp_path / "run", quiet)
    again = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.allclose(whole[key], again[key], atol=1e-6) for key in whole)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"name": "resnet32"}}, "layer_decay .*timm:"),
        ({"stage1": {"optimizer": {"layer_decay": 1.5}}}, "at most 1"),
        ({"model": {"adapter": "lora"}}, "leave --stage1.optimizer.layer_decay out"),
        ({"stage1": {"mixing": "feature-mixup"}}, "set --stage1.cached_views above 0"),
    ],
)
def test_what_does_not_fit_is_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(LongtailError, match=message):
        build("ce", "finetune", **overrides)


def test_an_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(LongtailError, match="'linear'"):
        base_config("images/ce", mode="liner")


def test_recipes_for_any_images_follow_the_network_and_others_do_not() -> None:
    followed = base_config("images/ce", model="timm:resnet50")["data"]
    assert (followed["image_size"], followed["resize"], followed["mean"][0]) == (224, 236, 0.485)
    assert base_config("images/ce")["mode"] == "linear"
    assert base_config("imagenet-lt/ce", model="timm:resnet18")["mode"] == ""
