"""Training steps of a whole pretrained network on small images, on one core: ours against the plain loop.

python benchmarks/finetuning.py --json docs/performance/finetuning.json

The processor's time of one thread is counted, for a machine that is shared. Decoding is part of the plain loop's time;
ours decodes before the first epoch, which has a row of its own. On one core it takes a minute.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from common import FixedRows, Row, parser, row, rows_to_json, show
from PIL import Image
from plain import PlainImages, endless
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from longtail.config.schema import ModelConfig, TrainingConfig
from longtail.config.stage import FINETUNING, LossConfig, OptimizerConfig, StageConfig
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.transforms.augmentation import BatchTransform
from longtail.models.model import LongTailModel, build_model
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.loop import train_epoch
from longtail.training.stages import build_stage, set_trainable

CLASSES, MEAN = 100, [0.5, 0.5, 0.5]


class PlainFiles(PlainImages):
    """Images as encoded files, each decoded, cropped, flipped and normalized when it is asked for."""

    def __init__(self, files: list[bytes], labels: np.ndarray, side: int) -> None:
        super().__init__(np.zeros((1, side, side, 3), np.uint8), labels, MEAN, MEAN, train=True)
        self.files = files

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        return self.transform(image), int(self.labels[index])


def main() -> None:
    """Measure the sides in turns, and write the medians."""
    options = parser(__doc__ or "")
    options.add_argument("--name", default="timm:tf_efficientnet_lite0")
    options.add_argument("--side", type=int, default=96)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--steps", type=int, default=4, help="timed steps of one measurement")
    options.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="of ours; the plain loop has fp32"
    )
    options.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes first")
    flags = options.parse_args()
    torch.set_num_threads(1)
    files, labels = encoded(flags.batch_size * flags.steps, flags.side)
    begun = time.process_time()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    decoding = len(files) / (time.process_time() - begun)
    sides = {
        "plain": plain(flags.name, PlainFiles(files, labels, flags.side), flags.batch_size, flags.steps),
        "ours": ours(flags, pixels, labels, freeze=False),
        "ours, batch normalization held": ours(flags, pixels, labels, freeze=True),
    }
    if flags.compile:
        sides["ours, batch normalization held, compiled"] = ours(flags, pixels, labels, freeze=True, compiled=True)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()  # warm
    for _ in range(flags.repeats):
        for name, work in sides.items():
            begun = time.process_time()
            rates[name].append(work() / (time.process_time() - begun))
    speeds = {name: float(np.median(values)) for name, values in rates.items()}
    best = "ours, batch normalization held"
    floor = speeds[best] / share_of_convolutions(sides[best])
    size, unit = f"{flags.name}, {flags.side} px, batch {flags.batch_size}, one core", "images/s"
    size += "" if flags.precision == "fp32" else f", {flags.precision}"
    rows: list[Row] = [row(f"fine-tuning step, {size}: plain loop", speeds["plain"], None, unit)]
    for name in list(sides)[1:]:
        held = name.removeprefix("ours")
        title = f"fine-tuning step, {size}{held}: against the plain loop"
        rows.append(row(title, speeds[name], speeds["plain"], unit, floor=floor))
    rows.append(row(f"decoding for fine-tuning, once, {flags.side} px, one core", decoding, None, unit))
    show(rows)
    rows_to_json(flags.json, rows)


def encoded(count: int, side: int) -> tuple[list[bytes], np.ndarray]:
    """Return JPEGs of smooth noise and their labels."""
    random, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files, random.permutation(np.arange(count) % CLASSES)


def network(name: str) -> LongTailModel:
    """The same new network for every side."""
    torch.manual_seed(0)
    return build_model(name, CLASSES)


def plain(name: str, data: PlainFiles, batch_size: int, steps: int) -> Callable[[], int]:
    """The loop people write: files decoded one by one, AdamW as it is."""
    loader = endless(DataLoader(data, batch_size, shuffle=True))
    model = network(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def work() -> int:
        images_seen = 0
        for _ in range(steps):
            images, labels = next(loader)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
            images_seen += len(images)
        return images_seen

    return work


def ours(
    flags: argparse.Namespace, pixels: np.ndarray, labels: np.ndarray, *, freeze: bool, compiled: bool = False
) -> Callable[[], int]:
    """An epoch of the third stage of a run."""
    engine = Engine(TrainingConfig(precision=flags.precision, device="cpu", compile=compiled))
    stage = StageConfig(
        epochs=1,
        batch_size=flags.batch_size,
        freeze_batch_norm=freeze,
        loss=LossConfig(),
        optimizer=OptimizerConfig("adamw", lr=1e-4),
        schedule=FINETUNING.schedule,
    )
    model = network(flags.name).to(memory_format=torch.channels_last)
    set_trainable(model, stage, ModelConfig())
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    transform = BatchTransform(tuple(MEAN), tuple(MEAN), augmentation="crop-flip")
    inputs = ImageInputs(ResidentLoader(images, torch.from_numpy(labels), engine.device), transform)
    counts = ClassCounts(np.bincount(labels, minlength=CLASSES))
    work = build_stage(engine, stage, 3, model=model, counts=counts, inputs=inputs)
    work.sampler = FixedRows(torch.arange(len(labels)))

    def epoch() -> int:
        train_epoch(work, 0)
        return len(labels)

    return epoch


def share_of_convolutions(work: Callable[[], int]) -> float:
    """Share of the time of some work that convolutions and their gradients take: the median of three profiles."""
    shares = []
    for _ in range(3):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            work()
        seconds = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        inside = sum(value for name, value in seconds.items() if "convolution" in name or "Depthwise" in name)
        shares.append(inside / sum(seconds.values()))
    return float(np.median(shares))


if __name__ == "__main__":
    main()
