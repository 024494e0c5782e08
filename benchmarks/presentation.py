"""What more pixels, more views and another fit buy: features of images shown in several ways, judged by one procedure.

python benchmarks/presentation.py --source fish=parquet:fish4knowledge --group trajectory --sizes 96 128 160 224
python benchmarks/presentation.py --source cifar100=cifar100 --ratio 100 --whole --sizes 64 96 128 160
python benchmarks/presentation.py --source lite1=parquet:fish4knowledge --model timm:tf_efficientnet_lite1 --sizes 224
python benchmarks/presentation.py --source stamps=stamps --fits crop pad stretch --at 160
python benchmarks/presentation.py --source fish=parquet:fish4knowledge --group trajectory --sizes 96 224 --sample 2000

Each row is one seed of one classifier on the features of one presentation: the choice of the portfolio, or balanced
logistic regression, on the test images. ``--views`` are augmented views of each training image, on which the classifier
is trained that was chosen on the images as they are. With ``--sample`` the presentations are compared without a test
set, as ``longtail train`` does: by a few quick classifiers in cross-validation on that many training images at most,
every class kept, the same folds for each.
Seconds are of processor time, of one core; those of features follow from a measured rate.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import rows_to_json
from portfolio import Arrays, add_rows, answers_of, counts_of, features, figures, logistic_regression

from longtail import ClassCounts
from longtail.config.auto import feature_schedule
from longtail.counts import IntArray
from longtail.models.heads import standardization
from longtail.run.portfolio import Portfolio
from longtail.training.cross_validation import Samples
from longtail.training.portfolio import choose_classifier, judge_features

NATIVE = 224 / 256  # the share of the shorter side that the network's own preprocessing keeps
STRENGTHS = (0.001, 0.01)  # C of logistic regression
COLUMNS = (
    "set",
    "judged",
    "size",
    "fit",
    "views",
    "classifier",
    "seed",
    "accuracy",
    "balanced_accuracy",
    "many",
    "medium",
    "few",
    "features_seconds",
    "images_per_second",
    "seconds",
    "chosen",
)


@dataclass(frozen=True)
class Presentation:
    """How images are shown to the network.

    Attributes:
        size: Side of its input in pixels.
        fit: ``crop``, ``pad`` or ``stretch``.
        views: Augmented views of each training image; 0 for the images as they are.
        whole: Whether the shorter side is seen to its ends; else the network's own share of it.
        model: The network; None for the one that ``auto`` takes on a CPU.
        precision: Arithmetic of the network.
    """

    size: int
    fit: str = "crop"
    views: int = 0
    whole: bool = False
    model: str | None = None
    precision: str = "auto"

    def features(self, source: str, data: Mapping[str, Any]) -> Arrays:
        """Return the features of a source shown in this way."""
        shorter = self.size if self.whole else round(self.size / NATIVE)
        shown = {"image_size": self.size, "resize": shorter, "fit": self.fit}
        return features(source, {**data, **shown}, self.views, timed=True, model=self.model, precision=self.precision)


def main() -> int:
    """Compute the features of each presentation, judge them, and write the rows."""
    flags = _flags()
    name, _, source = flags.source.partition("=")
    data = {"group_column": flags.group, "imbalance_ratio": flags.ratio}
    show = partial(Presentation, whole=flags.whole, model=flags.model, precision=flags.precision)
    plain = [show(size) for size in flags.sizes] + [show(flags.at, fit) for fit in flags.fits]
    rows: list[dict[str, Any]] = []
    for shown in dict.fromkeys(plain):
        arrays = shown.features(source, data)
        judges = [sampled(arrays, flags.sample, flags.seeds)] if flags.sample else [tested(arrays, flags.seeds)]
        rows += [_row(name, shown, arrays, line) for judge in judges for line in judge]
    if flags.views:
        arrays = show(flags.at).features(source, data)
        portfolios = [choice(arrays, seed) for seed in range(flags.seeds)]
        for number in flags.views:
            shown = show(flags.at, views=number)
            augmented = arrays | shown.features(source, data)
            rows += [_row(name, shown, augmented, line) for line in on_views(augmented, portfolios)]
    add_rows(rows, flags.csv, COLUMNS, of=COLUMNS[:5])
    rows_to_json(flags.json, rows)
    print("\n".join(summary(flags.csv)))
    return 0


def summary(file: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table: balanced accuracy in % of each presentation, and its deviation."""
    found: dict[tuple[str, ...], dict[str, list[dict[str, str]]]] = {}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            which = found.setdefault(tuple(row[key] for key in ("set", "size", "fit", "views", "judged")), {})
            which.setdefault(row["classifier"], []).append(row)
    yield "| set | pixels | fit | views | judged on | images/s | seconds | logistic regression | chosen |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for key, classifiers in found.items():
        balanced = {
            name: 100 * np.array([float(row["balanced_accuracy"]) for row in rows])
            for name, rows in classifiers.items()
        }
        first = next(iter(classifiers.values()))[0]
        plain = [values for name, values in balanced.items() if name.startswith("logistic")]
        sides = [max(plain, key=np.mean, default=None), balanced.get("portfolio", balanced.get("contest"))]
        cells = ["" if side is None else f"{side.mean():.1f}{_spread(side)}" for side in sides]
        time_of = [first["images_per_second"], f"{float(first['features_seconds']):.0f}"]
        yield f"| {' | '.join([*key, *time_of, *cells])} |"


