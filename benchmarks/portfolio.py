"""Compare the classifier chosen from the portfolio with fixed ones, on the same frozen features; and time the choice.

python benchmarks/portfolio.py --source fish=parquet:fish4knowledge --group trajectory
python benchmarks/portfolio.py --source cifar100=cifar100 --ratio 100 --size 128 --every docs/results/candidates.csv
python benchmarks/portfolio.py --table iris wine digits --ratio 8
python benchmarks/portfolio.py --time --json docs/performance/portfolio.json

Each row is one seed of one classifier: what ``auto`` took before there was a portfolio (logit adjustment on features as
they are), scikit-learn's balanced logistic regression on standardized features, the choice of the portfolio, the same
trained for twice as many epochs, the estimator with its defaults, which draws folds and order of its own, and the
candidate that turns out best on the test set, which nobody can know beforehand. The test images decide nothing else.
Seconds are of processor time. With ``--every`` each candidate is trained on all training rows and has a row.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Row, medians_of, row, rows_to_json, show

from longtail import ClassCounts, LongTailClassifier
from longtail.config.resolve import resolve
from longtail.console import Reporter
from longtail.data.splits import unit_numbers
from longtail.data.transforms.augmentation import BatchTransform
from longtail.losses import build_loss
from longtail.models.heads import standardization
from longtail.models.model import build_model
from longtail.run.portfolio import CandidateResult, Portfolio
from longtail.training.backbone_pass import backbone_pass
from longtail.training.candidates import candidates
from longtail.training.cross_validation import Samples
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.frozen_features import FeatureStore
from longtail.training.parallel_heads import train_heads
from longtail.training.portfolio import choose_classifier
from longtail.training.prepared_data import make_decoder, make_inputs, prepare_data

Arrays = dict[str, Any]
COLUMNS = ("set", "classifier", "seed", "accuracy", "balanced_accuracy", "many", "medium", "few", "seconds", "chosen")
CANDIDATE_COLUMNS = (*COLUMNS, "folds", "cross_validated", "behind", "behind_error", "above", "above_error")
REPLICATES = 400  # of the bootstrap
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
        for seed in range(flags.seeds):
            rows += compare(name, table(name, flags.ratio, seed), seed, every=bool(flags.every))
    if flags.source:
        name, _, source = flags.source.partition("=")
        size = {"image_size": flags.size, "resize": flags.size} if flags.size else {}
        arrays = features(source, {"group_column": flags.group, "imbalance_ratio": flags.ratio, **size})
        rows += [line for seed in range(flags.seeds) for line in compare(name, arrays, seed, every=bool(flags.every))]
    add_rows([each for each in rows if "folds" not in each], flags.csv)
    if flags.every:
        add_rows([each for each in rows if "folds" in each], flags.every, CANDIDATE_COLUMNS)
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
        better = max(plain, key=lambda pairs: float(np.mean(pairs, axis=0)[0]))
        sides = [better if head.startswith("logistic") else classifiers[head] for head in heads]
        yield f"| {name} | {' | '.join(map(_cell, sides))} |"


def _cell(values: list[tuple[float, float]]) -> str:
    balanced, accuracy = np.array(values).T
    spread = f" ± {balanced.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{balanced.mean():.1f}{spread} ({accuracy.mean():.1f})"


def features(
    source: str,
    data: Mapping[str, Any],
    views: int = 0,
    *,
    timed: bool = False,
    model: str | None = None,
    precision: str = "auto",
) -> Arrays:
    """Return the frozen features of a source.

    Args:
        source: Images with a test split.
        data: Options of the data, such as ``image_size``.
        views: Number of augmented views of each training image, from which ``views`` (V, N, D) are made; without an
            augmentation in ``data`` it is that of the recipes of photographs. 0 for the images as they are.
        timed: Whether to measure their rate, too.
        model: The network; by default the one that ``auto`` takes on a CPU.
        precision: Arithmetic of the network.
    """
    options: dict[str, Any] = {"recipe": "images/portfolio", "data.source": source, "data.validation_fraction": 0.0}
    options |= {"training.precision": precision} | ({"model.name": model} if model else {})
    options |= {"data.augmentation": "random-resized-crop"} if views else {}
    options |= {f"data.{name}": value for name, value in data.items() if value is not None}
    config, reporter = resolve(options), Reporter()
    prepared, engine = prepare_data(config.data, reporter), Engine(config.training)
    splits = prepared.data.splits
    decoders = {name: make_decoder(split, name, config.data) for name, split in splits.items()}
    inputs = make_inputs(decoders, config.data, engine.device, reporter, once=True)
    model = build_model(config.model.name, prepared.counts.num_classes, pretrained=True, in_size=config.data.image_size)
    seconds: dict[str, float] = defaultdict(float)
    store = FeatureStore(engine, model.eval(), inputs, decoders, reporter, seconds, config.data, fixed=True)
    units = unit_numbers(splits["train"], config.data.group_column)
    arrays: Arrays = {"units": np.arange(len(splits["train"])) if units is None else units}
    if views:
        arrays["views"] = store.views(1, views, seed=0).features
    tested = unit_numbers(splits["test"], config.data.group_column)
    arrays |= {} if tested is None else {"test_units": tested}
    for name in () if views else ("train", "test"):
        stored = store.plain(name)
        arrays |= {name: stored.features[0], f"{name}_labels": stored.labels}
    return arrays | ({"rate": images_per_second(store, views)} if timed else {})


def images_per_second(store: FeatureStore, views: int, images: int = 96, repeats: int = 3) -> float:
    """Measure the rate of features from encoded images, of one core: the median of some repeats of processor time."""
    base = store.inputs["train"]
    plain = ImageInputs(base.loader, BatchTransform(base.transform.mean, base.transform.std))
    count = len(store.decoders["train"].split)
    rows = torch.linspace(0, count - 1, min(count, images // max(1, views))).long()
    seeds: list[tuple[int, ...]] = [(4, view) for view in range(views)] or [(0,)]
    network, inputs = store.network, base if views else plain
    work = partial(backbone_pass, store.engine, network, inputs, rows, range(count), seeds)
    return len(rows) * len(seeds) / medians_of({"": work}, repeats, clock=time.process_time)[""]


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


def compare(name: str, arrays: Arrays, seed: int, *, every: bool = False) -> Iterator[dict[str, Any]]:
    """Fit every classifier with one seed, and yield its figures on the test rows.

    Args:
        name: Of the set.
        arrays: Features and labels.
        seed: Of folds, order and noise.
        every: Whether each candidate has a row, those dropped early too.
    """
    train, labels, counts = arrays["train"], arrays["train_labels"], counts_of(arrays)
    line = partial(_line, name, seed, arrays["test_labels"].numpy(), counts)
    begun = time.process_time()
    before = LongTailClassifier(loss="logit-adjustment", random_state=seed).fit(train.numpy(), labels.numpy())
    yield line("auto before", before.predict(arrays["test"].numpy()), time.process_time() - begun)

    mean, deviation = standardization(train)
    rows, tested = (train - mean) / deviation, (arrays["test"] - mean) / deviation
    strengths = REGULARIZATION["table" if arrays["units"] is None else "images"]
    for strength in reversed(strengths):  # the first one is what candidates are compared with
        begun = time.process_time()
        plain = logistic_regression(rows, labels, strength).predict(tested.numpy())
        if seed == 0 or arrays["units"] is None:  # it draws nothing, but each seed has a table of its own
            yield line(f"logistic regression, C {strength:g}", plain, time.process_time() - begun)

    begun = time.process_time()
    portfolio = choose_classifier(Samples(train, labels, counts, counts.groups(), units=arrays["units"], seed=seed))
    seconds = time.process_time() - begun
    tried, begun = portfolio.candidates if every else portfolio.finalists, time.process_time()
    results = answers_of(tried, portfolio, rows, labels, counts, tested)
    each_seconds = (time.process_time() - begun) / len(tried)
    yield line("portfolio", results[portfolio.chosen], seconds, portfolio.choice.title)
    (longer,) = answers_of([portfolio.choice], portfolio, rows, labels, counts, tested, 2 * portfolio.epochs)
    yield line("portfolio, twice the epochs", longer, seconds, portfolio.choice.title)
    begun = time.process_time()
    estimator = LongTailClassifier(random_state=seed).fit(train.numpy(), labels.numpy(), arrays["units"])
    seconds_of_fit = time.process_time() - begun
    title = estimator.portfolio_.choice.title if estimator.portfolio_ else ""
    yield line("LongTailClassifier()", estimator.predict(arrays["test"].numpy()), seconds_of_fit, title)
    finalists = range(len(portfolio.finalists))
    best = max(finalists, key=lambda number: line("", results[number], 0.0)["balanced_accuracy"])
    yield line("best candidate on the test set", results[best], seconds, portfolio.candidates[best].title)
    for candidate, answers, (gain, error) in (
        zip(tried, results, differences([plain, *results], arrays), strict=True) if every else ()
    ):
        rate = candidate.lr * rows.shape[1] ** 0.5
        values = line(f"{candidate.name}, rate {rate:.2g}", answers, each_seconds, candidate.title)
        values |= {"folds": candidate.folds, "cross_validated": round(candidate.balanced_accuracy, 4)}
        values |= {"behind": candidate.behind, "behind_error": candidate.behind_error}
        yield values | {"above": round(gain, 4), "above_error": round(error, 4)}


def _line(
    name: str,
    seed: int,
    truth: Any,
    counts: ClassCounts,
    classifier: str,
    answers: Any,
    seconds: float,
    title: str = "",
) -> dict[str, Any]:
    values = {"set": name, "classifier": classifier, "seed": seed, **figures(answers, truth, counts)}
    print(values, title, flush=True)
    return values | {"seconds": round(seconds, 1), "chosen": title}


def differences(answers: Sequence[Any], arrays: Arrays) -> list[tuple[float, float]]:
    """Compare the balanced accuracy of each with that of the first, on the same test rows.

    Args:
        answers: Predicted classes (N,) of each classifier.
        arrays: The test labels, and the numbers of the units that stay together, where there are any.

    Returns:
        The difference of each but the first, and its standard error by a Bayesian bootstrap of the units.
    """
    truth = arrays["test_labels"].numpy()
    units = arrays.get("test_units", np.arange(len(truth)))
    drawn = np.random.default_rng(0).exponential(size=(REPLICATES, units.max() + 1))[:, units]
    weights = np.vstack([np.ones(len(truth)), drawn])  # the first row is the figure itself
    classes = np.eye(truth.max() + 1)[truth]
    classes = classes[:, classes.any(axis=0)]
    total = weights @ classes
    balanced = [((weights * (each == truth)) @ classes / total).mean(axis=1) for each in answers]
    gains = [each - balanced[0] for each in balanced[1:]]
    return [(float(gain[0]), float(gain[1:].std())) for gain in gains]


def counts_of(arrays: Arrays) -> ClassCounts:
    """Count the training rows of each class; classes that are only tested have none."""
    labels = arrays["train_labels"], arrays["test_labels"]
    return ClassCounts(np.bincount(labels[0], minlength=1 + int(max(each.max() for each in labels))))


def figures(answers: Any, truth: Any, counts: ClassCounts) -> dict[str, Any]:
    """Return accuracy, balanced accuracy and the mean recall of each shot group, rounded."""
    classes = range(counts.num_classes)
    recall = np.array([np.mean(answers[truth == c] == c) if (truth == c).any() else np.nan for c in classes])
    values = {"accuracy": np.mean(answers == truth), "balanced_accuracy": np.nanmean(recall)}
    values |= {key: np.nanmean(recall[index]) for key, index in counts.groups().items() if len(index)}
    return {key: round(float(values[key]), 4) if key in values else "" for key in COLUMNS[3:8]}


def logistic_regression(rows: torch.Tensor, labels: torch.Tensor, strength: float) -> Any:
    """Fit scikit-learn's balanced logistic regression on standardized rows."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    return fitted.fit(rows.numpy(), labels.numpy())


