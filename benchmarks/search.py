"""Which S, A, E and K for 5, 20 or 100 classes? Searched on held-out training images, never on a test set.

python benchmarks/search.py SOURCE --out runs/search --csv docs/results/search.csv
python benchmarks/search.py SOURCE --linear --out runs/search --csv docs/results/search.csv

Rows that the file has of the other way of training, or of other numbers of classes, stay. An option is set in both
stages of a method that has two.

A draw takes K classes at random from the training split of SOURCE, holds out twenty images of each as a balanced
validation split, and cuts the rest to the ratio. The test split is left out of the data, so nothing could be read from
it. Draws have other classes, so values are compared within a draw, with the published one.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path

import numpy as np
from common import train_grid

from longtail.data.dataset import Split
from longtail.data.sources.registry import load_source
from longtail.data.subsets import cut_long_tailed

HELD_OUT = 20  # images of each class
# As many steps for few classes as for many, roughly: fewer classes mean fewer images.
EPOCHS = {5: 60, 20: 30, 100: 15}
# Recipe, option, values, and the one among them that others are compared with: the published one, where there is one.
OPTIONS = {
    "gcl-scale": ("gcl", "scale", [5.0, 10.0, 20.0, 30.0, 60.0], 30.0),
    "gcl-noise": ("gcl", "noise", [0.0, 0.25, 0.5, 1.0], 0.5),
    "agcl-noise": ("agcl", "noise", [0.05, 0.1, 0.2, 0.4], 0.1),
    "fbl-strength": ("fbl", "strength", [5.0, 20.0, 60.0, 180.0], 60.0),
}


def main() -> None:
    """One grid for each number of classes; then the validation figures of all runs as rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="SOURCE with at least as many classes, of 50 images or more")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--classes", type=int, nargs="+", default=sorted(EPOCHS))
    parser.add_argument("--imbalance-ratio", type=float, default=50.0)
    parser.add_argument("--draws", type=int, default=3, help="of classes, each with a seed of its own")
    parser.add_argument("--linear", action="store_true", help="the classifier alone, on features of ImageNet weights")
    parser.add_argument("--model", default="resnet20", help="trained from nothing, without --linear")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=None)
    flags = parser.parse_args()
    rows: list[dict[str, object]] = []
    training = "linear" if flags.linear else "scratch"
    for classes in flags.classes:
        folders = [flags.out / f"{classes}-classes" / f"draw-{draw}" for draw in range(flags.draws)]
        for draw, folder in enumerate(folders):
            if not (folder / "data").exists():
                unfinished = folder / "unfinished"
                hold_out(flags.source, classes, flags.imbalance_ratio, draw, unfinished)
                unfinished.rename(folder / "data")
            if train_grid(grid(flags, classes, draw, folder / "data"), folder / training, flags.jobs):
                raise SystemExit("a run failed or was stopped: the same command continues; no rows were written.")
        rows += gather([folder / training for folder in folders], classes, training)
    write(rows, flags.csv)


def write(rows: list[dict[str, object]], path: Path) -> None:
    """Write rows after those that the file has of other numbers of classes or of the other way of training."""
    made = {(str(row["training"]), str(row["classes"])) for row in rows}
    earlier: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            earlier = [row for row in csv.DictReader(file) if (row["training"], row["classes"]) not in made]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*earlier, *rows])


def hold_out(source: str, classes: int, ratio: float, draw: int, folder: Path) -> None:
    """Write a training split cut to a ratio and a balanced validation split of the same classes."""
    import datasets

    data = load_source(source)
    train = data.splits["train"]
    random = np.random.default_rng(draw)
    chosen = random.permutation(len(data.classes))[:classes]
    rows = {label: random.permutation(np.flatnonzero(train.labels == label)) for label in chosen}
    held = np.concatenate([rows[label][:HELD_OUT] for label in chosen])
    rest = np.concatenate([rows[label][HELD_OUT:] for label in chosen])
    number = {int(label): index for index, label in enumerate(chosen)}
    names = datasets.ClassLabel(names=[data.classes[label] for label in chosen])

    def relabeled(part: Split) -> Split:
        labels = [number[int(label)] for label in part.labels]
        table = part.rows.remove_columns("label").add_column("label", labels).cast_column("label", names)
        return Split(table)

    subset = cut_long_tailed(relabeled(train.select(rest)), classes, ratio)
    saved = {"train": subset.rows, "validation": relabeled(train.select(held)).rows}
    datasets.DatasetDict(saved).save_to_disk(folder)


def grid(flags: argparse.Namespace, classes: int, draw: int, source: Path) -> dict[str, object]:
    """Each option around its published value, the rest as published except mixing, which a short run cannot use."""
    options: dict[str, object] = {
        "data.test_fraction": 0.0,
        "training.precision": "bf16",
        "training.validate_every": 0,
    }
    if flags.linear:
        options |= {"mode": "linear", "data.augmentation": "none", "stage1.cached_views": 1}
    else:
        options |= {
            "model.name": flags.model,
            "data.image_size": flags.image_size,
            "data.crop_padding": flags.image_size // 8,
        }
    runs = {}
    for name, (recipe, option, values, _) in OPTIONS.items():
        for value in values:
            changes: dict[str, object] = {f"stage1.loss.options.{option}": value}
            if recipe != "fbl":
                views = 1 if flags.linear else 4
                changes |= {f"stage2.loss.options.{option}": value}
                changes |= {"stage1.mixing": "none", "stage2.mixing": "none", "stage2.cached_views": views}
            runs[f"{name}-{value:g}"] = {
                "recipe": f"{'images' if flags.linear else 'cifar-lt'}/{recipe}",
                "set": changes,
            }
    epochs = {} if flags.linear else {"epochs": EPOCHS.get(classes, 30)}
    return {"source": f"hf:{source}", "seeds": [draw], "set": options, "runs": runs} | epochs


def gather(folders: list[Path], classes: int, training: str) -> list[dict[str, object]]:
    """Validation accuracy (the split is balanced) by option and value, and how far it is above the published value."""
    rows = []
    for name, (recipe, option, values, published) in OPTIONS.items():
        accuracies = {value: [accuracy(folder / f"{name}-{value:g}") for folder in folders] for value in values}
        for value in values:
            pairs = zip(accuracies[value], accuracies[published], strict=True)
            differences = [mine - theirs for mine, theirs in pairs]
            rows.append(
                {
                    "training": training,
                    "classes": classes,
                    "recipe": recipe,
                    "option": option,
                    "value": value,
                    "draws": len(folders),
                    "accuracy": round(statistics.mean(accuracies[value]), 2),
                    "above_published": round(statistics.mean(differences), 2),
                    "above_published_std": round(statistics.stdev(differences), 2) if len(folders) > 1 else "",
                }
            )
    return rows


def accuracy(run: Path) -> float:
    """Balanced validation accuracy of the only seed of a run, in percent."""
    (path,) = run.glob("seed-*/metrics.json")
    return 100 * float(json.loads(path.read_text())["validation"]["balanced_accuracy"])


if __name__ == "__main__":
    main()
