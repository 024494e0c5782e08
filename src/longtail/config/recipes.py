"""Recipes and modes: named settings in YAML as full configurations, with the source of each value."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import get_args

import yaml

from longtail.config.build import check_value
from longtail.config.options import Count, Mode, Nested, flatten, merge
from longtail.config.schema import defaults
from longtail.config.stage import AUTO_LOSS, section_name
from longtail.errors import UsageError, as_usage, nearest

ANY_IMAGES = "images/"  # the recipes for no data set in particular
MODES: tuple[str, ...] = tuple(filter(None, get_args(Mode)))

# A part of the names of the sources of a family of recipes.
_SOURCES = {"imagenet-lt": "imagenet", "inaturalist": "inat", "places-lt": "places"}

_COSINE = {"name": "cosine", "milestones": [], "factors": []}
_THROUGH_THE_BACKBONE: Nested = {
    "train": "all",
    "epochs": 20,
    "batch_size": 64,
    "schedule": _COSINE | {"warmup_epochs": 2},
}

# What a mode sets of model and stage 1 over a recipe of the family `images`.
_MODES: dict[str, Nested] = {
    # Steps on stored features cost next to nothing, and a cosine classifier needs many.
    "linear": {
        "model": {"pretrained": True},
        "stage1": {
            "train": "classifier",
            "cached_views": 4,
            "epochs": 60,
            "batch_size": 64,
            "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-2},
            "schedule": _COSINE | {"warmup_epochs": 0},
        },
    },
    "finetune": {
        "model": {"pretrained": True},
        "stage1": {
            **_THROUGH_THE_BACKBONE,
            "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.05, "layer_decay": 0.75},
        },
    },
    "lora": {
        "model": {"pretrained": True, "adapter": "lora"},
        "stage1": {
            **_THROUGH_THE_BACKBONE,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
        },
    },
}
# Where the method has a second stage, that is the classifier on stored features in each mode.
_SECOND: Nested = {
    "cached_views": 4,
    "epochs": 20,
    "batch_size": 64,
    "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 1e-2},
}


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    Attributes:
        name: ``DATA/METHOD``.
        description: One sentence.
        paper: Reference of the method; empty for a baseline without one.
        config: The full nested configuration, every value present.
        sources: Where a value comes from, by the longest dotted prefix of its name.
    """

    name: str
    description: str = ""
    paper: str = ""
    config: Nested = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def source_of(self, key: str) -> str:
        """Return where the value of a dotted key comes from.

        Example:
            >>> load_recipe("cifar-lt/gcl").source_of("stage1.epochs")
            'CIFAR-LT protocol (Cao et al. 2019; Li et al. 2022)'
        """
        while key and key not in self.sources:
            key = key.rpartition(".")[0]
        return self.sources.get(key, "longtail default")


