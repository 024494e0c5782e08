"""The cost of each loss of the recipes in a whole training step, against the same step under cross-entropy.

python benchmarks/loss_share.py --json docs/performance/loss_share.json

A loss takes well under a hundredth of a step, less than one step differs from the next. So all losses take their turn
at each round, there are many rounds, and each is compared with the cross-entropy of its own round. On two cores it
takes 3 minutes.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch
from common import FixedRows, parser, row, rows_to_json, show, wait_for_device

from longtail.config.schema import TrainingConfig
from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.subsets import long_tailed_counts
from longtail.data.transforms.augmentation import BatchTransform
from longtail.losses import LOSSES, loss_class
from longtail.models.model import build_model
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.loop import StageRun, train_epoch
from longtail.training.stages import build_stage

PLAIN = "cross-entropy"
USED = [name for name in LOSSES if name not in (PLAIN, "class-balanced", "feature-noise")]  # no recipe has those two
BATCH, CLASSES = 128, 100


def main() -> None:
    """Measure round by round."""
    options = parser(__doc__ or "")
    options.set_defaults(repeats=40)
    options.add_argument("--losses", nargs="+", choices=LOSSES, default=USED, metavar="NAME")
    flags = options.parse_args()
    counts = ClassCounts(long_tailed_counts([500] * CLASSES, 100))  # CIFAR-100-LT, ratio 100
    labels = np.repeat(np.arange(CLASSES), counts.counts)
    pixels = torch.randint(0, 256, (len(labels), 3, 32, 32), dtype=torch.uint8)
    # Cross-entropy on either classifier, so that what differs is the loss.
    plain = {head: build(PLAIN, head, counts, labels, pixels) for head in ("linear", "cosine")}
    works = {name: build(name, loss_class(name).head, counts, labels, pixels) for name in flags.losses}
    taken: dict[str, list[float]] = {name: [] for name in [*plain, *works]}
    for number in range(-1, flags.repeats):  # the first round warms up
        for name, work in (plain | works).items():
            seconds = one_step(work)
            if number >= 0:
                taken[name].append(seconds)
    rows = []
    for name in works:
        reference = taken[loss_class(name).head]
        ratio = median(np.array(taken[name]) / np.array(reference))
        rows.append(
            row(
                f"whole training step, ResNet-32, batch {BATCH}: {name} against cross-entropy",
                ratio * median(reference) * 1e3,
                median(reference) * 1e3,
                "ms",
                higher_is_better=False,
            )
        )
    show(rows)
    rows_to_json(flags.json, rows)


def build(loss: str, head: str, counts: ClassCounts, labels: np.ndarray, pixels: torch.Tensor) -> StageRun:
    """A new network under a loss, as stage 1 trains it."""
    engine = Engine(TrainingConfig(precision="auto"))
    stage = StageConfig(epochs=1, batch_size=BATCH, loss=LossConfig(loss), optimizer=OptimizerConfig(lr=0.01))
    torch.manual_seed(0)
    model = build_model("resnet32", CLASSES, head).to(engine.device)
    model.to(memory_format=torch.channels_last)
    inputs = ImageInputs(
        ResidentLoader(pixels, torch.from_numpy(labels), engine.device),
        BatchTransform((0.5,) * 3, (0.25,) * 3, augmentation="crop-flip"),
    )
    work = build_stage(engine, stage, 1, model=model, counts=counts, inputs=inputs)
    work.sampler = FixedRows(torch.arange(0, len(labels), len(labels) // BATCH)[:BATCH])
    work.epochs = 2
    return work


def one_step(work: StageRun) -> float:
    """Seconds of one training step on the same images, with all on that a method switches on while it trains."""
    wait_for_device()
    begun = time.perf_counter()
    train_epoch(work, 1)
    wait_for_device()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