def _spread(values: Any) -> str:
    return f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""


def _row(name: str, shown: Presentation, arrays: Arrays, line: dict[str, Any]) -> dict[str, Any]:
    """Complete a row by what it is of, and the time of all features, those of each view too."""
    images = len(arrays["train"]) * max(1, shown.views) + len(arrays["test"])
    rate = arrays["rate"]
    values = {"set": name, "size": shown.size, "fit": shown.fit, "views": shown.views}
    values |= {"features_seconds": round(images / rate, 1), "images_per_second": round(rate)} | line
    print(values, flush=True)
    return values


def choice(arrays: Arrays, seed: int) -> Portfolio:
    """Choose a classifier on the features of the training images."""
    counts = counts_of(arrays)
    units = arrays["units"]
    return choose_classifier(
        Samples(arrays["train"], arrays["train_labels"], counts, counts.groups(), units=units, seed=seed)
    )


def tested(arrays: Arrays, seeds: int) -> Iterator[dict[str, Any]]:
    """Judge both classifiers on the test images."""
    labels, counts, truth = arrays["train_labels"], counts_of(arrays), arrays["test_labels"].numpy()
    rows, tests = standardized(arrays["train"], arrays["test"])
    yield from regressions(rows, labels, tests, truth, counts)
    for seed in range(seeds):
        begun = time.process_time()
        portfolio = choice(arrays, seed)
        (answers,) = answers_of([portfolio.choice], portfolio, rows, labels, counts, tests)
        yield _judged(answers, truth, counts, "portfolio", seed, time.process_time() - begun, portfolio.choice.title)


def on_views(arrays: Arrays, portfolios: Sequence[Portfolio]) -> Iterator[dict[str, Any]]:
    """Judge both classifiers, trained on all views of the training images, on the test images as they are."""
    views, truth, counts = arrays["views"], arrays["test_labels"].numpy(), counts_of(arrays)
    labels = arrays["train_labels"].repeat(len(views))
    rows, tests = standardized(views.flatten(0, 1), arrays["test"])
    yield from regressions(rows, labels, tests, truth, counts, len(views))
    epochs, _ = feature_schedule(len(labels))
    for portfolio in portfolios:
        begun = time.process_time()
        (answers,) = answers_of([portfolio.choice], portfolio, rows, labels, counts, tests, epochs)
        seconds = time.process_time() - begun
        yield _judged(answers, truth, counts, "portfolio", portfolio.seed, seconds, portfolio.choice.title)


