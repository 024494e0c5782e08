"""Values that no run can use, and parts that do not fit together, are refused before anything is read."""

from __future__ import annotations

from typing import Any

import pytest
from mode_config import mode_config

from longtail.config.build import build
from longtail.config.checks import check_config
from longtail.config.options import merge
from longtail.config.recipes import base_config, list_recipes, load_recipe
from longtail.config.schema import RunConfig
from longtail.errors import LongtailError, UsageError


def changed(key: str, value: Any) -> RunConfig:
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return build(nested)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_size", 0),
        ("data.resize", 31),
        ("data.few", 102),
        ("data.crop_padding", -1),
        ("data.test_fraction", 1.0),
        ("data.validation_fraction", -0.1),
        ("data.subset_seed", -1),
        ("data.split_seed", -1),
        ("data.workers", -1),
        ("data.resident_gigabytes", -0.1),
        ("data.imbalance_ratio", 0.99),
        ("training.seed", -1),
        ("training.accumulation", 0),
        ("training.clip_norm", 0.0),
        ("training.ema_decay", 1.0),
        ("training.validate_every", -1),
        ("training.checkpoint_steps", -1),
        ("stage1.epochs", -1),
        ("stage2.batch_size", 0),
        ("stage1.mixing_alpha", 0.0),
        ("stage2.optimizer.lr", -0.1),
        ("stage1.optimizer.momentum", -0.1),
        ("stage1.optimizer.weight_decay", -0.1),
        ("stage2.schedule.warmup_epochs", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(LongtailError, match=rf"--{key} must be .*got {value}"):
        check_config(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_size", 1),
        ("data.resize", 32),
        ("data.many", 19),
        ("data.few", 101),
        ("data.test_fraction", 0.0),
        ("data.imbalance_ratio", 1.0),
        ("data.imbalance_ratio", None),
        ("training.clip_norm", None),
        ("training.ema_decay", 0.0),
        ("stage1.optimizer.lr", 0.0),
        ("data.resident_gigabytes", 0.0),
    ],
)
def test_a_value_at_the_edge_is_taken(key: str, value: float | None) -> None:
    check_config(changed(key, value))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stage1": {"sampler": "shufle"}}, "mean 'shuffle'"),
        ({"data": {"fit": "pad", "image_size": 32, "resize": 8}}, "--data.resize"),
        ({"stage1": {"loss": {"name": "glc"}}}, "mean 'gcl'"),
        ({"stage1": {"loss": {"name": "gcl", "options": {"nose": 1}}}}, "mean 'noise'"),
        ({"stage1": {"loss": {"options": {"scale": -1}}}}, "scale .*above 0"),
        ({"stage1": {"loss": {"options": {"reduction": "sum"}}}}, "reduction .*'mean'"),
        ({"stage1": {"loss": {"name": "gcl"}}, "model": {"head": "linear"}}, "--model.head cosine"),
        ({"stage2": {"epochs": 1, "loss": {"name": "gcl"}}}, "'gcl' .*stage2 .* --model.head cosine"),
        ({"model": {"name": "resnet33"}}, "mean 'resnet32'"),
        ({"model": {"name": "resnet32", "pretrained": True}, "mode": "linear"}, "--mode linear .* --mode scratch"),
        ({"stage1": {"optimizer": {"nesterov": True, "momentum": 0.0}}}, "needs momentum"),
        ({"stage1": {"image_sizes": [32, 64]}}, "down from"),
        ({"stage1": {"image_sizes": [16, 32]}, "model": {"name": "timm:vgg11"}}, "16 pixels: .* to 32"),
        ({"stage1": {"image_sizes": [8, 16, 24, 32]}, "training": {"compile": True}}, "3 different"),
    ],
)
def test_names_and_what_has_to_fit_together(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LongtailError, match=words):
        check_config(build(values))


@pytest.mark.parametrize(
    ("recipe", "values", "words"),
    [
        ("cifar-lt/mixup-crt", {"stage2": {"train": "scales"}}, "--stage2.reset_classifier false"),
        ("images/gcl", {"stage2": {"train": "scales"}, "model": {"standardize": True}}, "standardize"),
        ("images/gcl", {"stage1": {"train": "scales"}}, "--stage1.train scales"),
    ],
)
def test_scales_are_for_a_classifier_that_is_trained_and_stays(recipe: str, values: dict[str, Any], words: str) -> None:
    config = base_config(recipe, mode="linear" if recipe.startswith("images") else None)
    with pytest.raises(UsageError, match=words):
        check_config(build(merge(config, values)))


def test_an_unknown_fit_is_refused_with_those_there_are() -> None:
    with pytest.raises(LongtailError, match=r"data\.fit.*'stretch'"):
        build({"data": {"fit": "strech"}})


def test_a_stage_that_is_left_out_may_hold_anything() -> None:
    check_config(build({"stage2": {"epochs": 0, "loss": {"name": "gcl"}, "sampler": "none"}}))


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_passes(name: str) -> None:
    check_config(build(load_recipe(name).config))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"name": "resnet32"}}, "layer_decay .*timm:"),
        ({"stage1": {"optimizer": {"layer_decay": 1.5}}}, "at most 1"),
        ({"model": {"adapter": "lora"}}, "leave --stage1.optimizer.layer_decay out"),
        ({"stage1": {"mixing": "feature-mixup"}}, "set --stage1.cached_views above 0"),
        ({"stage1": {"optimizer": {"sgd_lr": 0.1}}}, "sgd_lr .*optimizer.name muon"),
    ],
)
def test_what_does_not_fit_is_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(LongtailError, match=message):
        mode_config("ce", "finetune", **overrides)
