"""Gather finished runs into rows (CSV) and make the results page from the rows alone.

python benchmarks/collect_results.py rows RUN [RUN ...] --csv docs/results/cifar100-lt-100-30-epochs.csv
python benchmarks/collect_results.py rows RUN [RUN ...] --csv docs/results/cifar100-lt-100-30-epochs.csv --keep
python benchmarks/collect_results.py page docs/results/index.md

``--keep`` keeps the rows that a file has of other runs, so that rows can be committed as they come.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from longtail.config.options import flatten
from longtail.config.recipes import base_config
from longtail.config.schema import EXECUTION

FIGURES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "worst_class", "harmonic_mean", "nll", "ece")
FIGURES_SHOWN = ("accuracy", "balanced_accuracy", "many", "medium", "few", "worst_class", "ece")
TITLES = {"accuracy": "overall", "balanced_accuracy": "balanced", "worst_class": "worst class", "ece": "ECE"}
WITH_INTERVALS = ("accuracy", "balanced_accuracy", "many", "medium", "few")
FULL_EPOCHS = 200  # the published schedule; shorter runs are not compared with published figures
MARKED = re.compile(r"(<!-- rows begin (\S+) -->).*?(<!-- rows end -->)", re.DOTALL)
COLUMNS = (
    "run",
    "recipe",
    "stage",
    "seed",
    "epochs_stage1",
    "epochs_stage2",
    *FIGURES,
    *(f"{name}_{end}" for name in WITH_INTERVALS for end in ("low", "high")),
    "seconds_stage1",
    "seconds_stage2",
    "processor",
    "cores",
    "device",
    "torch",
    "longtail",
    "train_images",
    "imbalance_ratio",
    "subset_seed",
    "data_hash",
    "command",
)


def rows_of(run: Path) -> Iterable[dict[str, Any]]:
    """One row for each stage of a run; the last one is the finished model."""
    metrics = json.loads((run / "metrics.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    shared = {
        "run": run.parent.name if run.name.startswith("seed-") else run.name,
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
        "command": command_of(config, f"{run.parent.name}-{run.name}" if run.name.startswith("seed-") else run.name),
    }
    for number, (stage, result) in enumerate(sorted(metrics["stages"].items()), start=1):
        final = number == len(metrics["stages"])
        if not final and "test" not in result:  # chosen automatically: tested at the end alone
            continue
        figures = metrics["test"] if final else result["test"]
        bounds = {
            f"{name}_{end}": value
            for name, interval in figures.get("intervals", {}).items()
            if name in WITH_INTERVALS and interval
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        yield shared | {"stage": stage.removeprefix("stage")} | {name: figures[name] for name in FIGURES} | bounds


def command_of(config: Mapping[str, Any], name: str) -> str:
    """The shortest command that gives this configuration."""
    recipe, epochs, mode = config["recipe"], config["stage1"]["epochs"] or None, config.get("mode") or None
    base = flatten(base_config(recipe, epochs=epochs, mode=mode, model=config["model"]["name"]))
    base["model.name"] = base_config(recipe)["model"]["name"]
    base["model.head"] = config["model"]["head"]  # "auto" resolved
    words = ["longtail", "train", config["data"]["source"], "--recipe", config["recipe"]]
    words += ["--epochs", str(epochs)] if epochs else []
    for key, value in flatten(dict(config)).items():
        of_speed = key.rpartition(".")[2] in EXECUTION
        if key not in {"recipe", "data.source"} and not of_speed and base.get(key) != value:
            flag = {"data.imbalance_ratio": "imbalance-ratio", "training.seed": "seed"}.get(key, key)
            words += [f"--{flag}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, "--out", name])


def write_rows(runs: list[Path], path: Path, keep: bool = False) -> None:
    """Write the rows of all runs to one CSV file; with ``keep`` after those that it has of other runs and seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [row for run in runs for row in rows_of(run)]
    made = {(row["run"], str(row["seed"])) for row in rows}
    earlier = [row for row in _read(path) if (row["run"], row["seed"]) not in made] if keep and path.exists() else []
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows([*earlier, *rows])


def finished(folder: Path) -> list[Path]:
    """The finished runs below a folder, in the order of their names."""
    return sorted(path.parent for path in folder.glob("**/metrics.json"))


