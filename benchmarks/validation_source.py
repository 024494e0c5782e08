"""Make a source to choose on: a long-tailed training set, tested on training images that its ratio leaves out.

python benchmarks/validation_source.py parquet:cifar100 chosen-on --imbalance-ratio 100
longtail train parquet:chosen-on --recipe cifar-lt/gcl

A carve-out of a long-tailed training set has one image of a class of five, which says nothing about that class. Here
the test images of a class are training images that the ratio leaves out (``--per-class``), and only where a class
has too few of those, some that it would have been trained on; no image is in both parts, and the real test set is in
neither. A user with the same training set has no such images: this compares recipes of a published benchmark.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import datasets
import numpy as np

from longtail.data.dataset import Split
from longtail.data.sources.registry import load_source
from longtail.data.subsets import cut_long_tailed


def main() -> None:
    """Write OUT/train.parquet and OUT/test.parquet."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", help="a source whose training images are cut")
    options.add_argument("out", type=Path)
    options.add_argument("--imbalance-ratio", type=float, default=100.0)
    options.add_argument("--per-class", type=int, default=40, help="test images of each class")
    flags = options.parse_args()
    data = load_source(flags.source)
    train, chosen_on = divide(data.splits["train"], data.classes, flags.imbalance_ratio, flags.per_class)
    flags.out.mkdir(parents=True, exist_ok=True)
    for name, split in {"train": train, "test": chosen_on}.items():
        table(split, data.classes).to_parquet(flags.out / f"{name}.parquet")
        counts = np.bincount(split.labels, minlength=len(data.classes))
        print(f"{name}: {len(split)} images, {counts.min()} to {counts.max()} a class")


def divide(available: Split, classes: tuple[str, ...], ratio: float, per_class: int) -> tuple[Split, Split]:
    """Return the images to train on, and as many of each class to choose on, none of which is in both."""
    kept = set(cut_long_tailed(available, classes, ratio).origin_rows.tolist())
    is_kept = np.array([row in kept for row in available.origin_rows.tolist()])
    chosen = np.zeros(len(available), dtype=bool)
    for label in range(len(classes)):
        of_class = np.flatnonzero(available.labels == label)
        left_out_first = of_class[np.argsort(is_kept[of_class], kind="stable")]
        chosen[left_out_first[:per_class]] = True
    return available.select(np.flatnonzero(is_kept & ~chosen)), available.select(np.flatnonzero(chosen))


def table(split: Split, classes: tuple[str, ...]) -> datasets.Dataset:
    """The images as they are stored, in the layout of Hugging Face."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(classes))})
    images = [split.encoded(index) for index in range(len(split))]
    return datasets.Dataset.from_dict({"image": images, "label": split.labels.tolist()}, features=features)


if __name__ == "__main__":
    main()
