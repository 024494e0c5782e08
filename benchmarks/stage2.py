"""Stage 2 on stored features against stage 2 through the backbone: seconds for the whole stage.

python benchmarks/stage2.py --json docs/performance/stage2.json

On stored features the stage is run in full, the features included. Through the backbone one epoch is run, and counted
for as many as the stage has: they are alike. On two cores it takes 4 minutes.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from common import flops_per_image, matmul_rate, parser, row, rows_to_json, show

from longtail.config.schema import DataConfig, ModelConfig, TrainingConfig
from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts
from longtail.data.dataset import Split
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.loading.workers import Decoder
from longtail.data.square import Square
from longtail.data.subsets import long_tailed_counts
from longtail.data.transforms.augmentation import BatchTransform
from longtail.models.model import build_model
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.frozen_features import Classifier, FeatureStore
from longtail.training.loop import train_epoch
from longtail.training.stages import build_stage, set_trainable

SHARED = {"batch_size": 64, "sampler": "class-balanced", "train": "classifier"}
STAGES = {
    "cRT": StageConfig(**SHARED, optimizer=OptimizerConfig(lr=0.1)),
    # The recipe mixes images in stage 2, which stored features cannot: this is what is left without.
    "GCL without mixup": StageConfig(
        **SHARED,
        optimizer=OptimizerConfig(lr=0.002),
        loss=LossConfig("gcl", {"scale": 20.0, "margin": 0.1, "focal_gamma": 1.0}),
    ),
}


def main() -> None:
    """One epoch through the backbone is measured and counted for all; the other way is run in full."""
    options = parser(__doc__ or "")
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--views", type=int, nargs="+", default=[1])
    options.add_argument("--images", type=int, default=None, help="fewer images, to try the script out")
    flags = options.parse_args()
    counts = ClassCounts(long_tailed_counts([500] * 100, 100))  # CIFAR-100-LT, ratio 100
    labels = np.repeat(np.arange(100), counts.counts)
    if flags.images:
        labels = labels[:: max(1, len(labels) // flags.images)]
        counts = ClassCounts.from_labels(labels, 100)
    pixels = torch.randint(0, 256, (len(labels), 3, 32, 32), dtype=torch.uint8)
    floor = len(labels) * flops_per_image(backward=False) / matmul_rate(torch.bfloat16)  # one pass of the backbone
    rows = []
    for name, method in STAGES.items():
        stage = replace(method, epochs=flags.epochs)
        through: list[float] = []
        cached: dict[int, list[float]] = {views: [] for views in flags.views}
        for _ in range(flags.repeats):  # in turns, so that both sides see the same machine
            once, epoch = seconds(stage, counts, labels, pixels, 0, 1)
            through.append(once + flags.epochs * epoch)
            for views, times in cached.items():
                times.append(sum(seconds(stage, counts, labels, pixels, views, flags.epochs)))
        rows += [
            row(
                f"stage 2 of {name}, {flags.epochs} epochs, {len(labels)} images: {views} stored view(s), "
                f"against {flags.epochs} x one measured epoch through the backbone",
                float(np.median(times)),
                float(np.median(through)),
                "s",
                higher_is_better=False,
                floor=views * floor,
            )
            for views, times in cached.items()
        ]
    show(rows)
    rows_to_json(flags.json, rows)


def seconds(
    stage: StageConfig, counts: ClassCounts, labels: np.ndarray, pixels: torch.Tensor, views: int, epochs: int
) -> tuple[float, float]:
    """Time a stage 2, features included; 0 views go through the backbone: what it takes once, and all its epochs."""
    torch.manual_seed(0)
    engine = Engine(TrainingConfig(precision="bf16"))
    model = build_model("resnet32", 100, "cosine" if stage.loss.name == "gcl" else "linear").to(engine.device)
    model.to(memory_format=torch.channels_last)
    images = ImageInputs(
        ResidentLoader(pixels, torch.from_numpy(labels), engine.device),
        BatchTransform((0.5,) * 3, (0.25,) * 3, augmentation="crop-flip"),
    )
    set_trainable(model, stage, ModelConfig())
    begun = time.perf_counter()
    stored = None
    if views:
        split = Split.from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels)  # its pixels are those of the loader
        inputs, decoders = {"train": images}, {"train": Decoder(split, Square(32))}
        parts = (engine, model, inputs, decoders, Reporter(quiet=True), {"features": 0.0}, DataConfig(cache=False))
        stored = FeatureStore(*parts, fixed=False).views(2, views, 0)
    work = build_stage(
        engine,
        stage,
        2,
        model=model,
        counts=counts,
        inputs=stored or images,
        network=None if stored is None else Classifier(model),
    )
    ready = time.perf_counter()
    for epoch in range(epochs):
        train_epoch(work, epoch)
    trained = time.perf_counter()
    engine.release()
    return time.perf_counter() - begun - (trained - ready), trained - ready


if __name__ == "__main__":
    main()
