"""Ablations: the options that vary in a grid, and the rows that differ in one of them alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from operator import itemgetter

from longtail.compare.seeds import identity, short_labels
from longtail.compare.table import Row

Value = float | str
Texts = Mapping[str, tuple[str, ...]]
"""Option, by the last part of its name where that is unique, to its value in every row, as JSON."""


@dataclass(frozen=True)
class Line:
    """Rows that agree in everything but one option, in the order of its values; ``level`` is the second option's."""

    level: str
    points: tuple[tuple[Value, Row], ...]


@dataclass(frozen=True)
class Ablation:
    """One option of one recipe.

    Attributes:
        recipe: The recipe, without the ``DATA/`` that all share.
        option: The option's name; of several that change together, the first one's.
        second: The option that tells the lines apart, empty where there is one line.
        lines: At least one, each with two values or more.
    """

    recipe: str
    option: str
    second: str
    lines: tuple[Line, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether every value is a number."""
        return all(not isinstance(value, str) for line in self.lines for value, _ in line.points)

    @property
    def rows(self) -> list[Row]:
        """The rows of all lines."""
        return [row for line in self.lines for _, row in line.points]


def find_ablations(rows: Sequence[Row]) -> tuple[list[Ablation], list[str]]:
    """Find the options in which rows of one recipe differ while all else is equal.

    Options that always change together (one value in both stages) count as one. A line goes through rows that agree in
    everything but the option; where several lines differ in one second option, each is a level of it, and where they
    differ in more than that, the option is named and not drawn.

    Args:
        rows: Rows of a comparison, one for each configuration.

    Returns:
        The ablations in the order of the recipes, and the names of options that vary with too many others.
    """
    ablations: list[Ablation] = []
    undrawn: list[str] = []
    recipes = list(dict.fromkeys(row.runs[0].recipe for row in rows))
    for recipe, label in zip(recipes, short_labels(recipes), strict=True):
        of_recipe = [row for row in rows if row.runs[0].recipe == recipe]
        varied = _varied([identity(row.runs[0]) for row in of_recipe])
        results = [_ablation(of_recipe, label, name, varied) for name in varied]
        ablations += _without_repeats([result for result in results if isinstance(result, Ablation)])
        undrawn += [result for result in results if isinstance(result, str)]
    return ablations, undrawn


def _varied(configurations: Sequence[Mapping[str, str]]) -> Texts:
    """Find the options that differ; of those that always change together, the first."""
    patterns: dict[tuple[int, ...], tuple[str, tuple[str, ...]]] = {}
    for key in dict.fromkeys(chain.from_iterable(configurations)):
        texts = tuple(options.get(key, "null") for options in configurations)
        if len(set(texts)) > 1:
            patterns.setdefault(tuple(map(texts.index, texts)), (key, texts))
    keys = [key for key, _ in patterns.values()]
    return {short_option(key, keys): texts for key, texts in patterns.values()}


def _ablation(rows: Sequence[Row], recipe: str, name: str, varied: Texts) -> Ablation | str | None:
    others = [key for key in varied if key != name]
    families: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    for index, row in enumerate(rows):
        families[tuple(varied[key][index] for key in others)].setdefault(varied[name][index], row)
    families = {levels: members for levels, members in families.items() if len(members) > 1}
    if not families:
        return None
    differing = [key for key, *levels in zip(others, *families, strict=True) if len(set(levels)) > 1]
    if len(differing) > 1:
        return f"{name} of {recipe}"
    lines = []
    for levels, members in families.items():
        level = [_value_text(text) for key, text in zip(others, levels, strict=True) if key in differing]
        lines.append(Line("".join(level), _in_order(members)))
    return Ablation(recipe, name, "".join(differing), tuple(lines))


def short_option(name: str, rivals: Iterable[str], separator: str = ".") -> str:
    """Shorten a name of several parts, such as an option, to the last one if that is unique.

    Example:
        >>> short_option("stage1.loss.options.noise", ["stage1.loss.options.noise", "stage1.epochs", "stage2.epochs"])
        'noise'
        >>> short_option("stage1.epochs", ["stage1.epochs", "stage2.epochs"])
        'stage1.epochs'
    """
    last = name.rsplit(separator, 1)[-1]
    return last if sum(other.rsplit(separator, 1)[-1] == last for other in rivals) == 1 else name


def _in_order(members: Mapping[str, Row]) -> tuple[tuple[Value, Row], ...]:
    """Sort numbers by size; leave words in their order."""
    if {type(json.loads(text)) for text in members} <= {int, float}:
        return tuple(sorted(((float(text), row) for text, row in members.items()), key=itemgetter(0)))
    return tuple((_value_text(text), row) for text, row in members.items())


def _value_text(text: str) -> str:
    value = json.loads(text)
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else "none" if value is None else text


def _without_repeats(ablations: Sequence[Ablation]) -> list[Ablation]:
    """Of two options that cross each other keep the one with more values on its lines; the other is its levels."""
    repeats = set()
    for first, second in combinations(ablations, 2):
        if {id(row) for row in first.rows} == {id(row) for row in second.rows}:
            values = [max(len(line.points) for line in ablation.lines) for ablation in (first, second)]
            repeats.add(id(first if values[0] < values[1] else second))
    return [ablation for ablation in ablations if id(ablation) not in repeats]
