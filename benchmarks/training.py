"""Training steps a second, data included: ours against the plain loop and the tuned one, on this machine.

python benchmarks/training.py --compile --json docs/performance/training.json

Workers are started, and what they hold ready is used up, before anything is timed. On two cores it takes 4 minutes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator

import numpy as np
import torch
from common import FixedRows, flops_per_image, matmul_rate, parser, row, rows_to_json, show, wait_for_device
from plain import PlainImages, endless, plain_loader, plain_steps, tuned_steps

from longtail.config.schema import TrainingConfig
from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.subsets import long_tailed_counts
from longtail.data.transforms.augmentation import BatchTransform
from longtail.losses import loss_class
from longtail.models.model import LongTailModel, build_model
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.loop import train_epoch, warm_up
from longtail.training.stages import build_stage

READY = 2  # batches that each worker of a DataLoader holds ready
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def main() -> None:
    """Measure in turns, so that all sides see the same machine, and write the medians."""
    options = parser(__doc__ or "")
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--steps", type=int, help="timed steps of one measurement; 12, on a GPU 300")
    options.add_argument("--workers", type=int, default=2, help="of the plain loader")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--compile", action="store_true", help="ours with torch.compile as well")
    options.add_argument("--compile-mode", default="default", help="reduce-overhead: CUDA graphs")
    flags = options.parse_args()
    flags.steps = flags.steps or (300 if flags.device == "cuda" else 12)
    counts = ClassCounts(long_tailed_counts([500] * 100, 100))  # CIFAR-100-LT, ratio 100
    labels = np.repeat(np.arange(100), counts.counts)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    sides = {"plain": plain(flags, pixels, labels), "tuned": tuned(flags, pixels, labels)}
    sides |= {f"ours {loss}": ours(flags, pixels, labels, counts, loss, False) for loss in ("cross-entropy", "gcl")}
    if flags.compile:
        sides |= {
            f"ours {loss} compiled": ours(flags, pixels, labels, counts, loss, True)
            for loss in ("cross-entropy", "gcl")
        }
    for side in sides.values():
        next(side)  # warm
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(flags.repeats):
        for name, side in sides.items():
            rates[name].append(next(side))
    speeds = {name: float(np.median(values)) for name, values in rates.items()}
    floor = matmul_rate(torch.bfloat16) / flops_per_image()
    unit, size = "images/s", f"ResNet-32, batch {flags.batch_size}"
    rows = [
        row(f"training step, {size}: plain loop", speeds["plain"], None, unit),
        row(f"training step, {size}: tuned loop", speeds["tuned"], speeds["plain"], unit, floor=floor),
    ]
    for name in speeds:
        if name.startswith("ours"):
            for other in ("plain", "tuned"):
                title = f"training step, {size}: {name.removeprefix('ours ')} against the {other} loop"
                rows.append(row(title, speeds[name], speeds[other], unit, floor=floor))
    show(rows)
    rows_to_json(flags.json, rows)


def network(device: str) -> tuple[LongTailModel, torch.optim.Optimizer]:
    """The same new network and optimizer for every side."""
    torch.manual_seed(0)
    model = build_model("resnet32", 100).to(device)
    return model, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=2e-4)


def timed(steps: Iterator[int], count: int, untimed: int) -> Iterator[float]:
    """Yield images per second over each ``count`` steps.

    Args:
        steps: The images of each step.
        count: Steps of a measurement.
        untimed: Steps before it, in which batches are used up that workers made ready while another side was measured.
    """
    while True:
        sum(itertools.islice(steps, untimed))
        wait_for_device()
        begun = time.perf_counter()
        images = sum(itertools.islice(steps, count))
        wait_for_device()
        yield images / (time.perf_counter() - begun)


def plain(flags: argparse.Namespace, pixels: np.ndarray, labels: np.ndarray) -> Iterator[float]:
    """The loop people write."""
    data = PlainImages(pixels, labels, MEAN, STD, train=True)
    loader = plain_loader(data, flags.batch_size, workers=flags.workers, shuffle=True)
    model, optimizer = network(flags.device)
    steps = plain_steps(model, endless(loader), optimizer, torch.device(flags.device))
    return timed(steps, flags.steps, READY * flags.workers + 1)


def tuned(flags: argparse.Namespace, pixels: np.ndarray, labels: np.ndarray) -> Iterator[float]:
    """The loop that tuning guides describe."""
    cuda = flags.device == "cuda"
    workers = 16 if cuda else flags.workers
    data = PlainImages(pixels, labels, MEAN, STD, train=True)
    loader = plain_loader(data, flags.batch_size, workers=workers, shuffle=True, pin=cuda)
    model, optimizer = network(flags.device)
    model.to(memory_format=torch.channels_last)
    steps = tuned_steps(model, endless(loader), optimizer, torch.device(flags.device))
    return timed(steps, flags.steps, READY * workers + 1)


def ours(
    flags: argparse.Namespace, pixels: np.ndarray, labels: np.ndarray, counts: ClassCounts, loss: str, compiled: bool
) -> Iterator[float]:
    """The engine of this package: resident batches, bf16, channels last."""
    config = TrainingConfig(
        precision="bf16",
        compile=compiled,
        compile_mode=flags.compile_mode,
        device="auto" if flags.device == "cuda" else "cpu",
    )
    engine = Engine(config)
    stage = StageConfig(
        epochs=1, batch_size=flags.batch_size, loss=LossConfig(loss), optimizer=OptimizerConfig(lr=0.01)
    )
    torch.manual_seed(0)
    model = build_model("resnet32", 100, loss_class(loss).head).to(engine.device)
    model.to(memory_format=torch.channels_last)
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    transform = BatchTransform(tuple(MEAN), tuple(STD), augmentation="crop-flip")
    inputs = ImageInputs(ResidentLoader(images, torch.from_numpy(labels), engine.device), transform)
    work = build_stage(engine, stage, 1, model=model, counts=counts, inputs=inputs)
    wanted = flags.steps * flags.batch_size
    rows = work.sampler.indices().repeat(-(-wanted // len(work.sampler)))[:wanted]
    one_batch, all_batches = FixedRows(rows[: flags.batch_size]), FixedRows(rows)
    work.sampler = all_batches
    if compiled:
        warm_up(work)
    while True:
        work.sampler = one_batch
        train_epoch(work, 0)  # untimed, as on the other sides
        work.sampler = all_batches
        wait_for_device()
        begun = time.perf_counter()
        train_epoch(work, 0)  # ends by reading the sums from the device
        yield len(rows) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
