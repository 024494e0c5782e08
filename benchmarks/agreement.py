"""Does the fast path learn what the plain one does? The same method both ways, over several seeds, on real data."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import parser
from plain import PlainImages, plain_accuracy, plain_loader, plain_steps
from rich.console import Console
from scipy.stats import ttest_ind

from longtail.config.build import build, with_options
from longtail.config.options import merge
from longtail.config.recipes import base_config
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.square import Square
from longtail.device import hardware
from longtail.models.model import build_model
from longtail.training.launch import start_run
from longtail.training.prepared_data import prepare_data
from longtail.version import versions


def main() -> None:
    """Train plain cross-entropy both ways; nothing is chosen, so the test split is only read at the end."""
    options = parser(__doc__ or "")
    options.add_argument("source", help="SOURCE, as for longtail train")
    options.add_argument("--model", default="resnet20")
    options.add_argument("--imbalance-ratio", type=float, default=50.0)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--seeds", type=int, default=5)
    flags = options.parse_args()
    config = build(
        merge(
            base_config("cifar-lt/ce", epochs=flags.epochs),
            {
                "data": {"source": flags.source, "imbalance_ratio": flags.imbalance_ratio, "augmentation": "crop-flip"},
                "model": {"name": flags.model},
                "training": {"precision": "bf16"},
            },
        )
    )
    say = Console(stderr=True).print
    accuracy: dict[str, list[float]] = {name: [] for name in ("plain", "ours-fp32", "ours-bf16")}
    seconds = dict.fromkeys(accuracy, 0.0)
    for seed in range(flags.seeds):
        for name in accuracy:
            begun = time.perf_counter()
            accuracy[name].append(100 * (plain(config, seed) if name == "plain" else ours(config, seed, name[-4:])))
            seconds[name] += time.perf_counter() - begun
            say(f"seed {seed}: {name} {accuracy[name][-1]:.2f}%")
    result = {
        "what": f"{flags.model}, cross-entropy, {flags.epochs} epochs, ratio {flags.imbalance_ratio:g}",
        "source": flags.source,
        "accuracy": accuracy,
        "mean": {k: float(np.mean(v)) for k, v in accuracy.items()},
        "std": {k: float(np.std(v, ddof=1)) for k, v in accuracy.items()},
        "differences": {name: difference(accuracy[name], accuracy["plain"]) for name in accuracy if name != "plain"},
        "seconds": seconds,
        "config": asdict(config),
        "device": hardware(torch.device("cpu")),
        "versions": versions(),
    }
    say({key: result[key] for key in ("mean", "std", "differences")})
    if flags.json:
        Path(flags.json).write_text(json.dumps(result, indent=2) + "\n")


def difference(ours: list[float], plain: list[float]) -> dict[str, object]:
    """Mean difference, its 95% interval and p-value (Welch's t-test: the seeds of the two are not paired)."""
    test = ttest_ind(ours, plain, equal_var=False)
    low, high = test.confidence_interval(0.95)
    mean = float(np.mean(ours) - np.mean(plain))
    return {"mean": mean, "interval_95": [float(low), float(high)], "p_value": float(test.pvalue)}


def ours(config: RunConfig, seed: int, precision: str) -> float:
    """``longtail train``: resident batches, batched augmentation, channels last."""
    config = with_options(config, {"training.seed": seed, "training.precision": precision})
    with tempfile.TemporaryDirectory() as folder:
        return float(start_run(config, Path(folder) / "run", Reporter(quiet=True))["test"]["accuracy"])


def plain(config: RunConfig, seed: int) -> float:
    """A DataLoader, PIL crop and flip, float32, ``loss.item()`` at each step; only the network's class is ours."""
    prepared, device = prepare_data(config.data), torch.device("cpu")
    data = {}
    for name in ("train", "test"):
        split = prepared.data.splits[name]
        pixels = decode_all(Decoder(split, Square(config.data.image_size))).numpy().transpose(0, 2, 3, 1)
        data[name] = PlainImages(
            np.ascontiguousarray(pixels), split.labels, config.data.mean, config.data.std, train=name == "train"
        )
    torch.manual_seed(seed)
    model = build_model(config.model.name, prepared.counts.num_classes)
    stage = config.stage1
    optimizer = torch.optim.SGD(
        model.parameters(),
        stage.optimizer.lr,
        momentum=stage.optimizer.momentum,
        weight_decay=stage.optimizer.weight_decay,
    )
    loader = plain_loader(data["train"], stage.batch_size, workers=0, shuffle=True)
    for epoch in range(stage.epochs):
        for group in optimizer.param_groups:
            group["lr"] = stage.schedule.learning_rate(stage.optimizer.lr, epoch, stage.epochs)
        for _ in plain_steps(model, loader, optimizer, device):
            pass
    return plain_accuracy(model, plain_loader(data["test"], 256, workers=0, shuffle=False), device)


if __name__ == "__main__":
    main()
