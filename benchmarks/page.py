"""Put the rows of the benchmarks, with the goal of each, into the table of the page on performance.

python benchmarks/page.py docs/performance/*.json --out docs/performance.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common import KEYS, number

HEAD = "| work | ours | reference | unit | times better | goal | share of the floor |\n|---|---|---|---|---|---|---|"


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


# The first that fits a row is its goal.
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


def goal_of(row: Mapping[str, Any]) -> Goal | None:
    """The goal of a row, or ``None``."""
    fits = (goal for goal in GOALS if re.search(goal.work, row["name"]) and re.search(goal.device, row["device"]))
    return next(fits, None)


def verdict(row: Mapping[str, Any]) -> str:
    """The goal of a row in words, and plainly whether it is missed."""
    goal = goal_of(row)
    if goal is None:
        return ""
    value = row[goal.key]
    if value is None:
        return f"{goal.words}, not measured"
    reached = (goal.least is None or value >= goal.least) and (goal.most is None or value <= goal.most)
    return goal.words if reached else f"{goal.words}, **missed**"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as Markdown, those of each machine and set of versions under a line that names them."""
    parts: dict[str, list[str]] = {}
    for row in rows:
        share = "" if row["floor_share"] is None else f"{row['floor_share']:.0%}"
        cells = [row["name"], number(row["ours"]), number(row["other"]), row["unit"], number(row["ratio"])]
        where = "; ".join([row["device"], *(f"{package} {version}" for package, version in row["versions"].items())])
        parts.setdefault(where, []).append("| " + " | ".join([*cells, verdict(row), share]) + " |")
    return "\n".join("\n".join([f"{where}:", "", HEAD, *lines, ""]) for where, lines in parts.items())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one file.

    Raises:
        ValueError: It does not hold rows of the form that benchmarks write.
    """
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or any(set(row) != set(KEYS) for row in rows):
        raise ValueError(f"{path} does not hold rows of a benchmark: write it with the --json option of one.")
    return rows


def place(rows: Iterable[Mapping[str, Any]]) -> int:
    """Position of the rows of a file on the page: in the order of the goals, those without one last."""
    return min((GOALS.index(goal) for goal in map(goal_of, rows) if goal is not None), default=len(GOALS))


def fill(page: Path, rows: str) -> None:
    """Put the table between the two marks of the page, leaving its words alone.

    Raises:
        ValueError: The page has no marks.
    """
    begin, end = "<!-- rows begin -->", "<!-- rows end -->"
    text = page.read_text(encoding="utf-8")
    before, mark, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ValueError(f"{page} has no place for the rows: write {begin} and {end} where they belong.")
    page.write_text(f"{before}{begin}\n\n{rows}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Read the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", type=Path, nargs="+", help="what the benchmarks wrote with --json")
    options.add_argument("--out", type=Path, required=True, help="the page whose table is replaced")
    flags = options.parse_args()
    files = sorted((read_rows(path) for path in flags.files), key=place)
    fill(flags.out, table(row for rows in files for row in rows))


if __name__ == "__main__":
    main()
