"""Fill the tables of the page on performance with the rows of the benchmarks, and mark the goals that are missed.

python benchmarks/page.py docs/performance.md

A table stands between two marks, of which the first names its files: ``<!-- rows begin losses.json -->``. They lie in
the folder named after the page, ``docs/performance``.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common import KEYS, number

MARKED = re.compile(r"(<!-- rows begin (\S.*?) -->).*?(<!-- rows end -->)", re.DOTALL)
COLUMNS = ("work", "ours", "reference", "unit", "times better", "goal", "share of the floor")
ALWAYS = ("work", "ours", "unit")  # other columns are left out where no row of a table has a value
LONG = 16  # rows: a longer table is folded


class Goal(NamedTuple):
    """Goal that the rows of some work must reach.

    Attributes:
        work: A pattern found in the row's name.
        key: The figure of the row it is about.
        least: The least value of it, or ``None``.
        most: The greatest value of it, or ``None``.
        words: The goal in the words of the page.
        device: A pattern found in the row's device.
    """

    work: str
    key: str
    least: float | None
    most: float | None
    words: str
    device: str = ""


# The first that fits a row is its goal for a figure.
GOALS = (
    Goal(r"^training step.* against the plain loop", "ratio", 20, None, "≥ 20 ×", device="NVIDIA"),
    Goal(r"^training step.* against the tuned loop", "ratio", 5, None, "≥ 5 ×", device="NVIDIA"),
    Goal(r"^training step.* against the plain loop", "ratio", 3, None, "≥ 3 ×"),
    Goal(r"^whole training step", "ratio", 1 / 1.02, None, "≤ 1.02 × the time"),
    Goal(r"^recorded training step", "ratio", 1 / 1.02, None, "≤ 1.02 × the time"),
    Goal(r"gcl, 200 epochs of stage 1: training and evaluation$", "ours", None, 60, "≤ 60 s", device="NVIDIA"),
    Goal(r"^stage 2", "ratio", 20, None, "≥ 20 ×"),
    Goal(r"^sampler .*: build$", "ours", None, 2, "< 2 s"),
    Goal(r"^sampler .*: (draw an epoch|iterate)$", "ours", 5e6, None, "≥ 5 million"),
    Goal(r"^sampler .*: resident", "ours", None, 400, "< 400 MB"),
    Goal(r"^sampler .*: memory per image", "ratio", 0.9, None, "as many bytes"),
    Goal(r"^grid", "ratio", 2, None, "≥ 2 ×", device="NVIDIA"),
    Goal(r"^(streaming|loader at)", "floor_share", 0.9, None, "≥ 90% of the floor"),
    Goal(r"^memory of training, .* without", "floor_share", 1 / 1.05, None, "≤ 1.05 × that of 20,000 images"),
    Goal(r"^predict of .* Ray nodes .*: images/s$", "ratio", 1.6, None, "≥ 1.6 ×"),
    Goal(r"^(features|predict) of (?!.* Ray nodes)", "ratio", 3, None, "≥ 3 ×"),
    Goal(r"^(features|predict) of (?!.* Ray nodes)", "floor_share", 0.9, None, "≥ 90% of the floor"),
    Goal(r"^prepared", "ratio", 5, None, "≥ 5 ×"),
    Goal(r"^memory: longtail train", "ours", None, 1500, "< 1.5 GB"),
    Goal(r"^start: import longtail$", "ours", None, 0.3, "< 0.3 s"),
    Goal(r"^start: longtail --help$", "ours", None, 1, "< 1 s"),
    Goal(r"^choosing among", "ours", None, 90, "≤ 90 s on two cores"),
    Goal(r"^report.*: built", "ours", None, 60, "< 60 s"),
    Goal(r"^report.*: size", "ours", None, 15, "< 15 MB"),
    Goal(r"^loss .* eager$", "ratio", 1 / 2, None, "≤ 2 × the time"),
    Goal(r"^loss .* compiled$", "ratio", 1 / 1.2, None, "≤ 1.2 × the time"),
)


def goals_of(row: Mapping[str, Any]) -> list[Goal]:
    """Return the goals of a row, at most one for each of its figures."""
    fits = [goal for goal in GOALS if re.search(goal.work, row["name"]) and re.search(goal.device, row["device"])]
    return [goal for at, goal in enumerate(fits) if goal.key not in {other.key for other in fits[:at]}]


def verdict(row: Mapping[str, Any]) -> str:
    """Return the goals of a row as text, marked where they are missed."""
    return "; ".join(f"{goal.words}{_outcome(goal, row[goal.key])}" for goal in goals_of(row))


def _outcome(goal: Goal, value: float | None) -> str:
    if value is None:
        return ", not measured"
    reached = (goal.least is None or value >= goal.least) and (goal.most is None or value <= goal.most)
    return "" if reached else ", **missed**"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as Markdown, those of each machine and set of versions under a line that names them.

    Example:
        >>> row = {"name": "a step", "ours": 2.0, "other": None, "unit": "s", "ratio": None, "floor_share": None}
        >>> print(table([row | {"device": "AMD EPYC, 2 cores", "versions": {"torch": "2.13.0"}}]))
        AMD EPYC, 2 cores; torch 2.13.0:
        <BLANKLINE>
        | work | ours | unit |
        |---|---|---|
        | a step | 2.00 | s |
        <BLANKLINE>
    """
    parts: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        share = "" if row["floor_share"] is None else f"{row['floor_share']:.0%}"
        cells = (row["name"], number(row["ours"]), number(row["other"]), row["unit"], number(row["ratio"]))
        where = "; ".join([row["device"], *(f"{package} {version}" for package, version in row["versions"].items())])
        parts.setdefault(where, []).append(dict(zip(COLUMNS, (*cells, verdict(row), share), strict=True)))
    return "\n".join(_part(where, lines) for where, lines in parts.items())


