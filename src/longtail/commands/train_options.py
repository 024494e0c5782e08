"""From the words of a command line to the configuration of a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from longtail.config.schema import RunConfig
from longtail.errors import UsageError

# Short flags of `train` and the option of the configuration each one sets.
SHORT = {
    "imbalance_ratio": "data.imbalance_ratio",
    "image_column": "data.image_column",
    "label_column": "data.label_column",
    "split_column": "data.split_column",
    "group_column": "data.group_column",
    "folds": "data.folds",
    "seed": "training.seed",
    "tracker": "training.tracker",
    "keep_checkpoints": "training.keep_checkpoints",
}

AUTO = ["--recipe", "auto"]


def training_defaults(words: Sequence[str], takes: Callable[[ArgumentParser], None]) -> dict[str, Any]:
    """Read ahead what decides where every other option starts from: recipe, mode, network, file, epochs, losses."""
    from longtail.config.nested import merge

    _check_words(words)
    config = _start(words, _whole_number(words, "--epochs"), takes)
    batch_size = _whole_number(words, "--batch-size")
    for stage in ("stage1", "stage2"):
        if batch_size is not None:
            config[stage]["batch_size"] = batch_size
        loss = _value(words, f"--{stage}.loss.name")
        if loss is not None:  # another loss than the recipe's starts with options of its own
            config = merge(config, {stage: {"loss": {"name": loss}}})
    return _as_defaults(config)


def _as_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten a configuration into parser defaults: dotted names, with the options of a loss as one value."""
    from longtail.config.nested import flatten

    options = {f"{stage}.loss.options": config[stage]["loss"]["options"] for stage in ("stage1", "stage2")}
    return {key: value for key, value in flatten(config).items() if ".loss.options" not in key} | options


def without_auto(words: Sequence[str]) -> list[str]:
    """Drop ``--recipe auto``, which is what happens without a recipe.

    Example:
        >>> without_auto(["train", "photos", "--recipe", "auto", "--out", "run"])
        ['train', 'photos', '--out', 'run']
    """
    kept = [word for word in words if word != "=".join(AUTO)]
    for index in reversed(range(len(kept))):
        if kept[index : index + 2] == AUTO:
            del kept[index : index + 2]
    return kept


def _start(words: Sequence[str], epochs: int | None, takes: Callable[[ArgumentParser], None]) -> dict[str, Any]:
    from longtail.config.recipes import base_config, is_whole, read_config

    if "--resume" in words:
        return base_config(None, epochs=epochs)
    recipe, mode, file = (_value(words, flag) for flag in ("--recipe", "--mode", "--config"))
    own = {} if file is None else read_config(file)
    if file is not None and is_whole(own):
        for flag, given in (("--mode", mode), ("--recipe", recipe)):
            if given is not None:
                raise UsageError(f"{file} sets everything that {flag} would set: leave out {flag} or --config.")
        return base_config(None, epochs=epochs, own=own | {"reasons": []})  # nothing was chosen automatically
    recipe = recipe or own.pop("recipe", "")
    first = _first_reading(words, own, takes)
    return _completed(words, own, first, recipe if recipe != AUTO[1] else "", mode or own.pop("mode", ""), epochs)


def _completed(
    words: Sequence[str], own: dict[str, Any], first: RunConfig | None, recipe: str, mode: str, epochs: int | None
) -> dict[str, Any]:
    """Complete the options that neither the command line nor a file sets, unless the recipe is for a data set.

    Args:
        words: The command line.
        own: The options of the file, treated as if given as flags.
        first: The configuration that both describe before defaults are chosen; None if they describe no run.
        recipe: The recipe named by either, if any.
        mode: The mode named by either, if any.
        epochs: As ``--epochs``.
    """
    from longtail.config.nested import merge
    from longtail.config.recipes import ANY_IMAGES, base_config, check_recipe, scale_epochs

    own = {key: value for key, value in own.items() if key not in {"recipe", "mode", "reasons"}}
    if recipe:
        check_recipe(recipe, "" if first is None else first.data.source)
    model = _value(words, "--model.name") or own.get("model", {}).get("name")
    if first is None or (recipe and not recipe.startswith(ANY_IMAGES)):
        return base_config(recipe or None, epochs=epochs, mode=mode or None, model=model, own=own)
    from longtail.config.auto import choose
    from longtail.run.folder import refuse_existing
    from longtail.training.machine_facts import look

    refuse_existing(Path(_value(words, "--out") or ""))  # before any image is looked at
    has_size = _value(words, "--data.image_size") is not None or "image_size" in own.get("data", {})
    config, reasons = choose(
        look(first),
        recipe=recipe or None,
        mode=mode or None,
        model=model,
        image_size=first.data.image_size if has_size else None,
        epochs=epochs,
    )
    if epochs is not None and "epochs" in own.get(
        "stage1", {}
    ):  # the choices have that length already; scale the file to it
        own = _same_names(scale_epochs(merge(config, own), epochs), own)
    return merge(config, own) | {"reasons": reasons}


