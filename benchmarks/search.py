"""Which S, A, E and K for 5, 20 or 100 classes? Searched on held-out training images, never on a test set.

python benchmarks/search.py SOURCE --out runs/search --csv docs/results/search.csv

From the training split of SOURCE, K classes are drawn, twenty images of each are held out as a balanced validation
split, and the rest is cut to the ratio. The test split is left out of the data, so nothing could be read from it.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path

import numpy as np
from common import train_grid

from longtail.data.sources import Split, load_source
from longtail.data.subsets import cut_long_tailed

HELD_OUT = 20  # images of each class
# As many steps for few classes as for many, roughly: fewer classes mean fewer images.
EPOCHS = {5: 60, 20: 30, 100: 20}
OPTIONS = {
    "gcl-scale": ("gcl", "scale", [5.0, 10.0, 20.0, 30.0, 60.0]),
    "gcl-noise": ("gcl", "noise", [0.0, 0.25, 0.5, 1.0]),
    "agcl-noise": ("agcl", "noise", [0.05, 0.1, 0.2, 0.4]),
    "fbl-strength": ("fbl", "strength", [5.0, 20.0, 60.0, 180.0]),
}


def main() -> None:
    """One grid for each number of classes; then the validation figures of all runs as rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="SOURCE with at least as many classes, of 50 images or more")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--classes", type=int, nargs="+", default=sorted(EPOCHS))
    parser.add_argument("--imbalance-ratio", type=float, default=50.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=None)
    flags = parser.parse_args()
    rows = []
    for classes in flags.classes:
        out = flags.out / f"{classes}-classes"
        if not (out / "data").exists():
            hold_out(flags.source, classes, flags.imbalance_ratio, out / "data")
        train_grid(grid(flags, classes, out / "data"), out / "runs", flags.jobs)
        rows += gather(out / "runs", classes)
    with flags.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def hold_out(source: str, classes: int, ratio: float, folder: Path) -> None:
    """Write a training split cut to a ratio and a balanced validation split of the same classes."""
    import datasets

    data = load_source(source)
    train = data.splits["train"]
    random = np.random.default_rng(0)
    chosen = random.permutation(len(data.classes))[:classes]
    rows = {label: random.permutation(np.flatnonzero(train.labels == label)) for label in chosen}
    held = np.concatenate([rows[label][:HELD_OUT] for label in chosen])
    rest = np.concatenate([rows[label][HELD_OUT:] for label in chosen])
    number = {int(label): index for index, label in enumerate(chosen)}
    names = datasets.ClassLabel(names=[data.classes[label] for label in chosen])

    def relabelled(part: Split) -> Split:
        labels = [number[int(label)] for label in part.labels]
        table = part.rows.remove_columns("label").add_column("label", labels).cast_column("label", names)
        return Split(table)

    kept = cut_long_tailed(relabelled(train.select(rest)), classes, ratio)
    saved = {"train": kept.rows, "validation": relabelled(train.select(held)).rows}
    datasets.DatasetDict(saved).save_to_disk(folder)


def grid(flags: argparse.Namespace, classes: int, source: Path) -> dict[str, object]:
    """Each option around its published value, the rest as published but for mixing, which a short run cannot use."""
    options = {
        "model.name": flags.model, "data.image_size": flags.image_size, "data.crop_padding": flags.image_size // 8,
        "data.test_fraction": 0.0, "training.precision": "bf16", "training.validate_every": 0,
    }  # fmt: skip
    runs = {}
    for name, (recipe, option, values) in OPTIONS.items():
        for value in values:
            own: dict[str, object] = {f"stage1.loss.options.{option}": value}
            if recipe != "fbl":
                own |= {"stage1.mixing": "none", "stage2.mixing": "none", "stage2.cached_views": 4}
            runs[f"{name}-{value:g}"] = {"recipe": f"cifar-lt/{recipe}", "set": own}
    return {
        "source": f"hf:{source}", "seeds": flags.seeds, "epochs": EPOCHS.get(classes, 30), "set": options, "runs": runs,
    }  # fmt: skip


def gather(folder: Path, classes: int) -> list[dict[str, object]]:
    """Validation accuracy (the split is balanced) by option and value, mean and standard deviation over seeds."""
    rows = []
    for name, (recipe, option, values) in OPTIONS.items():
        for value in values:
            found = [
                json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-{value:g}/seed-*/metrics.json"))
            ]
            if not found:
                continue
            counts = found[0]["train_counts"]
            figures = {
                key: [100 * metrics["stages"][stage]["validation"]["balanced_accuracy"] for metrics in found]
                for key, stage in (("stage1", "stage1"), ("last_stage", max(found[0]["stages"])))
            }
            row: dict[str, object] = {
                "classes": classes, "train_images": sum(counts), "imbalance_ratio": max(counts) / min(counts),
                "recipe": recipe, "option": option, "value": value, "seeds": len(found),
            }  # fmt: skip
            for key, numbers in figures.items():
                row[key] = round(statistics.mean(numbers), 2)
                row[f"{key}_std"] = round(statistics.stdev(numbers), 2) if len(numbers) > 1 else ""
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
