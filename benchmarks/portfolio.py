"""Compare the classifier chosen from the portfolio with fixed ones, on the same frozen features; and time the choice.

python benchmarks/portfolio.py --source fish=parquet:fish4knowledge --group trajectory --csv docs/results/portfolio.csv
python benchmarks/portfolio.py --source cifar100=cifar100 --ratio 100 --size 128 --csv docs/results/portfolio.csv
python benchmarks/portfolio.py --table iris wine digits --ratio 8 --csv docs/results/portfolio.csv
python benchmarks/portfolio.py --time --json docs/performance/portfolio.json

Each row is one seed of one classifier: what ``auto`` took before there was a portfolio (logit adjustment on features as
they are), scikit-learn's balanced logistic regression on standardized features, the choice of the portfolio, and the
candidate that turns out best on the test set, which nobody can know beforehand. The test images decide nothing else.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Row, row, rows_to_json, show

from longtail import ClassCounts, LongTailClassifier
from longtail.losses import build_loss
from longtail.models.heads import standardization
from longtail.run.portfolio import Portfolio
from longtail.training.candidates import candidates
from longtail.training.parallel_heads import train_heads
from longtail.training.portfolio import choose_classifier

Arrays = dict[str, Any]
COLUMNS = ("set", "classifier", "seed", "accuracy", "balanced_accuracy", "many", "medium", "few", "seconds", "chosen")
REGULARIZATION = {"images": (0.001, 0.01), "table": (0.1, 1.0)}  # C of logistic regression


def main() -> int:
    """Gather features, fit every classifier, and write the rows."""
    flags = _flags()
    if flags.time:
        timed = [time_of_choice()]
        show(timed)
        rows_to_json(flags.json, timed)
        return 0
    rows: list[dict[str, Any]] = []
    for name in flags.table:
        rows += [line for seed in range(flags.seeds) for line in compare(name, table(name, flags.ratio, seed), seed)]
    if flags.source:
        name, _, source = flags.source.partition("=")
        arrays = features(source, flags.group, flags.ratio, flags.size)
        rows += [line for seed in range(flags.seeds) for line in compare(name, arrays, seed)]
    add_rows(rows, flags.csv)
    print("\n".join(summary(flags.csv)))
    return 0


def summary(file: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table: balanced accuracy (and accuracy) in %, mean and deviation over the seeds."""
    figures: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with file.open(newline="") as stream:
        for each in csv.DictReader(stream):
            pair = 100 * float(each["balanced_accuracy"]), 100 * float(each["accuracy"])
            figures[each["set"]][each["classifier"]].append(pair)
    heads = ("auto before", "logistic regression, the better C", "portfolio", "best candidate on the test set")
    yield f"| set | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for name, classifiers in figures.items():
        plain = [values for key, values in classifiers.items() if key.startswith("logistic")]
        sides = [max(plain) if head.startswith("logistic") else classifiers[head] for head in heads]
        yield f"| {name} | {' | '.join(map(_cell, sides))} |"


def _cell(values: list[tuple[float, float]]) -> str:
    balanced, accuracy = np.array(values).T
    spread = f" ± {balanced.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{balanced.mean():.1f}{spread} ({accuracy.mean():.1f})"


