"""Measure the commands at the shape of the real benchmarks: hundreds of thousands of files, thousands of classes.

python benchmarks/stand_ins.py inaturalist folder:photos stand-ins/inaturalist
python benchmarks/at_scale.py folder:stand-ins/inaturalist --recipe inaturalist/gcl --size 64 --json FILE
python benchmarks/at_scale.py --samplers --json docs/performance/samplers-at-scale.json

Of a folder: ``inspect``; the time from the command to the first step with an empty and a filled cache; images a second
that the loader delivers next to the pure decode rate of the same cores, and of training next to what loader and network
alone allow; memory of the main process and of all at growing numbers of images; with ``--epoch`` one epoch, and
``evaluate``, ``analyze`` and ``report`` of it. Every command is a process of its own. The network is a small one, for
the speed of a large one hides that of everything else.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from common import Row, parser, row, rows_to_json, show
from samplers import in_its_own_process
from streaming import epoch_seconds, pure_decode_seconds, rates

from longtail.config.resolve import resolve
from longtail.console import Interrupted, Reporter
from longtail.data.dataset import Split
from longtail.data.loading.loaders import StreamingLoader
from longtail.data.loading.workers import Decoder
from longtail.data.samplers import SAMPLERS
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.device import cores
from longtail.models import build_model
from longtail.training.finetuning import measure_training_rate
from longtail.training.launch import start_run
from longtail.training.loop import Callback, Progress, StageRun

CPU = torch.device("cpu")
STEPS = 30  # after which memory does not grow any more
SAMPLED = 4_096  # images of the loader's rate
LISTED = (20_000, 100_000)  # images at which memory is measured, next to all
MEASURED = (1_000_000, 3_000_000, 10_000_000, 30_000_000)  # images of the samplers' law
LAW = (100_000_000, 1_000_000)  # images and classes that it is extended to


def main() -> int:
    """Measure what was asked for, show and write."""
    flags = _flags()
    if flags.until_first_step:
        return until_first_step(flags)
    rows = list(samplers() if flags.samplers else measure(flags))
    show(rows)
    rows_to_json(flags.json, rows)
    return 0


def measure(flags: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of a folder of images."""
    images = load_source(flags.source)
    split, classes = images.splits["train"], len(images.classes)
    name = f"{len(split):,} images, {classes:,} classes"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        yield from first_step(flags, name, work)
        yield from throughput(flags, split, name, classes)
        yield from memory(flags, split, work)
        if flags.epoch:
            yield from whole_run(flags, name, work)
        inspected = run_watched(["inspect", flags.source], work)
        yield seconds_row(f"inspect: {name}", inspected.seconds)
        yield row(f"inspect: {name}, memory", inspected.all_megabytes, None, "MB", higher_is_better=False, device=CPU)


def first_step(flags: argparse.Namespace, name: str, work: Path) -> Iterator[Row]:
    """Yield the seconds from the command to the first step, with an empty cache and with that of the first time."""
    cold, warm = (trained(flags, flags.source, work, 1).first_step for _ in range(2))
    yield seconds_row(f"train: command to first step, empty cache: {name}", cold)
    yield seconds_row(f"train: command to first step, again: {name}", warm)


def throughput(flags: argparse.Namespace, split: Split, name: str, classes: int) -> Iterator[Row]:
    """Yield the rate of the loader next to that of decoding alone, and that of the network alone."""
    rows = np.random.default_rng(0).choice(len(split), min(SAMPLED, len(split)), replace=False)
    decoder = Decoder(split.select(rows), Square(flags.size, flags.size))
    loader = StreamingLoader(decoder, torch.from_numpy(decoder.split.labels.copy()), CPU, cores())
    sides: dict[str, Callable[[], float]] = {
        "decode": lambda: pure_decode_seconds(decoder),
        "loader": lambda: epoch_seconds(loader),
    }
    measured = rates(sides, len(rows), flags.repeats)
    title = f"loader at {flags.size} px: {name}"
    yield row(title, measured["loader"], None, "images/s", floor=measured["decode"], device=CPU)
    model = build_model(flags.model, classes, "cosine", in_size=flags.size)
    alone = measure_training_rate(model, flags.size, 512)
    yield row(f"network alone, {flags.model} at {flags.size} px, training steps", alone, None, "images/s", device=CPU)


def memory(flags: argparse.Namespace, split: Split, work: Path) -> Iterator[Row]:
    """Yield the memory of training, of the main process and of all, at growing numbers of images."""
    sizes = [*(size for size in LISTED if size < len(split)), len(split)]
    first: Watched | None = None
    for size in sizes:
        listing = work / f"{size}.csv"
        # In every part each class has an image, so that the classifier is the same.
        order = np.concatenate([np.unique(split.labels, return_index=True)[1], np.arange(len(split))])
        with listing.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "label", "split"))
            kept = list(dict.fromkeys(order.tolist()))[:size]
            writer.writerows((Path(split.path(at)).resolve(), split.labels[at], "train") for at in kept)
            writer.writerows((Path(split.path(at)).resolve(), split.labels[at], "test") for at in kept[:64])
        watched = trained(flags, f"csv:{listing}", work, STEPS)
        first = first or watched
        beyond = 64 * (size - sizes[0]) / 1e6  # megabytes: a path and a label are allowed for
        for part in ("main", "all"):
            value, start = (getattr(each, f"{part}_megabytes") for each in (watched, first))
            what = "the main process" if part == "main" else "all processes"
            floor = None if size == sizes[0] else start + beyond
            name = f"memory of training, {what}: {size:,} images"
            yield row(name, value, None, "MB", higher_is_better=False, floor=floor, device=CPU)


