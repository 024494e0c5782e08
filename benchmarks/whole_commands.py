"""Run ``longtail train SOURCE`` as a new user would, by this checkout and by an older one, and write a row for each.

git worktree add ../before 3063f1e
python benchmarks/whole_commands.py fish=parquet:fish4knowledge --before ../before --seeds 3
python benchmarks/whole_commands.py stamps=stamps --before ../before -- --time-limit 5m

What follows ``--`` is given to both. Each command has a cache of its own, empty at the first seed, and its processor
time is counted with that of the processes that it starts: unlike the clock, it changes little where other work runs on
the machine. Rows that the file has of the same set and options stay, unless the version and the seed are the same, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from portfolio import add_rows

KEYS = ("set", "options", "version", "seed")
GROUPS = ("many", "medium", "few")
COLUMNS = (*KEYS, "accuracy", "balanced_accuracy", *GROUPS, "seconds", "processor_seconds")
HERE = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the commands one after another, and print a table of all rows of the file."""
    flags = _flags()
    name, _, source = flags.source.partition("=")
    for checkout in filter(None, (flags.before, HERE)):
        with tempfile.TemporaryDirectory() as cache:
            for seed in range(flags.seeds):
                options = [*flags.options, "--seed", str(seed)]
                line = {"set": name, "options": " ".join(flags.options), "version": version(checkout), "seed": seed}
                line |= run(checkout, source, options, Path(cache))
                print(line, flush=True)
                add_rows([line], flags.csv, COLUMNS, KEYS)
    print("\n".join(summary(flags.csv)))
    return 0


def version(checkout: Path) -> str:
    """Return the abbreviated commit of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(checkout: Path, source: str, options: list[str], cache: Path) -> dict[str, Any]:
    """Train by a checkout, and return figures of the test images, the seconds and the processor seconds.

    Args:
        checkout: Folder of the repository, whose code is used with the installed packages.
        source: Images with a test split, or a folder of which one is made.
        options: Options of ``longtail train``.
        cache: Folder of the cache.
    """
    path = os.pathsep.join([str(checkout / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "LONGTAIL_CACHE": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "longtail", "train", source, *options, "--out", str(out)]
        before, begun = _processor_seconds(), time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        took, processor = time.perf_counter() - begun, _processor_seconds() - before
        test = json.loads((out / "metrics.json").read_text())["test"]
    figures = {"accuracy": test["accuracy"], "balanced_accuracy": test["balanced_accuracy"]}
    figures |= {group: test.get(group) for group in GROUPS}
    rounded = {key: "" if value is None else round(value, 4) for key, value in figures.items()}
    return rounded | {"seconds": round(took), "processor_seconds": round(processor)}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(file: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table: means over seeds in %, of the balanced accuracy with its deviation."""
    rows: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            rows[row["set"], row["options"], row["version"]].append(row)
    yield "| set | options | version | accuracy / balanced | many / medium / few | minutes | processor minutes |"
    yield "|---" * 7 + "|"
    for key, seeds in rows.items():
        values = {column: [float(row[column]) for row in seeds if row[column]] for column in COLUMNS[4:]}
        spread = f" ± {100 * np.std(values['balanced_accuracy'], ddof=1):.1f}" if len(seeds) > 1 else ""
        means = {column: np.mean(each) if each else np.nan for column, each in values.items()}
        pair = f"{100 * means['accuracy']:.1f} / {100 * means['balanced_accuracy']:.1f}{spread}"
        groups = " / ".join("–" if np.isnan(means[group]) else f"{100 * means[group]:.0f}" for group in GROUPS)
        times = f"{means['seconds'] / 60:.1f} | {means['processor_seconds'] / 60:.1f}"
        yield f"| {' | '.join((key[0], key[1] and f'`{key[1]}`', key[2]))} | {pair} | {groups} | {times} |"


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="NAME=SOURCE", help="images, and what the rows call them")
    parser.add_argument("--before", type=Path, help="checkout of an older version")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=Path("docs/results/whole-commands.csv"))
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:end], argparse.Namespace(options=words[end + 1 :]))


if __name__ == "__main__":
    raise SystemExit(main())