def _part(where: str, rows: list[dict[str, str]]) -> str:
    shown = [column for column in COLUMNS if column in ALWAYS or any(row[column] for row in rows)]
    cells = [shown, *([row[column] for column in shown] for row in rows)]
    head, *lines = (f"| {' | '.join(line)} |" for line in cells)
    text = "\n".join([f"{where}:", "", head, f"|{'---|' * len(shown)}", *lines, ""])
    if len(rows) <= LONG:
        return text
    goals = [goal for row in rows for goal in row["goal"].split("; ") if goal and "not measured" not in goal]
    missed = f", {sum('missed' in goal for goal in goals)} of {len(goals)} goals missed" if goals else ""
    return f"<details><summary>{len(rows)} rows{missed}</summary>\n\n{text}\n</details>\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of one file.

    Raises:
        ValueError: It does not hold rows of the form that benchmarks write.
    """
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or any(set(row) != set(KEYS) for row in rows):
        raise ValueError(f"{path} does not hold rows of a benchmark: write it with the --json option of one.")
    return rows


def fill(page: Path) -> None:
    """Fill every table of a page, leaving its text alone.

    Raises:
        ValueError: A file of rows in the folder of the page has no table, or a table names a file that is not there.
    """
    folder, text = page.with_suffix(""), page.read_text(encoding="utf-8")
    named = [name for marked in MARKED.finditer(text) for name in marked[2].split()]
    there = [path.name for path in folder.glob("*.json")]
    if missing := sorted(set(there) - set(named)):
        raise ValueError(
            f"{page} has no table of {missing[0]}: write <!-- rows begin {missing[0]} --> and "
            "<!-- rows end --> where it belongs."
        )
    if unknown := sorted(set(named) - set(there)):
        raise ValueError(
            f"{page} has a table of {unknown[0]}, which is not in {folder}: take it out, or make its rows."
        )

    def filled(marked: re.Match[str]) -> str:
        rows = [row for name in marked[2].split() for row in read_rows(folder / name)]
        return f"{marked[1]}\n\n{table(rows)}\n{marked[3]}"

    page.write_text(MARKED.sub(filled, text), encoding="utf-8")


def main() -> None:
    """Read the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("page", type=Path, help="the page whose tables are filled")
    fill(options.parse_args().page)


if __name__ == "__main__":
    main()
