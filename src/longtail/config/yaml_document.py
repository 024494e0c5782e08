"""Strict reader of YAML options: no guessed types, and line and column of every value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from longtail.errors import LongtailError

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

    def part(self, key: str, title: str) -> Document:
        """The part below a name, called ``title`` in errors."""
        below = {
            path.removeprefix(f"{key}."): place for path, place in self.places.items() if path.startswith(f"{key}.")
        }
        return Document(f"{self.name}: {title}", None, below)


def read_yaml(path: str | Path, expected: str) -> Document:
    """Read a YAML file.

    Args:
        path: The file.
        expected: Description of the expected file in errors: ``a grid file``.

    Raises:
        LongtailError: The file is missing or not YAML of plain values; the line and column are named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LongtailError(f"{path} cannot be read ({error.strerror}); name {expected}.") from error
    except UnicodeDecodeError as error:
        raise LongtailError(f"{path} is not valid YAML (not text in UTF-8): name {expected}.") from error
    return parse_yaml(text, str(path))


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
        raise LongtailError(f"{name} is not valid YAML ({str(error).splitlines()[0]}): correct it.") from error
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
        if (
            kind in {"float", "str"} and _DECIMAL.fullmatch(text) and math.isfinite(float(text))
        ):  # 1e-3 is text to PyYAML
            return float(text)
        if kind in {"int", "float", "str"}:
            raise self._refusal(node, f"{text[:60]!r} is not a plain number: write one such as 12, 0.5 or 1e-3.")
        raise self._refusal(node, f"the tag {node.tag.removeprefix(_TAG)!r} is not read: leave it out.")

    def _refusal(self, node: yaml.Node, problem: str) -> LongtailError:
        return LongtailError(f"{self.name}, {_place(node.start_mark)}: {problem}")