def regressions(
    rows: torch.Tensor, labels: torch.Tensor, tests: torch.Tensor, truth: Any, counts: ClassCounts, views: int = 1
) -> Iterator[dict[str, Any]]:
    """Judge logistic regression with each strength, which is for one view: more of them weigh more."""
    for strength in STRENGTHS:
        begun = time.process_time()
        answers = logistic_regression(rows, labels, strength / views).predict(tests.numpy())
        seconds = time.process_time() - begun
        yield _judged(answers, truth, counts, f"logistic regression, C {strength:g}", 0, seconds)


def _judged(
    answers: Any, truth: Any, counts: ClassCounts, classifier: str, seed: int, seconds: float, chosen: str = ""
) -> dict[str, Any]:
    values = {"judged": "test", "classifier": classifier, "seed": seed, "seconds": round(seconds, 1), "chosen": chosen}
    return values | figures(answers, truth, counts)


def standardized(rows: torch.Tensor, tests: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardize features by the mean and deviation of the training rows."""
    mean, deviation = standardization(rows)
    return (rows - mean) / deviation, (tests - mean) / deviation


def sampled(arrays: Arrays, limit: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Judge features in cross-validation on a sample of the training images, another for each seed, as a run does."""
    groups = counts_of(arrays).groups()
    for seed in range(seeds):
        rows = sample(arrays["train_labels"].numpy(), arrays["units"], limit, seed)
        labels, units, begun = arrays["train_labels"][rows], arrays["units"][rows], time.process_time()
        counts = ClassCounts(np.bincount(labels))
        judged = judge_features(Samples(arrays["train"][rows], labels, counts, groups, units=units, seed=seed))
        yield {
            "judged": f"sample of {limit}",
            "classifier": "contest",
            "seed": seed,
            "accuracy": round(float(judged.figures["accuracy"]), 4),
            "balanced_accuracy": round(judged.score, 4),
            "seconds": round(time.process_time() - begun, 1),
        }


def sample(labels: IntArray, units: IntArray, limit: int, seed: int) -> IntArray:
    """Draw training images, whole units of them, until each class has all of its images or as many as the others.

    Args:
        labels: Class indices, shape (N,).
        units: Numbers of the images that stay together, shape (N,).
        limit: Number of images, of which the last unit of a class may be over.
        seed: Seed of the draw.

    Returns:
        Their rows, in order.
    """
    sizes = np.bincount(labels)
    most = next(number for number in range(sizes.max(), 0, -1) if np.minimum(sizes, number).sum() <= limit)
    members: dict[int, list[int]] = {}
    for row, unit in enumerate(units.tolist()):
        members.setdefault(unit, []).append(row)
    drawn, kept = np.zeros_like(sizes), list[int]()
    for unit in np.random.default_rng(seed).permutation(list(members)).tolist():
        added = np.bincount(labels[members[unit]], minlength=len(sizes))
        if ((added > 0) & (drawn < most)).any():
            kept, drawn = kept + members[unit], drawn + added
    return np.sort(np.array(kept))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, metavar="NAME=SOURCE", help="images with a test split")
    parser.add_argument("--group", help="column of the images that stay together")
    parser.add_argument("--ratio", type=float, help="imbalance ratio that the training images are cut to")
    parser.add_argument("--sizes", nargs="+", type=int, default=[], help="sides of the network's input in pixels")
    parser.add_argument("--fits", nargs="+", default=[], help="crop, pad, stretch, at the size of --at")
    parser.add_argument("--views", nargs="+", type=int, default=[], help="views per training image, at that size")
    parser.add_argument("--at", type=int, default=160, help="size of the fits and views")
    parser.add_argument("--whole", action="store_true", help="cut nothing off the ends of the shorter side")
    parser.add_argument("--sample", type=int, metavar="N", help="compare on N training images instead of the test set")
    parser.add_argument("--model", metavar="NAME", help="network; the one that auto takes on a CPU when not given")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of the network")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the choice, or of the samples")
    parser.add_argument("--csv", type=Path, default=Path("docs/results/presentation.csv"))
    parser.add_argument("--json", type=Path, help="file of the same rows")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
