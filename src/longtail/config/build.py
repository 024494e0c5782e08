"""From plain values to typed options: what does not fit is an error that names the option, its place and its remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from longtail.config.schema import Nested, RunConfig, choices_of, defaults, merge, nested, option_types
from longtail.config.yaml_document import Document, read_yaml
from longtail.errors import LongtailError, UsageError, nearest

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

Options = TypeVar("Options")


def build(values: Nested, where: str | Document = "", *, flags: Mapping[str, str] | None = None) -> RunConfig:
    """Build the configuration of a run; no other function does.

    Args:
        values: Nested values; what is left out has its default.
        where: The file they come from, for the error; empty for the command line.
        flags: How options were typed, by dotted name, where not as ``--name``.

    Raises:
        LongtailError: An unknown name, a value of the wrong type or out of range; from the command line, a
            :class:`UsageError`.

    Example:
        >>> build({"stage1": {"epochs": 3}}).stage1.epochs
        3
        >>> build({"stage1": {"epohcs": 3}}, "mine.yaml")
        Traceback (most recent call last):
        longtail.errors.LongtailError: mine.yaml has an unknown option 'stage1.epohcs'. Did you mean 'stage1.epochs'?
    """
    return typed(RunConfig, merge(defaults(), values), where, types=option_types(), flags=flags)


def with_options(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """Return a configuration with other values of some options, by their dotted names.

    Example:
        >>> with_options(RunConfig(), {"training.seed": 3}).training.seed
        3
    """
    return build(merge(asdict(config), nested(options)))


def read_config(path: str | Path) -> Document:
    """Read a ``config.yaml`` and check its names, types and ranges.

    Raises:
        LongtailError: The file is missing, is not YAML, has an unknown option or a wrong value; the line and column are
            named.
    """
    document = read_yaml(path, "the configuration of a run")
    if not isinstance(document.values, dict):
        raise LongtailError(f"{path} holds no configuration; name the configuration of a run.")
    build(document.values, document)
    return document


def typed(
    kind: type[Options],
    values: Any,
    where: str | Document = "",
    *,
    types: Mapping[str, Any],
    flags: Mapping[str, str] | None = None,
) -> Options:
    """Build a dataclass of options; see :func:`build`.

    Args:
        kind: The dataclass.
        values: Nested values.
        where: The file they come from, for the error; empty for the command line.
        types: The type of each option, by dotted name.
        flags: How options were typed, by dotted name, where not as ``--name``.

    Raises:
        LongtailError: An unknown name, a value of the wrong type or out of range; from the command line, a
            :class:`UsageError`.
    """
    from pydantic import ValidationError

    hashable: Any = kind
    try:
        # JSON is read strictly: no text for numbers, no true for 1.
        options: Options = _adapter(hashable).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        message = _sentence(error, types, where, flags or {})
        raise (LongtailError(message) if where else UsageError(message)) from error
    return options


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _sentence(error: ValidationError, types: Mapping[str, Any], where: str | Document, flags: Mapping[str, str]) -> str:
    """Describe the first problem of a validation, an unknown name before a wrong value."""
    from longtail.validation import shown

    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda each: each["type"] != "unexpected_keyword_argument")
    key = ".".join(part for part in problem["loc"] if isinstance(part, str))
    at = where.at(key) if isinstance(where, Document) else where
    if problem["type"] == "unexpected_keyword_argument":
        hint = nearest(key[:80], [option for option in types if option != "reasons"])
        return f"{at or 'the configuration'} has an unknown option {key[:80]!r}.{hint}"
    while key not in types and "." in key:  # below an option stand the members of a union
        group = key.rpartition(".")[0]
        if any(option.startswith(f"{key}.") for option in types):
            break
        key = group
    option = key if at else flags.get(key, f"--{key}")
    choices = choices_of(types.get(key))
    if problem["type"] == "literal_error":
        *others, last = map(repr, choices)
        takes = f"takes {', '.join(others)} or {last}"
        hint = nearest(str(problem["input"]), choices, list_all=False)
    else:
        # A union has a problem for each of its members.
        same = [each for each in problems if each["input"] == problem["input"]]
        takes, hint = " or ".join(dict.fromkeys(map(_requirement, same))).replace(" or takes ", " or "), ""
    return f"{f'{at}: ' if at else ''}{option} {takes}, got {shown(problem['input'])}.{hint}"


_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list such as [1, 2]",
    "dict": "names with values such as {a: 1}",
    "dataclass": "names with values such as {a: 1}",
}
_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _requirement(problem: ErrorDetails) -> str:
    """What a value should be."""
    for name, bound in problem.get("ctx", {}).items():
        if name in _BOUNDS:
            return f"must be {_BOUNDS[name]} {bound:g}"
    kind = problem["type"].partition("_")[0]
    return f"takes {_KINDS[kind]}" if kind in _KINDS else problem["msg"][:1].lower() + problem["msg"][1:]


def check_value(value: Any, kind: Any, flag: str) -> Any:
    """Check the value of one argument of a command against its type and range.

    Raises:
        UsageError: It does not fit.

    Example:
        >>> check_value("many", int, "--top-k")
        Traceback (most recent call last):
        longtail.errors.UsageError: --top-k takes a whole number, got 'many'.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise UsageError(_sentence(error, {"": kind}, "", {"": flag})) from error
