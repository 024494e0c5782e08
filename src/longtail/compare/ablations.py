"""Which options of a grid vary, and the rows that differ in one of them alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from longtail.compare.seeds import identity, short_labels
from longtail.compare.table import Row

Value = float | str
Texts = Mapping[str, tuple[str, ...]]
"""By option, its value in every row, written as JSON."""


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
        """All rows that are drawn."""
        return [row for line in self.lines for _, row in line.points]


def find_ablations(rows: Sequence[Row]) -> tuple[list[Ablation], list[str]]:
    """Find the options in which rows of one recipe differ while all else is equal.

    Options that always change together (one value in both stages) count as one. A line goes through rows that agree in
    everything but the option; where several lines differ in one second option, each is a level of it, and where they
    differ in more than that, the option is named and not drawn.

    Args:
        rows: Rows of a comparison, seeds folded.

    Returns:
        The ablations in the order of the recipes, and the names of options that vary with too many others.
    """
    found: list[Ablation] = []
    refused: list[str] = []
    recipes = list(dict.fromkeys(row.runs[0].recipe for row in rows))
    for recipe, label in zip(recipes, short_labels(recipes), strict=True):
        mine = [row for row in rows if row.runs[0].recipe == recipe]
        varied = _varied([identity(row.runs[0]) for row in mine])
        ablations = [_ablation(mine, label, name, varied) for name in varied]
        found += _without_repeats([one for one in ablations if isinstance(one, Ablation)])
        refused += [one for one in ablations if isinstance(one, str)]
    return found, refused


def _varied(options: Sequence[Mapping[str, str]]) -> Texts:
    """The options that differ; of those that change together only the first is kept."""
    keys = list(dict.fromkeys(key for one in options for key in one))
    texts = {key: tuple(one.get(key, "null") for one in options) for key in keys}
    patterns: dict[tuple[int, ...], str] = {}
    for key in keys:
        seen = list(dict.fromkeys(texts[key]))
        if len(seen) > 1:
            patterns.setdefault(tuple(map(seen.index, texts[key])), key)
    return {key: texts[key] for key in patterns.values()}


def _ablation(rows: Sequence[Row], recipe: str, name: str, varied: Texts) -> Ablation | str | None:
    others = [key for key in varied if key != name]
    families: dict[tuple[str, ...], dict[str, Row]] = {}
    for index, row in enumerate(rows):
        families.setdefault(tuple(varied[key][index] for key in others), {}).setdefault(varied[name][index], row)
    kept = {level: members for level, members in families.items() if len(members) > 1}
    differing = [place for place in range(len(others)) if len({level[place] for level in kept}) > 1]
    if not kept:
        return None
    option = short_option(name, varied)
    if len(differing) > 1:
        return f"{option} of {recipe}"
    place = differing[0] if differing else None
    lines = [Line("" if place is None else _shown(level[place]), _in_order(rows)) for level, rows in kept.items()]
    return Ablation(recipe, option, "" if place is None else short_option(others[place], varied), tuple(lines))


def short_option(name: str, rivals: Iterable[str]) -> str:
    """The last part of an option's name where that is enough.

    Example:
        >>> short_option("stage1.loss.options.noise", ["stage1.loss.options.noise", "stage1.epochs", "stage2.epochs"])
        'noise'
        >>> short_option("stage1.epochs", ["stage1.epochs", "stage2.epochs"])
        'stage1.epochs'
    """
    end = name.rsplit(".", 1)[-1]
    return end if sum(other.rsplit(".", 1)[-1] == end for other in rivals) == 1 else name


def _in_order(members: Mapping[str, Row]) -> tuple[tuple[Value, Row], ...]:
    """Numbers by size; words as they come."""
    values = {text: json.loads(text) for text in members}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
        return tuple((float(values[text]), members[text]) for text in sorted(members, key=lambda text: values[text]))
    return tuple((_shown(text), row) for text, row in members.items())


def _shown(text: str) -> str:
    value = json.loads(text)
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else "none" if value is None else text


def _without_repeats(found: Sequence[Ablation]) -> list[Ablation]:
    """Of two options that cross each other keep the one with more values on its lines; the other is its levels."""
    drop = set()
    for one, two in combinations(range(len(found)), 2):
        if {id(row) for row in found[one].rows} == {id(row) for row in found[two].rows}:
            values = [max(len(line.points) for line in found[index].lines) for index in (one, two)]
            drop.add(one if values[0] < values[1] else two)
    return [one for index, one in enumerate(found) if index not in drop]
