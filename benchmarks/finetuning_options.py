"""What layer decay, a moving average, the rate and the batch do to fine-tuning, judged on training images held out.

python benchmarks/finetuning_options.py fish=parquet:fish4knowledge --group trajectory --size 96 --epochs 2
python benchmarks/finetuning_options.py cifar100-lt=parquet:cifar100-lt-ir10 --ratio 100 --size 64 --epochs 1

A fifth of the training images is held out, stratified and by groups, another fifth for each seed. On the rest a
classifier is chosen on stored features, and the whole network trains on from it, once with each option. All are judged
as ``train --time-limit`` judges its trial: by balanced accuracy on the images held out, under the logit adjustment that
is best there. No test image is looked at.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from portfolio import add_rows

from longtail.config.build import with_options
from longtail.config.resolve import complete, resolve
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.dataset import ImageData
from longtail.data.splits import fold_numbers, unit_numbers
from longtail.run.layout import read_config
from longtail.training.engine import Engine
from longtail.training.experiment import Experiment
from longtail.training.finetuning import finetune_stage
from longtail.training.judgment import HeldOut, bootstrap_draws
from longtail.training.launch import start_run
from longtail.training.prepared_data import prepare_data
from longtail.training.split_evaluation import collect_logits

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "moving average, 0.99": {"finetune.ema_decay": 0.99},
    "layer decay, 0.75": {"finetune.optimizer.layer_decay": 0.75},
    "layer decay, 0.75, twice the rate": {"finetune.optimizer.layer_decay": 0.75, "finetune.optimizer.lr": 4e-4},
    "half the rate": {"finetune.optimizer.lr": 1e-4},
    "twice the rate": {"finetune.optimizer.lr": 4e-4},
    "batches of 64": {"finetune.batch_size": 64},
    "images as they are": {"finetune.augmentation": "none"},
    "statistics of the batch": {"finetune.freeze_batch_norm": False},
}
KEYS = ("set", "size", "epochs", "option", "seed")
COLUMNS = (*KEYS, "held_out", "accuracy", "balanced_accuracy", "standard_error", "tau", "processor_seconds")
QUIET = Reporter(quiet=True)


def main() -> int:
    """Train each option with each seed, write a row after each, and print a table."""
    flags = _flags()
    name, _, source = flags.source.partition("=")
    data = {"data.source": source, "data.group_column": flags.group, "data.imbalance_ratio": flags.ratio}
    for seed in range(flags.seeds):
        given = data | {"data.image_size": flags.size, "data.resize": flags.size, "training.seed": seed}
        config = resolve({"recipe": "images/portfolio"} | given)
        for line in judged(config, flags.epochs, flags.only or list(OPTIONS)):
            row = {"set": name, "size": flags.size, "epochs": flags.epochs, "seed": seed} | line
            print(row, flush=True)
            add_rows([row], flags.csv, COLUMNS, KEYS)
    print("\n".join(summary(flags.csv)))
    return 0


def judged(asked: RunConfig, epochs: float, options: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of a classifier on the frozen network, and of each option after it."""
    prepared = prepare_data(asked.data)
    split, seed = prepared.data.splits["train"], asked.training.seed
    units = unit_numbers(split, asked.data.group_column)
    numbers = fold_numbers(split.labels, 5, seed=seed, units=units)
    held, rest = np.flatnonzero(numbers == 0), np.flatnonzero(numbers != 0)
    images = ImageData(
        prepared.data.source, prepared.data.classes, {"train": split.select(rest), "test": split.select(held)}
    )
    whole = replace(asked.data, imbalance_ratio=None, validation_fraction=0.0)
    draws = bootstrap_draws(held, units, seed)
    out = HeldOut(split.labels[held], prepared.counts, prepared.groups, "balanced", draws)
    with tempfile.TemporaryDirectory() as folder:
        start_run(replace(asked, data=whole), Path(folder) / "chosen", QUIET, source=images)
        chosen = read_config(Path(folder) / "chosen")
        chosen = replace(chosen, model=replace(chosen.model, tau=0.0))
        yield {"option": "frozen", **figures(chosen, images, Path(folder) / "frozen", out)}
        stage = finetune_stage(chosen.last_stage, len(rest), epochs * len(rest), 1.0)
        for number, option in enumerate(options):
            config = with_options(complete(replace(chosen, finetune=stage)), OPTIONS[option])
            yield {"option": option, **figures(config, images, Path(folder) / str(number), out)}


def figures(config: RunConfig, images: ImageData, folder: Path, out: HeldOut) -> dict[str, Any]:
    """Train a configuration, and judge its answers to the images held out."""
    begun = time.process_time()
    experiment = Experiment(config, folder, QUIET, Engine(config.training), source=images)
    experiment.train()
    logits, _ = collect_logits(
        experiment.engine, experiment.model, experiment.inputs["test"], num_images=len(images.splits["test"])
    )
    judgment = out.judge(logits * experiment.record.scale)
    return {
        "held_out": len(images.splits["test"]),
        "accuracy": round(float(judgment.figures["accuracy"]), 4),
        "balanced_accuracy": round(judgment.score, 4),
        "standard_error": round(float(np.std(judgment.replicates["balanced"])), 4),
        "tau": judgment.tau,
        "processor_seconds": round(time.process_time() - begun),
    }


def summary(file: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table: balanced accuracy of each option in %, and its change with each seed."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    sets = list(dict.fromkeys((row["set"], row["size"], row["epochs"]) for row in rows))
    yield "| | " + " | ".join(f"{name}, {size} px, {epochs} epochs" for name, size, epochs in sets) + " |"
    yield "|---|" + "---|" * len(sets)
    score = {tuple(row[key] for key in KEYS): 100 * float(row["balanced_accuracy"]) for row in rows}
    for option in dict.fromkeys(row["option"] for row in rows):
        cells = []
        for of in sets:
            seeds = sorted({key[-1] for key in score if key[:4] == (*of, option)})
            values = np.array([score[(*of, option, seed)] for seed in seeds])
            changes = [score[(*of, option, seed)] - score[(*of, "as it is", seed)] for seed in seeds]
            change = "" if option == "as it is" else f" ({', '.join(f'{value:+.1f}' for value in changes)})"
            cells.append(f"{values.mean():.1f}{change}" if seeds else "")
        yield f"| {option} | {' | '.join(cells)} |"


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="NAME=SOURCE", help="images")
    parser.add_argument("--group", help="column of the images that stay together")
    parser.add_argument("--ratio", type=float, help="imbalance ratio that the training images are cut to")
    parser.add_argument("--size", type=int, default=96, help="side of the network's input in pixels")
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over the images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), help="options to try")
    parser.add_argument("--csv", type=Path, default=Path("docs/results/finetuning-options.csv"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