def features(source: str, group: str | None, ratio: float | None, size: int | None) -> Arrays:
    """Return the frozen features of a source, by the network that ``auto`` takes on a CPU."""
    from longtail.config.resolve import resolve
    from longtail.console import Reporter
    from longtail.data.splits import unit_numbers
    from longtail.models import build_model
    from longtail.training.engine import Engine
    from longtail.training.frozen_features import FeatureStore
    from longtail.training.prepared_data import make_decoder, make_inputs, prepare_data

    options: dict[str, Any] = {"recipe": "images/portfolio", "data.source": source, "data.validation_fraction": 0.0}
    options |= {"data.group_column": group} if group else {}
    options |= {"data.imbalance_ratio": ratio} if ratio else {}
    options |= {"data.image_size": size, "data.resize": size} if size else {}
    config, reporter = resolve(options), Reporter()
    prepared, engine = prepare_data(config.data, reporter), Engine(config.training)
    splits = prepared.data.splits
    decoders = {name: make_decoder(split, name, config.data) for name, split in splits.items()}
    inputs = make_inputs(decoders, config.data, engine.device, reporter, once=True)
    model = build_model(config.model.name, prepared.counts.num_classes, pretrained=True, in_size=config.data.image_size)
    seconds: dict[str, float] = defaultdict(float)
    store = FeatureStore(engine, model.eval(), inputs, decoders, reporter, seconds, config.data, fixed=True)
    units = unit_numbers(splits["train"], group)
    arrays: Arrays = {"units": np.arange(len(splits["train"])) if units is None else units}
    for name in ("train", "test"):
        stored = store.plain(name)
        arrays |= {name: stored.features[0], f"{name}_labels": stored.labels}
    return arrays


