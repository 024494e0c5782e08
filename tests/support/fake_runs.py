"""Fake RUN folders in the format that training writes, small or with 100 classes, for the tests of the report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from longtail.analysis.dynamics import BINS
from longtail.counts import ClassCounts
from longtail.run.dynamics import write_epoch

HISTORY = (
    "stage",
    "epoch",
    "progress",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "validation_balanced_accuracy",
    "seconds",
    "images_per_second",
)


def exponential_counts(classes: int, largest: int, ratio: float) -> list[int]:
    """The profile of CIFAR-LT."""
    return [int(largest * (1 / ratio) ** (j / (classes - 1))) for j in range(classes)]


def fake_run(
    folder: Path,
    *,
    recipe: str = "cifar-lt/ce",
    counts: Sequence[int] = (300, 120, 60, 30, 12, 5),
    names: Sequence[str] | None = None,
    slope: float = 0.8,
    seed: int = 0,
    options: dict[str, object] | None = None,
    stages: int = 1,
    epochs: int = 6,
    test: bool = True,
    per_class_test: int | Sequence[int] = 20,
    data_hash: str = "sha256:" + "a1b2c3d4" * 8,
    stored_seed: int | None = None,
    image_side: int = 32,
    second_best: bool = False,
    validation_slope: float | None = None,
    files: str = "",
) -> Path:
    """Write a run whose recall falls from 0.9 at the head by ``slope`` at the tail.

    The predictions are drawn first and every number in metrics.json is counted from them. With ``second_best`` they
    hold the second class too, from which margins follow. With ``validation_slope`` it has validation figures. Test
    images are files below ``files``, or rows of a table.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed + 1)
    classes = ClassCounts(counts, names or [f"class {j}" for j in range(len(counts))])
    label, prediction = _predict(classes, slope, per_class_test, rng)
    confidence = rng.uniform(0.3, 1.0, len(label)).astype(np.float32)
    groups = {name: rows.tolist() for name, rows in classes.groups().items()}
    measured = _metrics(classes, label, prediction) if test else None
    validation = None
    if validation_slope is not None:
        validation = _metrics(classes, *_predict(classes, validation_slope, 10, np.random.default_rng(seed + 7)))
    paths = [f"{files}/{classes.names[j]}/{i}.png" if files else f"row {i}" for i, j in enumerate(label)]
    early, after = _predict(classes, slope * 1.15, per_class_test, rng), {}
    if stages == 2 and measured is not None:
        stage1_figures = {k: v for k, v in _metrics(classes, *early).items() if k != "per_class"}
        after = {
            "stage1": {"test": stage1_figures},
            "stage2": {"test": {k: v for k, v in measured.items() if k != "per_class"}},
        }
    metrics = {
        "format": 1,
        "recipe": recipe,
        "classes": list(classes.names),
        "train_counts": list(classes.counts),
        "groups": groups,
        "test": measured,
        "validation": validation,
        "stages": after,
        "seeds": {"seed": seed if stored_seed is None else stored_seed, "subset_seed": 0, "split_seed": 0},
        "data_hash": data_hash,
        "versions": {"longtail": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "hardware": {"device": "cpu", "name": "2 cores", "processes": 1},
        "seconds": {"total": 812.5, "stage1": 760.1, "stage2": 40.2 if stages == 2 else 0, "evaluation": 12.2},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(recipe, seed, stages, epochs, options or {})))
    _write_history(folder / "history.csv", stages, epochs, 0.99 - 0.1 * (slope < 0.6), rng)
    if test:
        top5 = [[int(p)] for p in prediction]
        columns = {
            "index": np.arange(len(label)),
            "path": paths,
            "label": label,
            "prediction": prediction,
            "confidence": confidence,
            "probability_true": np.where(prediction == label, confidence, (1 - confidence) / 3),
            "top5": top5,
            "top5_probabilities": [[float(c), float(1 - c) / 3][: 1 + second_best] for c in confidence],
        }
        pq.write_table(pa.table(columns), folder / "predictions.parquet")
    _write_examples(folder / "examples.parquet", label, prediction, paths, len(counts), image_side, rng)
    return folder


