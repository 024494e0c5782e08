"""Recipes: which exist, what they resolve to, and that every value can say where it comes from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from longtail.config.build import build, read_config_file
from longtail.config.options import flatten
from longtail.config.recipes import base_config, check_recipe, list_recipes, load_recipe, scale_epochs
from longtail.config.schema import RunConfig
from longtail.config.stage import AUTO_LOSS
from longtail.errors import LongtailError
from longtail.losses import build_loss

CIFAR = [
    "ce",
    "mixup",
    "focal",
    "ldam-drw",
    "balanced-softmax",
    "logit-adjustment",
    "mixup-crt",
    "kps",
    "kps-ga",
    "fbl",
    "gcl",
    "gcl-cben",
    "agcl",
    "best",
]
LARGE = ["ce", "kps-ga", "fbl", "gcl", "agcl"]
PROMISED = [f"cifar-lt/{name}" for name in CIFAR] + [
    f"{data}/{name}" for data in ("imagenet-lt", "inaturalist", "places-lt") for name in LARGE
]


def test_every_promised_recipe_exists() -> None:
    assert set(PROMISED) <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_resolves_to_a_typed_configuration_with_losses_that_exist(name: str) -> None:
    recipe = load_recipe(name)
    config = build(recipe.config, name)
    assert recipe.description
    for stage in (config.stage1, config.stage2):
        if stage.loss.name != AUTO_LOSS:
            build_loss(stage.loss.name, [100, 10], stage.loss.options)


@pytest.mark.parametrize("name", PROMISED)
def test_what_a_recipe_sets_has_a_source_and_what_it_leaves_is_the_default(name: str) -> None:
    recipe = load_recipe(name)
    defaults = flatten(asdict(RunConfig()))
    for key, value in flatten(recipe.config).items():
        changed = key not in defaults or value != defaults[key]
        if changed and key not in {"recipe"} and not key.endswith(".loss.options"):
            assert recipe.source_of(key) != "longtail default", key


@pytest.mark.parametrize("name", PROMISED)
def test_published_recipes_keep_every_training_image(name: str) -> None:
    assert load_recipe(name).config["data"]["validation_fraction"] == 0.0


@pytest.mark.parametrize(
    ("name", "stage", "options"),
    [
        ("cifar-lt/gcl", "stage1", {"scale": 30, "noise": 0.5, "margin": 0}),
        ("cifar-lt/gcl", "stage2", {"scale": 20, "noise": 0.5, "margin": 0.1, "focal_gamma": 1}),
        ("places-lt/gcl", "stage1", {"scale": 30, "noise": 1.0, "margin": 0}),
        ("places-lt/gcl", "stage2", {"scale": 15, "noise": 1.0, "margin": 0.1, "focal_gamma": 1}),
        ("places-lt/agcl", "stage1", {"scale": 30, "noise": 0.5, "margin": 0, "easy_margin": True}),
        ("cifar-lt/kps-ga", "stage1", {"scale": 15, "max_margin": 0.2, "adjust_gradients_from": 0.6}),
        ("cifar-lt/kps", "stage1", {"scale": 15, "max_margin": 0.2, "adjust_gradients_from": None}),
        ("cifar-lt/fbl", "stage1", {"strength": 60, "curriculum": "parabolic"}),
        ("imagenet-lt/fbl", "stage1", {"strength": 150, "curriculum": "parabolic"}),
        ("cifar-lt/ldam-drw", "stage1", {"scale": 30, "max_margin": 0.5, "deferred_reweighting": 0.8}),
    ],
)
def test_published_strengths(name: str, stage: str, options: dict[str, object]) -> None:
    assert load_recipe(name).config[stage]["loss"]["options"] == options


def test_mixup_strengths_and_stage_2_of_the_protocol() -> None:
    gcl, places = load_recipe("cifar-lt/gcl").config, load_recipe("places-lt/gcl").config
    assert (gcl["stage1"]["mixing"], gcl["stage1"]["mixing_alpha"]) == ("mixup", 1.0)
    assert places["stage1"]["mixing_alpha"] == 0.2
    assert (gcl["stage2"]["epochs"], gcl["stage2"]["train"], gcl["stage2"]["sampler"]) == (
        30,
        "classifier",
        "class-balanced",
    )
    assert load_recipe("cifar-lt/gcl-cben").config["stage2"]["sampler"] == "cben"
    assert places["model"] | {"head": "auto"} == {
        "name": "timm:resnet152+bottleneck",
        "head": "auto",
        "pretrained": True,
        "weights": "",
        "trainable": ["trunk.layer4.2", "bottleneck"],
        "adapter": "none",
        "adapter_rank": 8,
        "standardize": False,
        "tau": 0.0,
    }


def test_epochs_scale_everything_in_proportion_but_the_warm_up() -> None:
    config = scale_epochs(load_recipe("cifar-lt/gcl").config, 30)
    assert config["stage1"]["epochs"] == 30
    assert config["stage1"]["schedule"]["milestones"] == [24, 27]
    assert config["stage1"]["schedule"]["warmup_epochs"] == 5
    assert config["stage2"]["epochs"] == 5
    assert scale_epochs(load_recipe("cifar-lt/ce").config, 30)["stage2"]["epochs"] == 0


def test_scaling_to_the_recipes_own_length_changes_nothing() -> None:
    config = load_recipe("cifar-lt/gcl").config
    assert scale_epochs(config, 200) == config


def test_epochs_are_those_of_the_first_stage_that_has_any() -> None:
    config = load_recipe("cifar-lt/gcl").config
    config["stage1"]["epochs"] = 0
    assert scale_epochs(config, 10)["stage2"]["epochs"] == 10


def test_stages_before_the_first_that_is_scaled_stay() -> None:
    config = load_recipe("cifar-lt/gcl").config
    scaled = scale_epochs(config, 15, first=2)
    assert scaled["stage1"] == config["stage1"]
    assert scaled["stage2"]["epochs"] == 15


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_shortest_schedules_still_train(epochs: int) -> None:
    config = scale_epochs(load_recipe("cifar-lt/gcl").config, epochs)
    assert config["stage2"]["epochs"] == 1
    assert config["stage1"]["schedule"]["warmup_epochs"] < epochs or epochs == 1


def test_zero_epochs_are_refused() -> None:
    with pytest.raises(LongtailError, match="at least 1"):
        base_config("cifar-lt/ce", epochs=0)


def test_a_misspelled_recipe_names_the_nearest() -> None:
    with pytest.raises(LongtailError, match="cifar-lt/kps-ga"):
        load_recipe("cifar-lt/kpsga")


@pytest.mark.parametrize(
    ("alias", "method"),
    [
        ("softmax", "ce"),
        ("bs", "balanced-softmax"),
        ("la", "logit-adjustment"),
        ("drw", "ldam-drw"),
        ("decoupled", "mixup-crt"),
    ],
)
def test_a_method_is_found_by_what_others_call_it(alias: str, method: str) -> None:
    with pytest.raises(LongtailError, match=f"mean 'cifar-lt/{method}'"):
        check_recipe(alias)
    with pytest.raises(LongtailError, match=f"mean 'images/{method}'"):
        check_recipe(f"images/{alias}")


def test_a_config_file_with_an_unknown_option_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("stage1: {epohcs: 3}\n")
    with pytest.raises(LongtailError, match=r"stage1\.epochs"):
        read_config_file(path)


def test_a_config_file_of_the_wrong_type_is_one_sentence() -> None:
    with pytest.raises(LongtailError, match=r"stage1\.epochs"):
        build({"stage1": {"epochs": "many"}})


def test_a_configuration_survives_the_trip_through_yaml(tmp_path: Path) -> None:
    config = build(load_recipe("cifar-lt/kps-ga").config)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    assert build(read_config_file(path).values) == config


def test_an_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(LongtailError, match="'linear'"):
        base_config("images/ce", mode="liner")


def test_recipes_for_any_images_follow_the_network_and_others_do_not() -> None:
    followed = base_config("images/ce", model="timm:resnet50")["data"]
    assert (followed["image_size"], followed["resize"], followed["mean"][0]) == (224, 235, 0.485)
    assert base_config("images/ce")["mode"] == "linear"
    assert base_config("imagenet-lt/ce", model="timm:resnet18")["mode"] == ""