def table(name: str, ratio: float | None, seed: int) -> Arrays:
    """Return one of scikit-learn's tables, a third of it for testing, the rest cut to a long tail."""
    from sklearn import datasets

    rows, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    classes, generator = int(labels.max()) + 1, np.random.default_rng(seed)
    train: list[int] = []
    test: list[int] = []
    for label in range(classes):
        order = generator.permutation(np.flatnonzero(labels == label))
        held, rest = np.split(order, [len(order) // 3])
        kept = max(2, int(len(rest) * (ratio or 1.0) ** (-label / (classes - 1))))
        train, test = [*train, *rest[:kept]], [*test, *held]
    pick = {"train": train, "test": test}
    return {"units": None} | {
        key + suffix: torch.as_tensor(values[index], dtype=kind)
        for key, index in pick.items()
        for suffix, values, kind in (("", rows, torch.float32), ("_labels", labels, torch.int64))
    }


def compare(name: str, arrays: Arrays, seed: int) -> Iterator[dict[str, Any]]:
    """Fit every classifier with one seed, and yield its figures on the test rows."""
    from sklearn.linear_model import LogisticRegression

    train, labels = arrays["train"], arrays["train_labels"]
    classes = 1 + int(max(labels.max(), arrays["test_labels"].max()))
    counts = ClassCounts(np.bincount(labels, minlength=classes))
    truth = arrays["test_labels"].numpy()

    def line(classifier: str, answers: Any, seconds: float, chosen: str = "") -> dict[str, Any]:
        recall = np.array([np.mean(answers[truth == c] == c) if (truth == c).any() else np.nan for c in range(classes)])
        groups = {
            key: round(float(np.nanmean(recall[index])), 4) if len(index) else ""
            for key, index in counts.groups().items()
        }
        figures = {"accuracy": np.mean(answers == truth), "balanced_accuracy": np.nanmean(recall)}
        shown = {key: round(float(value), 4) for key, value in figures.items()}
        values = {"set": name, "classifier": classifier, "seed": seed, **shown, **groups}
        print(values, chosen, flush=True)
        return values | {"seconds": round(seconds, 1), "chosen": chosen}

    begun = time.perf_counter()
    before = LongTailClassifier(loss="logit-adjustment", random_state=seed).fit(train.numpy(), labels.numpy())
    yield line("auto before", before.predict(arrays["test"].numpy()), time.perf_counter() - begun)

    mean, deviation = standardization(train)
    rows, tested = (train - mean) / deviation, (arrays["test"] - mean) / deviation
    if seed == 0 or arrays["units"] is None:  # it draws nothing, but each seed has a table of its own
        for strength in REGULARIZATION["table" if arrays["units"] is None else "images"]:
            begun = time.perf_counter()
            plain = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
            plain.fit(rows.numpy(), labels.numpy())
            yield line(
                f"logistic regression, C {strength:g}", plain.predict(tested.numpy()), time.perf_counter() - begun
            )

    begun = time.perf_counter()
    portfolio = choose_classifier(train, labels, counts, counts.groups(), units=arrays["units"], seed=seed)
    answers = finalists(portfolio, rows, labels, counts, tested, seed)
    seconds = time.perf_counter() - begun
    chosen = portfolio.candidates[portfolio.chosen]
    yield line("portfolio", answers[portfolio.chosen], seconds, chosen.title)
    best = max(range(len(answers)), key=lambda number: line("", answers[number], 0.0)["balanced_accuracy"])
    yield line("best candidate on the test set", answers[best], seconds, portfolio.candidates[best].title)


def finalists(
    portfolio: Portfolio, rows: torch.Tensor, labels: torch.Tensor, counts: ClassCounts, tested: torch.Tensor, seed: int
) -> list[Any]:
    """Train every finalist on all training rows; return its answers to the test rows."""
    tried = {(each.name, each.plan.lr): each for each in candidates(rows.shape[1])}
    prior = torch.from_numpy(np.log(counts.prior)).float()
    answers = []
    for result in portfolio.finalists:
        candidate = tried[result.name, result.lr]
        train: Any = {"features": rows, "labels": labels, "counts": counts, "batch_size": portfolio.batch_size}
        weights = train_heads([candidate.plan], epochs=portfolio.epochs, seed=seed, **train)
        if candidate.retraining is not None:
            weighed = 1 / torch.from_numpy(counts.at_least_one).float()[labels]
            epochs = max(1, portfolio.epochs // 4)
            plans = [candidate.retraining]
            weights = train_heads(plans, epochs=epochs, seed=seed, row_weights=weighed, start=weights, **train)
        last = candidate.retraining or candidate.plan
        scale = build_loss(last.loss, counts, last.options).logit_scale
        answers.append((scale * weights[0].logits(0, tested) - result.tau * prior).argmax(dim=1).numpy())
    return answers


def time_of_choice(images: int = 25_000, size: int = 1_280, classes: int = 121) -> Row:
    """Time the whole portfolio on made-up features of a long tail, next to a single logistic regression."""
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    shares = 0.96 ** torch.arange(classes)
    labels = torch.multinomial(shares, images, replacement=True, generator=generator)
    centers = torch.randn(classes, size, generator=generator)
    rows = 0.3 * centers[labels] + torch.randn(images, size, generator=generator)
    counts = ClassCounts(np.bincount(labels, minlength=classes))
    portfolio = choose_classifier(rows, labels, counts, counts.groups())
    begun = time.perf_counter()
    LogisticRegression(C=0.001, class_weight="balanced", max_iter=300).fit(rows.numpy(), labels.numpy())
    other = time.perf_counter() - begun
    name = f"choosing among {len(portfolio.candidates)} classifiers, {images:,} x {size:,} features, {classes} classes"
    return row(name, portfolio.seconds, other, "s", higher_is_better=False, device=torch.device("cpu"))


def add_rows(rows: list[dict[str, Any]], file: Path) -> None:
    """Write rows into a file; those of other sets that it has stay."""
    sets = {row["set"] for row in rows}
    kept = []
    if file.is_file():
        with file.open(newline="") as stream:
            kept = [row for row in csv.DictReader(stream) if row["set"] not in sets]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", metavar="NAME=SOURCE", help="images with a test split, and what the rows call them")
    parser.add_argument("--group", help="column of the images that stay together")
    parser.add_argument("--size", type=int, help="side of the network's input in pixels")
    parser.add_argument("--table", nargs="+", default=[], help="tables of scikit-learn, such as iris")
    parser.add_argument("--ratio", type=float, help="imbalance ratio that the training images are cut to")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=Path("docs/results/portfolio.csv"))
    parser.add_argument("--time", action="store_true", help="time the choice on made-up features")
    parser.add_argument("--json", type=Path, help="file of the row of --time")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