def table(rows: list[dict[str, str]], source: str, published: list[dict[str, str]]) -> str:
    """The table, its circumstances and the commands, from the rows alone; seeds are folded into mean ± std."""
    folded: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        folded.setdefault((row["run"], row["stage"]), []).append(row)
    published_figures = {key: _published(seeds[0], source, published) for key, seeds in folded.items()}
    shown = any(published_figures.values())
    names = [name for name in FIGURES_SHOWN if name != "balanced_accuracy" or not _balanced(rows)]
    titles = [TITLES.get(name, name) for name in names]
    if shown:
        titles.insert(1, "published")
    lines = ["| run | stage | seeds | " + " | ".join(titles) + " |", "|---" * (len(titles) + 3) + "|"]
    for (run, stage), seeds in folded.items():
        figures = [spread([row[name] for row in seeds]) + interval(seeds, name) for name in names]
        if shown:
            figures.insert(1, published_figures[run, stage] or "-")
        lines.append(f"| {run} | {stage} | {len(seeds)} | " + " | ".join(figures) + " |")
    first = rows[0]
    facts = (
        f"{first['train_images']} training images, imbalance ratio {float(first['imbalance_ratio']):g}, subset seed "
        f"{first['subset_seed']}, data hash `{first['data_hash'][:23]}…`; torch {first['torch']}, longtail "
        f"{first['longtail']}; {first['processor']}, {first['cores']} cores, {first['device']}."
    )
    commands = "\n".join(dict.fromkeys(row["command"] for row in rows))
    folded_commands = f"<details><summary>Commands</summary>\n\n```\n{commands}\n```\n\n</details>\n"
    return "\n".join([*lines, "", facts, "", f"Rows: [{source}]({source}).", "", folded_commands])


def _published(row: dict[str, str], source: str, published: list[dict[str, str]]) -> str:
    """The published figure of the same recipe on the same data, for a full schedule and its last stage only."""
    last = "2" if int(row["epochs_stage2"]) else "1"
    if int(row["epochs_stage1"]) < FULL_EPOCHS or row["stage"] != last:
        return ""
    for figure in published:
        same = source.startswith(f"{figure['dataset']}-") and row["recipe"] == f"cifar-lt/{figure['recipe']}"
        if same and round(float(row["imbalance_ratio"])) == int(figure["imbalance_ratio"]):
            low, high = figure["low"], figure["high"]
            mark = "" if figure["kind"] == "published" else f" ({figure['kind']})"
            return f"{low}{mark}" if low == high else f"{low} to {high}{mark}"
    return ""


def _balanced(rows: list[dict[str, str]]) -> bool:
    """Whether the test images are as many of each class, so that accuracy and balanced accuracy are one."""
    return all(abs(float(row["accuracy"]) - float(row["balanced_accuracy"])) < 1e-6 for row in rows)


def interval(rows: list[dict[str, str]], name: str) -> str:
    """The 95% interval of a figure in percent, the mean of both bounds over seeds; nothing where none was stored."""
    bounds = [[float(row[key]) for row in rows if row.get(key)] for key in (f"{name}_low", f"{name}_high")]
    if not all(bounds):
        return ""
    low, high = (100 * statistics.mean(bound) for bound in bounds)
    return f" [{low:.0f}, {high:.0f}]"


def spread(values: list[str]) -> str:
    """Fractions as percent with one decimal, mean ± standard deviation where there are several; n/a where empty.

    >>> spread(["0.5"]), spread(["0.5", "0.52"]), spread([""])
    ('50.0', '51.0 ± 1.4', 'n/a')
    """
    if "" in values:
        return "n/a"
    numbers = [float(value) * 100 for value in values]
    mean = f"{statistics.mean(numbers):.1f}"
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):.1f}"


def fill(page: Path) -> None:
    """Make every table of a page anew: each stands between two marks, of which the first names its file of rows.

    Files of rows that the page does not know yet get a section at its end; what they show is for people to write.
    """
    published = _read(page.with_name("published.csv"))
    text = page.read_text() if page.exists() else "# Results\n"
    for rows in sorted(page.parent.glob("cifar*.csv")):
        if f"<!-- rows begin {rows.name} -->" not in text:
            text += f"\n## {rows.stem}\n\n<!-- rows begin {rows.name} -->\n<!-- rows end -->\n"

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{table(_read(page.with_name(match[2])), match[2], published)}\n{match[3]}"

    page.write_text(MARKED.sub(made, text))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows", help="gather runs into a file of rows")
    rows.add_argument("runs", type=Path, nargs="+")
    rows.add_argument("--csv", type=Path, required=True)
    rows.add_argument("--keep", action="store_true", help="keep the rows that the file has of other runs")
    make = commands.add_parser("page", help="make the tables of a page anew")
    make.add_argument("page", type=Path)
    options = parser.parse_args()
    if options.command == "rows":
        write_rows(options.runs, options.csv, options.keep)
    else:
        fill(options.page)


if __name__ == "__main__":
    main()
