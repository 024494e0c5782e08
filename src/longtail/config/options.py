"""Options by dotted names: groups of them, their ranges, and the nested values that they stand for."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

Nested: TypeAlias = dict[str, Any]
"""Options of a run by name, those of a group in a dictionary of their own."""

WholeNumber = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Gt(0), Le(1)]

Augmentation = Literal["none", "flip", "crop", "crop-flip", "random-resized-crop"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["crop", "pad", "stretch"]
Policy = Literal["none", "auto-augment", "rand-augment"]
Tracker = Literal["none", "tensorboard", "mlflow", "wandb", "trackio"]
Mixing = Literal["none", "mixup", "cutmix", "remix", "cmo", "feature-mixup"]
EngineName = Literal["auto", "torch", "openvino"]
Metric = Literal["balanced", "accuracy", "macro-f1", "worst-group"]
Mode = Literal["", "linear", "finetune", "lora", "scratch"]


class OptionGroup:
    """Options by name; a name that is not among them is an error."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def groups_of(group: type[Any], prefix: str = "") -> dict[str, type[Any]]:
    """Return a group of options and all groups below it, by the prefix of their options' names.

    Example:
        >>> from longtail.config.stage import StageConfig
        >>> list(groups_of(StageConfig, "stage1."))
        ['stage1.', 'stage1.loss.', 'stage1.optimizer.', 'stage1.schedule.']
    """
    groups = {prefix: group}
    for name, kind in types_of(group).items():
        if isinstance(kind, type) and is_dataclass(kind):
            groups |= groups_of(kind, f"{prefix}{name}.")
    return groups


def types_of(group: type[Any]) -> dict[str, Any]:
    """Return the type of each field of a group of options, with its range.

    Example:
        >>> from longtail.config.stage import LossConfig
        >>> list(types_of(LossConfig))
        ['name', 'options']
    """
    hints = get_type_hints(group, include_extras=True)
    return {name: kind for name, kind in hints.items() if get_origin(kind) is not ClassVar}


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the words that a type allows, where it allows only some.

    Example:
        >>> choices_of(Tracker | None), choices_of(Fraction)
        (('none', 'tensorboard', 'mlflow', 'wandb', 'trackio'), ())
    """
    parts = get_args(kind)
    if all(isinstance(part, str) for part in parts):
        return tuple(filter(None, parts))
    return next(filter(None, map(choices_of, parts)), ())


def merge(base: Nested, overlay: Nested) -> Nested:
    """Return ``base`` with the values of ``overlay`` laid over it, nested dictionaries merged.

    A loss that changes its name starts with fresh options: those of another loss would not fit it.

    Example:
        >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 5}})
        {'a': {'b': 5, 'c': 2}}
    """
    result = copy.deepcopy(base)
    if {"name", "options"} <= result.keys() and overlay.get("name", result["name"]) != result["name"]:
        result["options"] = {}
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def flatten(nested: Nested, prefix: str = "") -> dict[str, Any]:
    """Return dotted keys with their values.

    Example:
        >>> flatten({"a": {"b": 1}, "c": 2})
        {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nested(options: Mapping[str, Any]) -> Nested:
    """Dotted names as the nested values of a configuration.

    Example:
        >>> nested({"stage1.epochs": 3, "stage1.optimizer.lr": 0.1})
        {'stage1': {'epochs': 3, 'optimizer': {'lr': 0.1}}}
    """
    result: Nested = {}
    for key, value in options.items():
        for part in reversed(str(key).split(".")):
            value = {part: value}
        result = merge(result, value)
    return result
