"""From YAML or plain values to typed options: what does not fit is an error that names the option and its place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml

from longtail.config.options import Nested, choices_of, merge, nested
from longtail.config.schema import RunConfig, defaults, option_types
from longtail.errors import LongtailError, UsageError, first_line, nearest
from longtail.validation import read_bytes, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

Options = TypeVar("Options")
_MOST_BYTES: Final = 2**18  # of a file, where a configuration has a few thousand
_MOST_VALUES: Final = 100_000  # nested aliases can expand to billions
_DEEPEST: Final = 40
_TAG: Final = "tag:yaml.org,2002:"
_WHOLE: Final = re.compile(r"[-+]?(0|[1-9]\d{0,300})")
_DECIMAL: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Document:
    """The contents of a YAML file.

    Attributes:
        name: Its name in errors, such as the path of the file.
        values: Plain values: dictionaries by text, lists, text, numbers, booleans and None.
        places: The line and column of each name, by its dotted path.
    """

    name: str
    values: Any
    places: Mapping[str, str] = field(default_factory=dict)

    def at(self, key: str) -> str:
        """The location of a value, or of the nearest name above it, to start an error with.

        Example:
            >>> parse_yaml("stage1: {epochs: 3}", "mine.yaml").at("stage1.epochs")
            'mine.yaml, line 1, column 10'
        """
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return f"{self.name}, {self.places[key]}" if key else self.name


def build(values: Nested, where: str | Document = "") -> RunConfig:
    """Validate values and build the configuration of a run from them; no other function does.

    Args:
        values: Nested values; what is left out has its default.
        where: The file they come from, for the error; empty for the command line.

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
    return typed(RunConfig, merge(defaults(), values), where, types=option_types())


def with_options(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """Return a configuration with other values of some options, by their dotted names.

    Example:
        >>> with_options(RunConfig(), {"training.seed": 3}).training.seed
        3
    """
    return build(merge(asdict(config), nested(options)))


def read_config_file(path: str | Path) -> Document:
    """Read a file of options, such as the ``config.yaml`` of a run, and check its names, types and ranges.

    Raises:
        LongtailError: The file is missing, is not YAML, has an unknown option or a wrong value; the line and column are
            named.
    """
    document = read_yaml(path, "name the configuration of a run")
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

    Errors are worded for who typed an option: by its flag or its line in a file, with the right name or word where one
    is near. Files that only programs write are checked by :func:`longtail.validation.validate`: its remedy is a new
    copy.

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
    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda each: each["type"] != "unexpected_keyword_argument")
    key = ".".join(part for part in problem["loc"] if isinstance(part, str))
    at = where.at(key) if isinstance(where, Document) else where
    if problem["type"] == "unexpected_keyword_argument":
        hint = nearest(key[:80], [option for option in types if option != "reasons"])
        return f"{at or 'the configuration'} has an unknown option {key[:80]!r}.{hint}"
    while key and key not in types and not any(option.startswith(f"{key}.") for option in types):
        key = key.rpartition(".")[0]  # below an option stand the members of a union
    option = key if at else flags.get(key, f"--{key}")
    # A union has a problem for each of its members.
    same = [each for each in problems if each["input"] == problem["input"]]
    takes = " or ".join(dict.fromkeys(map(_requirement, same))).replace(" or takes ", " or ")
    hint = nearest(str(problem["input"]), choices_of(types.get(key)), list_all=False)
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
_BOUNDS: Final = {
    "ge": "must be at least {:g}",
    "gt": "must be above {:g}",
    "le": "must be at most {:g}",
    "lt": "must be below {:g}",
    "min_length": "takes {} or more values",
    "max_length": "takes {} or fewer values",
}


def _requirement(problem: ErrorDetails) -> str:
    """Describe the value that is required."""
    for name, bound in problem.get("ctx", {}).items():
        if name in _BOUNDS:
            return str(_BOUNDS[name].format(bound))
        if name == "expected":  # one of some words, of which the empty one stands for none
            return "takes " + str(bound).removeprefix("'', ")
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
    return typed(kind, value, types={"": kind}, flags={"": flag})