def _predict(
    classes: ClassCounts, slope: float, each: int | Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    label = np.repeat(np.arange(len(classes)), each)
    chance = np.clip(0.9 - slope * classes.tail_weight + rng.normal(0, 0.08, len(classes)), 0.0, 1.0)
    right = rng.random(len(label)) < chance[label]
    wrong = rng.choice(len(classes), len(label), p=classes.prior)
    wrong = np.where(wrong == label, (label + 1) % len(classes), wrong)
    return label, np.where(right, label, wrong)


def _metrics(classes: ClassCounts, label: np.ndarray, prediction: np.ndarray) -> dict[str, object]:
    size = len(classes)
    confusion = np.zeros((size, size))
    np.add.at(confusion, (label, prediction), 1)
    recall = confusion.diagonal() / confusion.sum(1)
    precision = confusion.diagonal() / np.maximum(confusion.sum(0), 1)
    groups = {name: float(recall[rows].mean()) if len(rows) else None for name, rows in classes.groups().items()}
    group_of = classes.group_of()
    per_class = [
        {
            "name": classes.names[j],
            "train_count": classes[j],
            "test_count": int(confusion[j].sum()),
            "group": group_of[j],
            "recall": float(recall[j]),
            "precision": float(precision[j]),
            "f1": 0.5,
        }
        for j in range(size)
    ]
    scalars = {"accuracy": float((label == prediction).mean()), "balanced_accuracy": float(recall.mean()), **groups}
    rest = {"worst_class": float(recall.min()), "harmonic_mean": 0.0, "nll": 1.9, "ece": 0.21}
    return {"num_images": len(label), **scalars, **rest, "per_class": per_class}


def _config(recipe: str, seed: int, stages: int, epochs: int, options: dict[str, object]) -> dict[str, object]:
    loss = {"name": recipe.split("/")[-1], "options": {"scale": 30.0, **options}}
    stage = {"epochs": epochs, "batch_size": 64, "sampler": "shuffle", "mixing": "none", "loss": loss}
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4, "nesterov": False}
    second = {"epochs": 3 if stages == 2 else 0, "sampler": "cben", "train": "classifier", "loss": loss}
    data = {"source": "parquet:data/cifar100-lt-ir10", "imbalance_ratio": 100.0, "subset_seed": 0, "split_seed": 0}
    model = {"name": "resnet32", "head": "cosine" if stages == 2 else "linear", "pretrained": False}
    training = {"seed": seed, "precision": "fp32", "clip_norm": None, "device": "auto"}
    first = {**stage, "optimizer": optimizer}
    return {"recipe": recipe, "data": data, "model": model, "stage1": first, "stage2": second, "training": training}


