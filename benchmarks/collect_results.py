"""Gather finished runs into rows (CSV) and make the results page from the rows alone.

python benchmarks/collect_results.py rows RUN [RUN ...] --csv docs/results/cifar100-lt-short.csv
python benchmarks/collect_results.py page docs/results/cifar100-lt-short.csv --out docs/results/index.md
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from longtail.training.recipe import base_config, flatten

FIGURES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "worst_class", "harmonic_mean", "nll", "ece")
COLUMNS = (
    "run", "recipe", "stage", "seed", "epochs_stage1", "epochs_stage2", *FIGURES, "seconds_stage1", "seconds_stage2",
    "processor", "cores", "device", "torch", "longtail", "train_images", "imbalance_ratio", "subset_seed", "data_hash",
    "command",
)  # fmt: skip


def rows_of(run: Path) -> Iterable[dict[str, Any]]:
    """One row for each stage of a run; the last one is the finished model."""
    metrics = json.loads((run / "metrics.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    shared = {
        "run": run.name,
        "recipe": metrics["recipe"],
        "seed": metrics["seeds"]["seed"],
        "epochs_stage1": config["stage1"]["epochs"],
        "epochs_stage2": config["stage2"]["epochs"],
        "seconds_stage1": round(metrics["seconds"]["stage1"]),
        "seconds_stage2": round(metrics["seconds"]["stage2"]),
        "processor": metrics["hardware"]["processor"],
        "cores": metrics["hardware"]["cores"],
        "device": metrics["hardware"]["device"],
        "torch": metrics["versions"]["torch"],
        "longtail": metrics["versions"]["longtail"],
        "train_images": sum(metrics["train_counts"]),
        "imbalance_ratio": max(metrics["train_counts"]) / min(metrics["train_counts"]),
        "subset_seed": metrics["seeds"]["subset_seed"],
        "data_hash": metrics["data_hash"],
        "command": command_of(config, run.name),
    }
    for number, (stage, result) in enumerate(sorted(metrics["stages"].items()), start=1):
        final = number == len(metrics["stages"])
        figures = metrics["test"] if final else result["test"]
        yield shared | {"stage": stage.removeprefix("stage")} | {name: figures[name] for name in FIGURES}


def command_of(config: Mapping[str, Any], name: str) -> str:
    """The shortest command that gives this configuration."""
    base = flatten(base_config(config["recipe"], epochs=config["stage1"]["epochs"]))
    base["model.head"] = config["model"]["head"]  # "auto" resolved
    words = ["longtail", "train", config["data"]["source"], "--recipe", config["recipe"]]
    words += ["--epochs", str(config["stage1"]["epochs"])]
    for key, value in flatten(dict(config)).items():
        if key not in {"recipe", "data.source"} and base.get(key) != value:
            flag = {"data.imbalance_ratio": "imbalance-ratio", "training.seed": "seed"}.get(key, key)
            words += [f"--{flag}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--out", name])


def write_rows(runs: list[Path], path: Path) -> None:
    """Write the rows of all runs to one CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for run in runs:
            writer.writerows(rows_of(run))


def page(rows: list[dict[str, str]], csv_name: str) -> str:
    """The table and the commands, from the rows alone."""
    lines = [
        "| run | stage | overall | many | medium | few | worst class | ECE | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = row[f"seconds_stage{row['stage']}"]
        figures = [percent(row[name]) for name in ("accuracy", "many", "medium", "few", "worst_class", "ece")]
        lines.append(f"| {row['run']} | {row['stage']} | " + " | ".join(figures) + f" | {seconds} |")
    first = rows[0]
    facts = (
        f"{first['train_images']} training images, imbalance ratio {float(first['imbalance_ratio']):g}, subset seed "
        f"{first['subset_seed']}, data hash `{first['data_hash'][:23]}…`; torch {first['torch']}, longtail "
        f"{first['longtail']}; {first['processor']}, {first['cores']} cores, {first['device']}."
    )
    commands = "\n".join(dict.fromkeys(row["command"] for row in rows))
    return "\n".join(
        [*lines, "", facts, "", f"Rows: [{csv_name}]({csv_name}). Commands:", "", "```", commands, "```", ""]
    )


def percent(value: str) -> str:
    """A fraction as per cent with one decimal; an empty cell is n/a."""
    return f"{float(value) * 100:.1f}" if value else "n/a"


def fill(template: Path, table: str) -> None:
    """Put the table between the two marks of the page, leaving its words alone."""
    begin, end = "<!-- rows begin -->", "<!-- rows end -->"
    text = template.read_text()
    before, rest = text.split(begin)
    template.write_text(f"{before}{begin}\n\n{table}\n{end}{rest.split(end)[1]}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows")
    rows.add_argument("runs", type=Path, nargs="+")
    rows.add_argument("--csv", type=Path, required=True)
    make = commands.add_parser("page")
    make.add_argument("csv", type=Path)
    make.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "rows":
        write_rows(options.runs, options.csv)
    else:
        with options.csv.open(newline="") as file:
            fill(options.out, page(list(csv.DictReader(file)), options.csv.name))


if __name__ == "__main__":
    main()