def _same_names(config: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Restrict a configuration to the names that another one has."""
    return {
        key: _same_names(config[key], value) if isinstance(value, dict) and value else config[key]
        for key, value in own.items()
    }


def _first_reading(
    words: Sequence[str], own: dict[str, Any], takes: Callable[[ArgumentParser], None]
) -> RunConfig | None:
    """Parse the command line and a file before defaults are chosen; None if they do not describe a run.

    Errors are reported by the second reading.
    """
    from longtail.config.nested import merge

    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, default_env=False)
    takes(parser)
    parser.set_defaults(_as_defaults(merge(asdict(RunConfig()), own)))
    rest = list(words)
    if "train" in rest:
        rest.remove("train")
    if {"--help", "-h"} & set(rest):
        return None
    try:
        flags = parser.parse_args(rest)
    except ArgumentError:
        return None
    return run_config(flags) if (flags.source or flags.data.source) and flags.out else None


def _check_words(words: Sequence[str]) -> None:
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if "--resume" in given:
        other = [option for option in given if option not in {"--resume", "--moved-to", "--quiet", "--help"}]
        if other:
            raise UsageError(f"--resume goes on with the configuration of the run: leave {other[0]} out.")
    known = groups()
    for option in given:
        group = option.removeprefix("--")
        if group in known:
            member = next(name for name in option_names() if name.startswith(f"{group}."))
            raise UsageError(f"{option} is a group: set options in it, such as --{member}, or use --config FILE.")


def option_names() -> list[str]:
    """The dotted name of every option of a run.

    Example:
        >>> "stage1.optimizer.lr" in option_names()
        True
    """
    from longtail.config.nested import flatten

    return list(flatten(asdict(RunConfig())))


def groups() -> set[str]:
    """Dotted names that hold options and are none themselves: ``data``, ``stage1.loss`` and so on."""
    return {name.rsplit(".", depth)[0] for name in option_names() for depth in range(1, name.count(".") + 1)}


def _value(words: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, as the parser will read it."""
    found = None
    for index, word in enumerate(words):
        if word == flag:
            if index + 1 == len(words) or words[index + 1].startswith("--"):
                raise UsageError(f"{flag} needs a value.")
            found = words[index + 1]
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def _whole_number(words: Sequence[str], flag: str) -> int | None:
    value = _value(words, flag)
    if value is None:
        return None
    if not re.fullmatch(r"[+-]?\d+", value):
        raise UsageError(f"{flag} takes a whole number, got {value!r}.")
    if int(value) < 1:
        raise UsageError(f"{flag} must be at least 1, got {value}.")
    return int(value)


def run_config(flags: Namespace) -> RunConfig:
    """Return the configuration that the flags of ``longtail train`` come to.

    Raises:
        UsageError: No source, or a value of the wrong type.
    """
    from longtail.config.recipes import config_from_dict

    values = {key: _plain(flags[key]) for key in asdict(RunConfig())}
    for short, option in SHORT.items():
        if flags[short] is not None:
            section, name = option.split(".")
            values[section][name] = flags[short]
    values["data"]["source"] = flags.source or values["data"]["source"]
    if not values["data"]["source"]:
        raise UsageError("name the images: longtail train SOURCE --out RUN.")
    config = config_from_dict(values)
    if config.reasons:
        from longtail.config.auto import as_it_came

        config.reasons = as_it_came(config)
    return config


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Namespace) else value
