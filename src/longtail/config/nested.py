"""Nested options: merge, flatten, and dotted names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

Nested: TypeAlias = dict[str, Any]


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