def answers_of(
    results: Sequence[CandidateResult],
    portfolio: Portfolio,
    rows: torch.Tensor,
    labels: torch.Tensor,
    counts: ClassCounts,
    tested: torch.Tensor,
    epochs: int | None = None,
) -> list[Any]:
    """Train candidates on all training rows at once; return their answers, each with the adjustment found for it."""
    by_name = {(each.name, each.plan.lr): each for each in candidates(rows.shape[1], len(rows))}
    tried = [by_name[result.name, result.lr] for result in results]
    length = epochs or portfolio.epochs
    train: Any = {"features": rows, "labels": labels, "counts": counts, "batch_size": portfolio.batch_size}
    train |= {"seed": portfolio.seed}
    weights = train_heads([each.plan for each in tried], epochs=length, **train)
    second = {number: each.retraining for number, each in enumerate(tried) if each.retraining is not None}
    if second:
        train["row_weights"] = 1 / torch.from_numpy(counts.at_least_one).float()[labels]
        start = [weights[number] for number in second]
        retrained = train_heads(list(second.values()), epochs=max(1, length // 4), start=start, **train)
        for number, changed in zip(second, retrained, strict=True):
            weights[number] = changed
    prior = torch.from_numpy(np.log(counts.prior)).float()
    answers = []
    for result, each, trained in zip(results, tried, weights, strict=True):
        last = each.retraining or each.plan
        scale = build_loss(last.loss, counts, last.options).logit_scale
        answers.append((scale * trained.logits(0, tested) - result.tau * prior).argmax(dim=1).numpy())
    return answers


def time_of_choice(images: int = 25_000, size: int = 1_280, classes: int = 121) -> Row:
    """Time the whole portfolio on made-up features of a long tail, next to a single logistic regression."""
    generator = torch.Generator().manual_seed(0)
    shares = 0.96 ** torch.arange(classes)
    labels = torch.multinomial(shares, images, replacement=True, generator=generator)
    centers = torch.randn(classes, size, generator=generator)
    rows = 0.3 * centers[labels] + torch.randn(images, size, generator=generator)
    counts = ClassCounts(np.bincount(labels, minlength=classes))
    portfolio = choose_classifier(Samples(rows, labels, counts, counts.groups()))
    begun = time.perf_counter()
    logistic_regression(rows, labels, 0.001)
    other = time.perf_counter() - begun
    name = f"choosing among {len(portfolio.candidates)} classifiers, {images:,} x {size:,} features, {classes} classes"
    return row(name, portfolio.seconds, other, "s", higher_is_better=False, device=torch.device("cpu"))


def add_rows(
    rows: list[dict[str, Any]], file: Path, columns: Sequence[str] = COLUMNS, of: Sequence[str] = ("set",)
) -> None:
    """Write rows into a file.

    Args:
        rows: What to write.
        file: Its other rows stay.
        columns: Its columns.
        of: The columns that say what a row is of: it takes the place of those that the file has of the same.
    """

    def key(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in of)

    kept, replaced = [], {key(row) for row in rows}
    if file.is_file():
        with file.open(newline="") as stream:
            kept = [row for row in csv.DictReader(stream) if key(row) not in replaced]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
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
    parser.add_argument("--every", type=Path, metavar="CSV", help="file of a row for each candidate, chosen or not")
    parser.add_argument("--time", action="store_true", help="time the choice on made-up features")
    parser.add_argument("--json", type=Path, help="file of the row of --time")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