def list_recipes() -> list[str]:
    """Return the names of all recipes, sorted.

    Example:
        >>> "cifar-lt/gcl" in list_recipes()
        True
    """
    folders = [each for each in _root().iterdir() if each.is_dir() and not each.name.startswith(("_", "."))]
    recipes = [f"{folder.name}/{file.name}" for folder in folders for file in folder.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in recipes if name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe and fill in every default.

    Args:
        name: ``DATA/METHOD``, for example ``cifar-lt/gcl``.

    Raises:
        UsageError: The recipe is unknown; the nearest right name is given.

    Example:
        >>> load_recipe("cifar-lt/gcl").config["stage2"]["epochs"]
        30
    """
    check_recipe(name)
    raw = _read(name)
    overlay = raw.get("config", {})
    config = merge(merge(defaults(), overlay), {"recipe": name})
    # Only values that the recipe itself sets have its source; the dataclass defaults stay "longtail default".
    options = flatten(overlay).keys()
    sources = {
        key: text
        for key, text in raw.get("sources", {}).items()
        if any(f"{option}.".startswith(f"{key}.") for option in options)
    }
    sources |= {key: "longtail default" for key in flatten(config) if key not in options and key not in sources}
    return Recipe(name, raw.get("description", ""), raw.get("paper", ""), config, sources)


def check_recipe(name: str, source: str = "") -> None:
    """Check that a recipe exists.

    Args:
        name: ``DATA/METHOD``.
        source: SOURCE to train on; recipes that fit it are suggested first.

    Raises:
        UsageError: It does not; similar names are suggested.

    Example:
        >>> check_recipe("gcl", "folder:photos")
        Traceback (most recent call last):
        longtail.errors.UsageError: unknown recipe 'gcl'. Did you mean 'images/gcl', 'cifar-lt/gcl' or ...
    """
    names = list_recipes()
    if name in names:
        return
    small = source in {"", "digits", "mnist5k"} or "cifar" in source.lower()
    first = ["cifar-lt", "images"] if small else ["images", "cifar-lt"]
    first = [folder for folder in _SOURCES if _SOURCES[folder] in source.lower()] + first

    def fit(recipe: str) -> int:
        folder = recipe.partition("/")[0]
        return first.index(folder) if folder in first else len(first) + (folder == "demo")

    aliases = {recipe: _read(recipe).get("aliases", ()) for recipe in names}
    hint = nearest(name, sorted(names, key=fit), aliases=aliases)
    raise UsageError(f"unknown recipe {name!r}.{hint} 'longtail recipes' lists them all.")


def base_config(
    recipe: str | None,
    *,
    epochs: int | None = None,
    mode: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    overlay: Nested | None = None,
) -> Nested:
    """Return the full configuration that further options start from.

    Args:
        recipe: Name of a recipe, or None.
        epochs: Scale everything to this many epochs of the first stage that has any, or None.
        mode: How much of the network is trained, see :func:`with_mode`. The recipes of the family ``images`` are in
            mode ``linear`` where none is given.
        model: The network in place of the recipe's. Those of the family ``images`` take over what a timm network was
            trained on: image size, mean and standard deviation.
        image_size: In place of that size, in pixels.
        overlay: Options laid over the recipe before it is scaled.

    Raises:
        UsageError: The recipe or mode is unknown.

    Example:
        >>> base_config("cifar-lt/gcl", epochs=30)["stage2"]["epochs"]
        5
    """
    config = load_recipe(recipe).config if recipe else defaults()
    any_images = recipe is not None and recipe.startswith(ANY_IMAGES)
    if any_images:
        config = with_model(config, model or config["model"]["name"], image_size)
    if mode or any_images:
        config = with_mode(config, mode or MODES[0])
    config = merge(config, overlay or {})
    return config if epochs is None else scale_epochs(config, epochs)


def scale_epochs(config: Nested, epochs: int, *, first: int = 1) -> Nested:
    """Return the configuration with its first stage at ``epochs`` and everything else in proportion.

    Milestones and the epochs of later stages are multiplied by the same factor and rounded, at least one epoch where
    there was one before. The warm-up stays as long as it is, for what it takes is steps and not a share of a schedule,
    but takes a quarter of the epochs at most.

    Args:
        config: Nested values of a run.
        epochs: Epochs of the first stage that has any.
        first: Number of the stage to begin with; those before it stay as they are.

    Raises:
        UsageError: ``epochs`` is below one.

    Example:
        >>> short = scale_epochs(load_recipe("cifar-lt/gcl").config, 30)
        >>> short["stage1"]["schedule"]["milestones"], short["stage1"]["schedule"]["warmup_epochs"]
        ([24, 27], 5)
        >>> short["stage2"]["epochs"]
        5
    """
    check_value(epochs, Count, "--epochs")
    scaled = copy.deepcopy(config)
    stages = [scaled[section_name(number)] for number in range(first, 4)]
    factor = epochs / next((stage["epochs"] for stage in stages if stage["epochs"]), 1)
    for stage in stages:
        stage["epochs"] = _scaled(stage["epochs"], factor)
        schedule = stage["schedule"]
        schedule["warmup_epochs"] = min(schedule["warmup_epochs"], stage["epochs"] // 4)
        schedule["milestones"] = [_scaled(milestone, factor) for milestone in schedule["milestones"]]
    return scaled


def _scaled(value: int, factor: float) -> int:
    # Half rounds up, so that 4.5 epochs of stage 2 become 5; Python's round() would give 4.
    return max(1, int(value * factor + 0.5)) if value > 0 else 0


def with_mode(config: Nested, mode: str) -> Nested:
    """Lay a mode over a configuration: what each stage trains, for how long, and with which optimizer.

    Args:
        config: Nested values of a run.
        mode: ``linear`` trains the classifier on stored features of the pretrained backbone; ``finetune`` all of the
            pretrained network, layers near the image more slowly; ``lora`` adapters in a transformer; ``scratch``
            leaves the configuration as it is.

    Raises:
        UsageError: The mode is unknown.

    Example:
        >>> linear = with_mode(load_recipe("images/gcl").config, "linear")
        >>> linear["stage1"]["train"], linear["stage1"]["mixing"], linear["model"]["pretrained"]
        ('classifier', 'feature-mixup', True)
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}.{nearest(mode, MODES)}")
    if mode == "scratch":
        return copy.deepcopy(config) | {"mode": mode}
    result = merge(config, _MODES[mode] | {"mode": mode})
    if result["stage1"]["loss"]["name"] == AUTO_LOSS:  # more views take more minutes than they bring points
        result["stage1"]["cached_views"] = 1
    if result["stage2"]["epochs"] > 0:
        result["stage2"] = merge(result["stage2"], _SECOND)
        if result["stage2"]["reset_classifier"]:  # it has as far to go as in stage 1
            rates = (_MODES[mode]["stage1"]["optimizer"]["lr"], _SECOND["optimizer"]["lr"])
            result["stage2"]["optimizer"]["lr"] = max(rates)
    for stage in (result["stage1"], result["stage2"]):
        if stage["cached_views"]:  # images are gone by then: what can be mixed are their features
            stage["mixing"] = "none" if stage["mixing"] == "none" else "feature-mixup"
    return result


def with_model(config: Nested, name: str, image_size: int | None = None) -> Nested:
    """Put another network into a configuration, with the preprocessing that its published weights come with.

    Args:
        config: Nested values of a run.
        name: The network.
        image_size: In place of that size, in pixels.

    Raises:
        UsageError: timm has the network, but no such weights of it.

    Example:
        >>> with_model(base_config(None), "timm:resnet18")["data"]["resize"]
        235
    """
    from longtail.models.timm import timm_inputs

    with as_usage():
        inputs = timm_inputs(name)
    data = {}
    if inputs is not None:
        inputs = inputs.at(image_size)
        data = {
            "image_size": inputs.size,
            "resize": inputs.resize,
            "mean": list(inputs.mean),
            "std": list(inputs.std),
            "interpolation": inputs.interpolation,
            "fit": inputs.fit,
        }
    return merge(config, {"model": {"name": name}, "data": data})


def _root() -> Traversable:
    return files("longtail") / "recipes"


@cache
def _read(name: str) -> Nested:
    """Read one file over everything it extends, left to right."""
    values: Nested = yaml.safe_load((_root() / f"{name}.yaml").read_text(encoding="utf-8"))
    parents = values.pop("extends", [])
    result: Nested = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        result = merge(result, _read(parent))
    return merge(result, values)
