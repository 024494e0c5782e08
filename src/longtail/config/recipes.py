"""Recipes: named settings in YAML, resolved into a full configuration with the source of each value."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from longtail.config.modes import MODES, with_mode, with_model
from longtail.config.nested import Nested, flatten, merge
from longtail.config.parse_errors import explain
from longtail.config.schema import RunConfig
from longtail.config.yaml_document import Document, read_yaml
from longtail.errors import LongtailError, UsageError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


ANY_IMAGES = "images/"  # the recipes for no data set in particular


_SOURCES = {
    "imagenet-lt": "imagenet",
    "inaturalist": "inat",
    "places-lt": "places",
}  # part of the names of their sources


# Options that are chosen automatically and stored in the config.yaml of every run, also by old versions.
_CHOSEN = frozenset(
    {
        "recipe",
        "model.name",
        "model.pretrained",
        "data.image_size",
        "data.resize",
        "data.mean",
        "data.std",
        "data.augmentation",
    }
    | {
        f"{stage}.{option}"
        for stage in ("stage1", "stage2")
        for option in (
            "epochs",
            "batch_size",
            "train",
            "mixing",
            "loss.name",
            "optimizer.name",
            "optimizer.lr",
            "optimizer.weight_decay",
            "schedule.name",
            "schedule.warmup_epochs",
        )
    }
)


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
        """Say where the value of a dotted key comes from.

        Example:
            >>> load_recipe("cifar-lt/gcl").source_of("stage1.epochs")
            'CIFAR-LT protocol (Cao et al. 2019; Li et al. 2022)'
        """
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            prefix = ".".join(parts[:length])
            if prefix in self.sources:
                return self.sources[prefix]
        return "longtail default"


def list_recipes() -> list[str]:
    """Return the names of all recipes, sorted.

    Example:
        >>> "cifar-lt/gcl" in list_recipes()
        True
    """
    names = []
    for folder in _root().iterdir():
        if folder.is_dir() and not folder.name.startswith(("_", ".")):
            names += [f"{folder.name}/{f.name.removesuffix('.yaml')}" for f in folder.iterdir() if _is_yaml(f)]
    return sorted(names)


def load_recipe(name: str) -> Recipe:
    """Read a recipe and fill in every default.

    Args:
        name: ``DATA/METHOD``, for example ``cifar-lt/gcl``.

    Raises:
        UsageError: There is no such recipe; the nearest right name is given.

    Example:
        >>> load_recipe("cifar-lt/gcl").config["stage2"]["epochs"]
        30
    """
    check_recipe(name)
    raw = _read(name)
    overlay = raw.get("config", {})
    check_keys(overlay, asdict(RunConfig()), f"recipe {name}")
    config = merge(merge(asdict(RunConfig()), overlay), {"recipe": name})
    # Only values that the recipe itself sets have its source; the dataclass defaults stay "longtail default".
    prefixes = set(flatten(overlay))
    sources = {key: text for key, text in raw.get("sources", {}).items() if _touches(key, prefixes)}
    sources |= {key: "longtail default" for key in flatten(config) if key not in prefixes and key not in sources}
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
        longtail.errors.UsageError: there is no recipe 'gcl'. Did you mean 'images/gcl', 'cifar-lt/gcl' or ...
    """
    known = list_recipes()
    if name in known:
        return
    small = source in {"", "digits", "mnist5k"} or "cifar" in source.lower()
    first = ["cifar-lt", "images"] if small else ["images", "cifar-lt"]
    first = [folder for folder in _SOURCES if _SOURCES[folder] in source.lower()] + first

    def fit(recipe: str) -> int:
        folder = recipe.partition("/")[0]
        return first.index(folder) if folder in first else len(first) + (folder == "demo")

    hint = nearest(name, sorted(known, key=fit))
    raise UsageError(f"there is no recipe {name!r}.{hint} 'longtail recipes' lists them all.")


def base_config(
    recipe: str | None,
    config_file: str | Path | None = None,
    epochs: int | None = None,
    *,
    mode: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    own: Nested | None = None,
) -> Nested:
    """Return the full configuration that further options start from.

    Args:
        recipe: Name of a recipe, or None.
        config_file: A ``config.yaml``, laid over the recipe; or None.
        epochs: Scale everything to this many epochs of stage 1, or None.
        mode: How much of the network is trained, see :func:`longtail.config.modes.with_mode`. The recipes of the
            family ``images`` are in mode ``linear`` where none is given.
        model: The network in place of the recipe's. Those of the family ``images`` take over what a timm network was
            trained on: image size, mean and standard deviation.
        image_size: In place of that size, in pixels.
        own: The contents of such a file, if it was read already.

    Raises:
        LongtailError: No such recipe or file, or a file with an unknown option or a value of the wrong type.

    Example:
        >>> base_config("cifar-lt/gcl", epochs=30)["stage2"]["epochs"]
        5
    """
    config = load_recipe(recipe).config if recipe else asdict(RunConfig())
    any_images = recipe is not None and recipe.startswith(ANY_IMAGES)
    if any_images:
        config = with_model(config, model or config["model"]["name"], image_size)
    if mode is not None or any_images:
        config = with_mode(config, mode or MODES[0])
    if config_file is not None:
        own = read_config(config_file)
    config = merge(config, own or {})
    return config if epochs is None else scale_epochs(config, epochs)


