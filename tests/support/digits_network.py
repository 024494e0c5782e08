"""A small network with weights of its own, trained on digits cut to a long tail, for runs on its features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtail.config.resolve import resolve
from longtail.console import Reporter
from longtail.training.launch import start_run


def train_digits_network(folder: Path, *, ratio: float, epochs: int) -> dict[str, Any]:
    """Train the network, and return the options of a run whose classifier is chosen on its features.

    Args:
        folder: Where its run goes.
        ratio: Imbalance ratio.
        epochs: Epochs of the network.
    """
    values = {
        "data.source": "digits",
        "data.imbalance_ratio": ratio,
        "model.name": "plain-cnn",
        "data.image_size": 16,
        "data.resize": 16,
        "training.precision": "fp32",
    }
    scratch = {"stage1.epochs": epochs, "stage1.optimizer.lr": 0.02, "stage1.batch_size": 32}
    start_run(resolve(values | scratch), folder / "weights", Reporter(quiet=True))
    chosen = {"stage1.train": "classifier", "stage1.cached_views": 1, "stage1.loss.name": "auto"}
    return values | chosen | {"model.weights": str(folder / "weights"), "stage1.batch_size": 64}
