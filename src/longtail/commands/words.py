"""From the words of a command line to the configuration of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jsonargparse import Namespace

from longtail.errors import LongtailError
from longtail.training.config import RunConfig

# Short flags of `train` and the option of the configuration each one sets.
SHORT = {
    "imbalance_ratio": "data.imbalance_ratio",
    "group_column": "data.group_column",
    "seed": "training.seed",
    "tracker": "training.tracker",
}


def training_defaults(words: Sequence[str]) -> dict[str, Any]:
    """Read ahead what decides where every other option starts from: recipe, configuration file, epochs, losses."""
    from longtail.training.recipe import base_config, flatten, merge

    _check_words(words)
    epochs = _value(words, "--epochs")
    if epochs is not None and not re.fullmatch(r"[+-]?\d+", epochs):
        raise LongtailError(f"--epochs takes a whole number, got {epochs!r}.")
    config = base_config(_value(words, "--recipe"), _value(words, "--config"), int(epochs) if epochs else None)
    for stage in ("stage1", "stage2"):
        loss = _value(words, f"--{stage}.loss.name")
        if loss is not None:  # another loss than the recipe's starts with options of its own
            config = merge(config, {stage: {"loss": {"name": loss}}})
    options = {f"{stage}.loss.options": config[stage]["loss"]["options"] for stage in ("stage1", "stage2")}
    return {key: value for key, value in flatten(config).items() if ".loss.options" not in key} | options


def _check_words(words: Sequence[str]) -> None:
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if "--resume" in given:
        other = [option for option in given if option not in {"--resume", "--quiet", "--help"}]
        if other:
            raise LongtailError(f"--resume goes on with the configuration of the run: leave {other[0]} out.")
    known = groups()
    for option in given:
        group = option.removeprefix("--")
        if group in known:
            member = next(name for name in _option_names() if name.startswith(f"{group}."))
            raise LongtailError(f"{option} is a group: set options in it, such as --{member}, or use --config FILE.")


def _option_names() -> list[str]:
    from longtail.training.recipe import flatten

    return list(flatten(asdict(RunConfig())))


def groups() -> set[str]:
    """Dotted names that hold options and are none themselves: ``data``, ``stage1.loss`` and so on."""
    return {name.rsplit(".", depth)[0] for name in _option_names() for depth in range(1, name.count(".") + 1)}


def _value(words: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, as the parser will read it."""
    found = None
    for index, word in enumerate(words):
        if word == flag:
            if index + 1 == len(words) or words[index + 1].startswith("--"):
                raise LongtailError(f"{flag} needs a value.")
            found = words[index + 1]
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def run_config(flags: Namespace) -> RunConfig:
    """Return the configuration that the flags of ``longtail train`` come to.

    Raises:
        LongtailError: No source, or a value of the wrong type.
    """
    from longtail.training.recipe import config_from_dict

    values = {key: _plain(flags[key]) for key in asdict(RunConfig())}
    for short, option in SHORT.items():
        if flags[short] is not None:
            section, name = option.split(".")
            values[section][name] = flags[short]
    values["data"]["source"] = flags.source or values["data"]["source"]
    if not values["data"]["source"]:
        raise LongtailError("name the images: longtail train SOURCE --recipe NAME --out RUN.")
    return config_from_dict(values)


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Namespace) else value