def read_config(path: str | Path) -> Nested:
    """Read a ``config.yaml`` and check its names and value types.

    Raises:
        LongtailError: The file is missing, is not YAML, has an unknown option or a value of the wrong type; the line
            and column are named.
    """
    document = read_yaml(path, "the configuration file of a run")
    values: Any = document.values
    if not isinstance(values, dict):
        raise LongtailError(f"{path} holds no configuration; name the configuration file of a run.")
    config_from_dict(values, document)
    return dict(values)


def is_whole(own: Nested) -> bool:
    """Whether a configuration sets every option that could be chosen automatically, as ``config.yaml`` of a run does.

    Such a configuration is trained unchanged. In any other, missing options are chosen as on the command line.

    Example:
        >>> is_whole(load_recipe("cifar-lt/ce").config), is_whole({"data": {"image_size": 64}})
        (True, False)
    """
    return flatten(own).keys() >= _CHOSEN


def config_from_dict(values: Nested, where: str | Document = "") -> RunConfig:
    """Build the typed configuration; every value is checked against its type.

    Args:
        values: Nested values; what is left out has its default.
        where: The file they come from, for the error; empty for the command line.

    Raises:
        LongtailError: An unknown name or a value of the wrong type; from the command line, a :class:`UsageError`.

    Example:
        >>> config_from_dict({"stage1": {"epochs": 3}}).stage1.epochs
        3
    """
    from jsonargparse import ArgumentError

    check_keys(values, asdict(RunConfig()), where or "the configuration")
    parser = _config_parser()
    try:
        parsed = parser.parse_object({"run": values})
    except ArgumentError as error:
        message = str(error.message)
        reason = explain(message, lambda key: key.removeprefix("run."))
        key = re.search(r'Parser key "run\.([^"]+)"', message)
        at = place_of(where, key.group(1) if key else "")
        raise (LongtailError(f"{at}: {reason}") if at else UsageError(reason)) from error
    config: RunConfig = parser.instantiate(parsed).run
    return config


def place_of(where: str | Document, key: str) -> str:
    """The start of an error about an option: its file, with line and column if known."""
    return where.at(key) if isinstance(where, Document) else where


@cache
def _config_parser() -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(RunConfig, "run")
    return parser


def scale_epochs(config: Nested, epochs: int) -> Nested:
    """Return the configuration with stage 1 at ``epochs`` and everything else in proportion.

    Warm-up, milestones and the epochs of stage 2 are multiplied by the same factor and rounded, at least one epoch
    where there was one before.

    Raises:
        UsageError: ``epochs`` is below one.

    Example:
        >>> short = scale_epochs(load_recipe("cifar-lt/gcl").config, 30)
        >>> short["stage1"]["schedule"]["milestones"], short["stage2"]["epochs"]
        ([24, 27], 5)
    """
    if epochs < 1:
        raise UsageError(f"--epochs must be at least 1, got {epochs}.")
    factor = epochs / max(config["stage1"]["epochs"], 1)
    scaled = copy.deepcopy(config)
    for stage in (scaled["stage1"], scaled["stage2"]):
        stage["epochs"] = _scaled(stage["epochs"], factor)
        schedule = stage["schedule"]
        schedule["warmup_epochs"] = min(_scaled(schedule["warmup_epochs"], factor), max(stage["epochs"] - 1, 0))
        schedule["milestones"] = [_scaled(milestone, factor) for milestone in schedule["milestones"]]
    return scaled


def _scaled(value: int, factor: float) -> int:
    # Half rounds up, so that 4.5 epochs of stage 2 become 5; Python's round() would give 4.
    return max(1, int(value * factor + 0.5)) if value > 0 else 0


def check_keys(
    given: Nested, known: Nested, where: str | Document, prefix: str = "", names: Sequence[str] = ()
) -> None:
    """Raise LongtailError for the first key that does not exist, naming the nearest right one.

    Args:
        given: Nested values.
        known: The same with every valid key.
        where: The file they come from, for the error.
        prefix: Prefix of the keys, for a part of a configuration.
        names: Dotted names to suggest; those of ``known`` when not given.

    Example:
        >>> check_keys({"epohcs": 3}, {"epochs": 1}, "config.yaml")
        Traceback (most recent call last):
        longtail.errors.LongtailError: config.yaml has an unknown option 'epohcs'. Did you mean 'epochs'?
    """
    names = names or list(flatten(known))
    for key, value in ((str(key), value) for key, value in given.items()):
        name, at = prefix + key, place_of(where, prefix + key)
        if key not in known:
            choices = [option for option in names if option != "reasons"]
            raise LongtailError(f"{at} has an unknown option {name[:80]!r}.{nearest(name[:80], choices)}")
        if isinstance(known[key], dict) and not isinstance(value, dict):
            raise LongtailError(f"{at}: {name} takes names with values, got {_shown(value)}.")
        if isinstance(value, dict) and isinstance(known[key], dict) and key != "options":
            check_keys(value, known[key], where, f"{name}.", names)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _root() -> Traversable:
    return files("longtail") / "recipes"


def _is_yaml(entry: Traversable) -> bool:
    return entry.name.endswith(".yaml")


@cache
def _load_yaml(name: str) -> Nested:
    text = (_root() / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _read(name: str) -> Nested:
    """Read one file over everything it extends, left to right."""
    own = _load_yaml(name)
    parents = own.get("extends", [])
    result: Nested = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        result = merge(result, _read(parent))
    return merge(result, {key: value for key, value in own.items() if key != "extends"})


def _touches(key: str, prefixes: set[str]) -> bool:
    return any(prefix == key or prefix.startswith(f"{key}.") for prefix in prefixes)