def _write_history(path: Path, stages: int, epochs: int, top: float, rng: np.random.Generator) -> None:
    lengths = [epochs] + ([max(3, epochs // 6)] if stages == 2 else [])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HISTORY)
        for stage, length in enumerate(lengths, start=1):
            for epoch in range(1, length + 1):
                done = epoch / length if stage == 1 else 1.0
                rate = (0.1 if done < 0.8 else 0.01) if stage == 1 else 0.002 * (1 - (epoch - 1) / length)
                accuracy = top * (1 - np.exp(-4 * done)) + rng.normal(0, 0.006)
                loss = 4.4 * np.exp(-3.2 * done) + 0.12 + rng.normal(0, 0.02)
                writer.writerow([f"stage{stage}", epoch, done, rate, loss, accuracy, "", "", "", 3.8, 2850.0])


def _write_examples(
    path: Path,
    label: np.ndarray,
    prediction: np.ndarray,
    paths: Sequence[str],
    size: int,
    side: int,
    rng: np.random.Generator,
) -> None:
    right = np.bincount(label, weights=label == prediction, minlength=size)
    hardest = np.argsort(right, kind="stable")[:24].tolist()
    rows = [(j, "train", -1, 1.0, f"train {j} {i}") for j in hardest for i in range(4)]
    wrong = np.flatnonzero(label != prediction)
    for j in hardest:
        rows += [(j, "error", int(prediction[i]), 0.71, paths[i]) for i in wrong[label[wrong] == j][:4]]
    columns = {
        "class": [row[0] for row in rows],
        "role": [row[1] for row in rows],
        "image": [_picture(row[0], side, rng) for row in rows],
        "prediction": [row[2] for row in rows],
        "confidence": [row[3] for row in rows],
        "path": [row[4] for row in rows],
    }
    pq.write_table(pa.table(columns), path)


def _picture(seed: int, side: int, rng: np.random.Generator) -> bytes:
    """A smooth blob in a color of its class, so that pictures differ at a glance."""
    base = np.random.default_rng(seed).integers(40, 215, 3)
    small = np.clip(base + rng.normal(0, 35, (5, 5, 3)), 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(target, "PNG")
    return target.getvalue()


def fake_analysis(
    folder: Path,
    counts: Sequence[int],
    *,
    slope: float = 1.0,
    within: float = 2.0,
    bias: bool = True,
    projections: Sequence[str] = ("pca", "tsne"),
    each: int = 20,
    cloud: float | None = None,
) -> None:
    """Write what ``longtail analyze`` would: feature norms and ratios follow the class size by ``slope``.

    The noise of the loss reaches ``cloud`` at the smallest class.
    """
    rng, classes_of = np.random.default_rng(0), ClassCounts(counts)
    size, labels = len(counts), np.repeat(np.arange(len(counts)), each)
    noise = rng.normal(size=size)
    trend = slope * (1 - 2 * classes_of.tail_weight) + 0.02 * noise if slope else noise
    images, classes = [], []
    for split in ("train", "test"):
        count = len(labels)
        places = {
            name: rng.normal(size=count).astype("f4")
            for name in ("pca_x", "pca_y", "tsne_x", "tsne_y")
            if name[:-2] in projections
        }
        floats = ("confidence", "probability_true", "margin", "feature_norm")
        columns = {name: rng.random(count).astype("f4") for name in floats} | places
        labeled = {"index": np.arange(count), "label": labels, "prediction": labels}
        images.append(pa.table({"split": [split] * count} | labeled | columns))
        values = {
            "spread": 1 - 0.2 * trend,
            "nearest_distance": np.ones(size),
            "ratio": 1 - 0.2 * trend,
            "feature_norm": 5 + trend,
            "feature_norm_std": np.ones(size),
            "weight_norm": 1 + 0.01 * noise,
            "bias": trend if bias else np.full(size, np.nan),
            "angle": 40 - 5 * trend,
            "cloud_mean": np.full(size, np.nan) if cloud is None else -cloud * classes_of.tail_weight,
            "cloud_spread": np.full(size, np.nan) if cloud is None else cloud * classes_of.tail_weight / 2,
        }
        identity = {
            "split": [split] * size,
            "class": np.arange(size),
            "images": np.full(size, each),
            "nearest": np.roll(np.arange(size), 1),
        }
        classes.append(pa.table(identity | values))
    collapse = dict.fromkeys(("nc1", "equinorm", "equiangularity", "simplex_deviation", "duality"), 0.5)
    summary = {
        "images": len(labels),
        "of": len(labels),
        "drawn": len(labels),
        "explained_variance": [0.3, 0.2],
        "uniformity": -2.5,
        "alignment": 0.7,
        "neural_collapse": collapse | {"within_between": within},
    }
    target = folder / "analysis"
    target.mkdir()
    pq.write_table(pa.concat_tables(images), target / "images.parquet")
    pq.write_table(pa.concat_tables(classes), target / "classes.parquet")
    (target / "summary.json").write_text(json.dumps({"format": 1, "splits": {"train": summary, "test": summary}}))


def fake_recording(
    run: Path, *, tail: float = 1.0, sure: int = BINS // 2, epochs: Sequence[int] = (3,), size: float = 0.5
) -> Path:
    """Record epochs of the six classes: few-shot ones are raised ``tail`` times as much as lowered, others equally."""
    counts = np.array([300, 120, 60, 30, 12, 5])
    ratio = np.where(counts < 20, tail, 1.0)
    negative = counts / 2.0
    positive = ratio * negative
    sums = np.zeros((6, 3 + BINS))
    sums[:, 0], sums[:, 1], sums[:, 2] = negative - positive, negative + positive, size * counts
    sums[:, 3 + sure] = counts
    for stage, count in enumerate(epochs, start=1):
        for epoch in range(1, count + 1):
            write_epoch(run, stage, epoch, torch.from_numpy(sums), 1.0)
    return run