def seconds_of(text: str, option: str) -> float:
    """Return the seconds of a duration such as ``10m``, ``1h30m``, ``90s`` or ``90``.

    Args:
        text: The duration.
        option: The option that takes it, for the error.

    Raises:
        UsageError: It is not one.

    Example:
        >>> seconds_of("1h30m", "--time-limit"), seconds_of("90", "--time-limit")
        (5400.0, 90.0)
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    seconds = sum(int(part) * unit for part, unit in zip(match.groups("0"), (3600, 60, 1), strict=True)) if match else 0
    if not seconds:
        raise UsageError(f"{option} takes a duration such as 10m, 1h30m or 90s, got {text!r}.")
    return float(seconds)


def read_yaml(path: str | Path, remedy: str) -> Document:
    """Read a YAML file of limited size.

    Args:
        path: The file.
        remedy: What to do about a file that is not YAML at all, without a period: ``name a grid file``.

    Raises:
        LongtailError: The file is missing, too large, or not YAML of plain values; the line and column are named.
    """
    try:
        return parse_yaml(read_bytes(Path(path), remedy, _MOST_BYTES).decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise LongtailError(f"{path} is not valid YAML (not text in UTF-8): {remedy}.") from error


def parse_yaml(text: str, name: str) -> Document:
    r"""Parse YAML strictly: unique names, plain numbers, no tags, and aliases only if they stay small.

    Args:
        text: The YAML.
        name: Where it comes from, for errors.

    Raises:
        LongtailError: It is not such YAML; the line and column are named.

    Example:
        >>> parse_yaml("stage1: {epochs: 3, optimizer: {lr: 1e-3}}", "mine.yaml").values
        {'stage1': {'epochs': 3, 'optimizer': {'lr': 0.001}}}
        >>> parse_yaml("seed: 1\nseed: 2", "mine.yaml")
        Traceback (most recent call last):
        longtail.errors.LongtailError: mine.yaml, line 2, column 1: 'seed' is named twice: keep one.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        reader = _Reader(name)
        return Document(name, None if node is None else reader.value(node, ()), reader.places)
    except yaml.MarkedYAMLError as error:
        at = f", {_place(error.problem_mark)}," if error.problem_mark is not None else ""
        raise LongtailError(f"{name}{at} is not valid YAML ({error.problem}): correct it.") from error
    except yaml.YAMLError as error:
        raise LongtailError(f"{name} is not valid YAML ({first_line(error)}): correct it.") from error
    except RecursionError:
        raise LongtailError(f"{name} is not valid YAML for options: it is nested too deeply.") from None


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _Reader:
    """Turns the nodes of a document into plain values, and notes where each name stands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[str, str] = {}
        self._values = 0

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or len(path) > _DEEPEST:
            raise self._refusal(node, "too many values, or too deep: write out what aliases stand for.")
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(value, (*path, key)) for key, value in self._pairs(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(number))) for number, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _pairs(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[tuple[str, yaml.Node]]:
        seen = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise self._refusal(name, "a name is a word, not a list or names with values.")
            if name.value in seen:
                raise self._refusal(name, f"{name.value[:60]!r} is named twice: keep one.")
            seen.add(name.value)
            self.places[".".join((*path, name.value))] = _place(name.start_mark)
            yield name.value, value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind in {"str", "timestamp"} and not (node.style is None and _DECIMAL.fullmatch(text)):
            return text
        if kind == "null" and text.lower() in {"", "~", "null"}:
            return None
        if kind == "bool" and text.lower() in yaml.SafeLoader.bool_values:
            return yaml.SafeLoader.bool_values[text.lower()]
        if kind == "int" and _WHOLE.fullmatch(text):
            return int(text)
        # To PyYAML 1e-3 is text.
        if kind in {"float", "str"} and _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        if kind in {"int", "float", "str"}:
            raise self._refusal(node, f"{text[:60]!r} is not a plain number: write one such as 12, 0.5 or 1e-3.")
        raise self._refusal(node, f"the tag {node.tag.removeprefix(_TAG)!r} is not read: leave it out.")

    def _refusal(self, node: yaml.Node, problem: str) -> LongtailError:
        return LongtailError(f"{self.name}, {_place(node.start_mark)}: {problem}")