def whole_run(flags: argparse.Namespace, name: str, work: Path) -> Iterator[Row]:
    """Yield the rate of one epoch, and the seconds of the commands that come after it."""
    run, words = work / "run", train_words(flags)
    run_watched(["train", flags.source, *words, "--out", str(run), "--quiet"], work)
    rate = json.loads((run / "metrics.json").read_text())["throughput"]["stage1"]["images_per_second"]
    yield row(f"train: one epoch of {flags.recipe} with {flags.model}: {name}", rate, None, "images/s", device=CPU)
    for command, further in (("evaluate", []), ("analyze", []), ("report", ["--out", str(work / "report.html")])):
        watched = run_watched([command, str(run), *further], work)
        yield seconds_row(f"{command}: {name}", watched.seconds)
        megabytes = watched.all_megabytes
        yield row(f"{command}: {name}, memory", megabytes, None, "MB", higher_is_better=False, device=CPU)


def seconds_row(name: str, seconds: float) -> Row:
    """Return the row of a command's time."""
    return row(name, seconds, None, "s", higher_is_better=False, device=CPU)


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """A process that has ended: its time, and the most memory of it and of it with its children.

    Memory is the proportional set size: a page that several processes share counts once.
    """

    seconds: float
    main_megabytes: float
    all_megabytes: float
    output: str = ""

    @property
    def first_step(self) -> float:
        """Seconds from the start of the process to the moment that it printed."""
        return float(self.output.split()[-1])


def run_watched(words: list[str], work: Path) -> Watched:
    """Run ``longtail`` and watch its memory.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    return watch([sys.executable, "-m", "longtail", *words], work)


def trained(flags: argparse.Namespace, source: str, work: Path, steps: int) -> Watched:
    """Train some steps in a process of its own."""
    words = [source, "--recipe", flags.recipe, "--size", str(flags.size), "--model", flags.model]
    script = [sys.executable, __file__, *words, "--until-first-step", str(steps), str(time.time())]
    return watch(script, work)


def watch(words: list[str], work: Path) -> Watched:
    """Run a command; the cache is a folder of ``work``."""
    environment = psutil.Process().environ() | {"LONGTAIL_CACHE": str(work / "cache")}
    begun, main, everything = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                own = watched.memory_full_info().pss
                children = sum(each.memory_full_info().pss for each in watched.children(recursive=True))
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # one has ended since it was listed
                continue
            main, everything = max(main, own / 1e6), max(everything, (own + children) / 1e6)
            time.sleep(0.2)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Watched(time.perf_counter() - begun, main, everything, output)


class Stop(Callback):
    """Print the seconds since the command was given at the first step, and leave after some."""

    def __init__(self, steps: int, begun: float) -> None:
        self.steps, self.begun, self.done = steps, begun, 0

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Count."""
        del stage, progress
        self.done += 1
        if self.done == 1:
            print(time.time() - self.begun, flush=True)
        if self.done == self.steps:
            raise Interrupted


def train_words(flags: argparse.Namespace) -> list[str]:
    """Return the options of training with a small network and images."""
    return [f"--{option}={value}" for option, value in _options(flags).items() if option != "data.source"]


def _options(flags: argparse.Namespace) -> dict[str, Any]:
    return {
        "recipe": flags.recipe,
        "data.source": flags.source,
        "data.image_size": flags.size,
        "data.resize": flags.size,
        "model.name": flags.model,
        "stage1.epochs": 1,
        "stage1.schedule.milestones": [],
        "stage1.schedule.factors": [],
    }


def until_first_step(flags: argparse.Namespace) -> int:
    """Train some steps in this process."""
    steps, begun = int(flags.until_first_step[0]), float(flags.until_first_step[1])
    with tempfile.TemporaryDirectory() as folder:
        try:
            start_run(
                resolve(_options(flags)), Path(folder) / "run", Reporter(quiet=True), callbacks=[Stop(steps, begun)]
            )
        except Interrupted:
            return 0
    return 1


# --- samplers ---------------------------------------------------------------------------------------------------------


def samplers() -> Iterator[Row]:
    """Yield what each sampler needs for 100 million images of a million classes, by the law of what was measured.

    Memory and time to build are ``a + b N`` for N images, the classes being a hundredth of them; the largest measured
    size is left out of the fit, and tells how far the law is off there.
    """
    for name in SAMPLERS:
        measured = [in_its_own_process(name, images, images // 100, 1) for images in MEASURED]
        for key, unit, scale in (("resident", "MB", 1e6), ("build", "s", 1.0)):
            values = np.array([each[key] for each in measured]) / scale
            slope, start = np.polyfit(MEASURED[:-1], values[:-1], 1)
            off = values[-1] / (start + slope * MEASURED[-1]) - 1
            law = f"{start:.3g} {unit} + {1e6 * slope:.3g} {unit} a million images"
            title = f"sampler {name}, {LAW[0]:,} images, {LAW[1]:,} classes, by the law {law}, {off:+.0%} off at"
            expected = start + slope * LAW[0]
            yield row(f"{title} {MEASURED[-1]:,}", expected, None, unit, higher_is_better=False, device=CPU)


def _flags() -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("source", nargs="?", help="images with a training and a test split")
    options.add_argument("--recipe", default="inaturalist/gcl")
    options.add_argument("--model", default="resnet20")
    options.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    options.add_argument("--epoch", action="store_true", help="train a whole epoch too")
    options.add_argument("--samplers", action="store_true", help="only the law of the samplers")
    options.add_argument("--until-first-step", nargs=2, metavar=("STEPS", "BEGUN"), help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
