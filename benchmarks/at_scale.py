"""Measure the commands at the shape of the real benchmarks: hundreds of thousands of files, thousands of classes.

python benchmarks/stand_ins.py inaturalist folder:photos stand-ins/inaturalist
python benchmarks/at_scale.py folder:stand-ins/inaturalist --recipe inaturalist/gcl --size 32 --json FILE
python benchmarks/at_scale.py --samplers --json docs/performance/samplers-at-scale.json

The ``--parts``: ``inspect``; ``first-step``, the time from the command to the first step, twice; ``loader``, images a
second that it delivers next to the pure decode rate of the same cores; ``network``, training steps alone; ``memory`` of
the main process and of all at growing numbers of images; ``run``, one epoch (next to what loader and network alone
allow, where these parts come before it) and one of stage 2 on stored features, and ``evaluate``, ``analyze`` and
``report`` of it; ``prepare``. Every command is a process of its own; on a machine that does other work too its
processor time tells more than the clock. The network is a small one, for the speed of a large one hides that of
everything else.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from common import Row, parser, row, rows_to_json, show
from samplers import long_tailed_labels, peak_bytes
from streaming import epoch_seconds, pure_decode_seconds, rates

from longtail.config.resolve import resolve
from longtail.config.schema import TrainingConfig
from longtail.console import Interrupted, Reporter
from longtail.data.dataset import Split
from longtail.data.loading.loaders import StreamingLoader
from longtail.data.loading.workers import Decoder
from longtail.data.samplers import SAMPLERS, build_sampler
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.device import cores
from longtail.models import build_model
from longtail.training.engine import Engine
from longtail.training.finetuning import measure_training_rate
from longtail.training.launch import start_run
from longtail.training.loop import Callback, Progress, StageRun

CPU = torch.device("cpu")
STEPS = 10  # after which memory does not grow any more
SAMPLED = 4_096  # images of the loader's rate
LISTED = (20_000, 100_000)  # images at which memory is measured, next to all
EVALUATED = 64  # images that these runs are tested on
REPEATS = 3  # of these runs, of which the median counts: they differ by some 40 MB
MEASURED = (1_000_000, 3_000_000, 10_000_000, 30_000_000)  # images of the samplers' law
DRAWN = 1_000_000  # images
NOTHING = 0.01  # seconds: what takes less at the largest size has no law
LAW = (100_000_000, 1_000_000)  # images and classes that it is extended to


def main() -> int:
    """Measure what was asked for, show and write."""
    flags = _flags()
    if flags.until_first_step:
        return until_first_step(flags)
    if flags.build_sampler:
        print(json.dumps(build_in_this_process(flags.build_sampler[0], int(flags.build_sampler[1]))))
        return 0
    rows: list[Row] = []
    for each in samplers() if flags.samplers else measure(flags):
        rows.append(each)
        rows_to_json(flags.json, rows)  # each at once: hours may follow
    show(rows)
    return 0


def measure(flags: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of a folder of images that were asked for."""
    images = load_source(flags.source)
    split, classes = images.splits["train"], len(images.classes)
    name = f"{len(split):,} images, {classes:,} classes"
    rates: dict[str, float] = {}  # of the loader and of the network alone, by the clock
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "first-step": lambda: first_step(flags, name, work),
            "loader": lambda: throughput(flags, split, name, rates),
            "network": lambda: network_alone(flags, classes, rates),
            "memory": lambda: memory(flags, split, work),
            "run": lambda: whole_run(flags, name, work, rates),
            "prepare": lambda: prepared(flags, name, work),
            "inspect": lambda: command(f"inspect: {name}", ["inspect", flags.source], work),
        }
        for part in flags.parts:
            yield from parts[part]()


def first_step(flags: argparse.Namespace, name: str, work: Path) -> Iterator[Row]:
    """Yield the seconds from the command to the first step, with an empty cache and with that of the first time."""
    for cache in ("empty cache", "again"):
        first = trained(flags, flags.source, work, 1)
        yield seconds_row(f"train: command to first step, {cache}: {name}", first.first_step)
        title = f"train: command to first step, {cache}, processor time: {name}"
        yield seconds_row(title, first.processor_first_step)


def throughput(flags: argparse.Namespace, split: Split, name: str, alone: dict[str, float]) -> Iterator[Row]:
    """Yield the rate of the loader next to that of decoding alone, by the clock and by the time of processors."""
    rows = np.random.default_rng(0).choice(len(split), min(SAMPLED, len(split)), replace=False)
    decoder = Decoder(split.select(rows), Square(flags.size, flags.size))
    loader = StreamingLoader(decoder, torch.from_numpy(decoder.split.labels.copy()), CPU, cores())
    sides: dict[str, Callable[[], float]] = {
        "decode": lambda: pure_decode_seconds(decoder),
        "loader": lambda: epoch_seconds(loader),
    }
    title = f"loader at {flags.size} px on {cores()} cores"
    busy = {side: partial(busy_during, measure) for side, measure in sides.items()}
    for words, each in (("", sides), (", a second of a core", busy)):
        measured = rates(each, len(rows), flags.repeats)
        alone.setdefault("loader", measured["loader"])
        yield row(f"{title}{words}: {name}", measured["loader"], None, "images/s", floor=measured["decode"], device=CPU)


def busy_during(work: Callable[[], object]) -> float:
    """Seconds that processors work for this process and its children during a call."""
    begun = busy_seconds()
    work()
    return busy_seconds() - begun


def busy_seconds() -> float:
    """Seconds that processors have worked for this process and its children, those that have ended included."""
    living = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + _children_seconds() + sum(times.user + times.system for times in living)


def network_alone(flags: argparse.Namespace, classes: int, alone: dict[str, float]) -> Iterator[Row]:
    """Yield the rate of training steps on images in memory."""
    model = build_model(flags.model, classes, "cosine", in_size=flags.size)
    alone["network"] = measure_training_rate(model, flags.size, 512, Engine(TrainingConfig(device="cpu")))
    title = f"network alone, {flags.model} at {flags.size} px, {classes:,} classes, training steps"
    yield row(title, alone["network"], None, "images/s", device=CPU)


def memory(flags: argparse.Namespace, split: Split, work: Path) -> Iterator[Row]:
    """Yield the memory of training, of the main process and of all, at growing numbers of images."""
    # In every part each class has an image, so that the classifier is the same.
    order = list(dict.fromkeys([*np.unique(split.labels, return_index=True)[1].tolist(), *range(len(split))]))
    listed, tested = order[:-EVALUATED], order[-EVALUATED:]
    sizes = [*(size for size in LISTED if size < len(listed)), len(listed)]
    first: list[Watched] = []
    for size in sizes:
        listing = work / f"{size}.csv"
        with listing.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "label", "split"))
            for name, rows in (("train", listed[:size]), ("test", tested)):
                writer.writerows((Path(split.path(row)).resolve(), split.labels[row], name) for row in rows)
        watched = [trained(flags, f"csv:{listing}", work, STEPS) for _ in range(REPEATS)]
        first = first or watched
        beyond = 64 * (size - sizes[0]) / 1e6  # megabytes: a path and a label are allowed for
        for part in ("main", "all"):
            value, start = (median(getattr(each, part).megabytes for each in runs) for runs in (watched, first))
            what = "the main process" if part == "main" else "all processes"
            floor = None if size == sizes[0] else start + beyond
            name = f"memory of training, {what}, without pages of files: {size:,} images"
            yield row(name, value, None, "MB", higher_is_better=False, floor=floor, device=CPU)
            name = f"memory of training, {what}, with pages of files: {size:,} images"
            value = median(getattr(each, part).megabytes_with_files for each in watched)
            yield row(name, value, None, "MB", higher_is_better=False, device=CPU)


def whole_run(flags: argparse.Namespace, name: str, work: Path, alone: dict[str, float]) -> Iterator[Row]:
    """Yield the rate of one epoch and of one on stored features, and the time of the commands that come after it.

    The floor of an epoch is loader and network alone, one after the other on the same cores.
    """
    run, words = work / "run", train_words(flags)
    title = f"train: one epoch of {flags.recipe} with {flags.model} at {flags.size} px"
    yield from command(f"{title}: {name}", ["train", flags.source, *words, "--out", str(run), "--quiet"], work)
    for stage, measured in json.loads((run / "metrics.json").read_text())["throughput"].items():
        rate = measured["images_per_second"]
        floor = 1 / sum(1 / each for each in alone.values()) if stage == "stage1" and len(alone) == 2 else None
        yield row(f"{title}, {stage}: {name}", rate, None, "images/s", floor=floor, device=CPU)
    for verb, further in (("evaluate", []), ("analyze", []), ("report", ["--out", str(work / "report.html")])):
        yield from command(f"{verb}: {name}", [verb, str(run), *further], work)
    size = (work / "report.html").stat().st_size / 1e6
    yield row(f"report: {name}, size of the page", size, None, "MB", higher_is_better=False, device=CPU)


def prepared(flags: argparse.Namespace, name: str, work: Path) -> Iterator[Row]:
    """Yield the time of preparing the images, and of the first step on them."""
    out = work / "prepared"
    words = ["prepare", flags.source, "--size", str(flags.size), "--out", str(out)]
    yield from command(f"prepare at {flags.size} px: {name}", words, work)
    yield from first_step(argparse.Namespace(**vars(flags) | {"source": f"hf:{out}"}), f"prepared {name}", work)


def command(title: str, words: list[str], work: Path) -> Iterator[Row]:
    """Run ``longtail``, and yield its time, of the clock and of processors, and its memory."""
    watched = watch([sys.executable, "-m", "longtail", *words], work)
    yield seconds_row(title, watched.seconds)
    yield seconds_row(f"{title}, processor time", watched.processor_seconds)
    megabytes = watched.all.megabytes
    yield row(f"{title}, memory", megabytes, None, "MB", higher_is_better=False, device=CPU)


def seconds_row(name: str, seconds: float) -> Row:
    """Return the row of a command's time."""
    return row(name, seconds, None, "s", higher_is_better=False, device=CPU)


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """The most memory of a process or of several.

    It is the proportional set size: a page that several processes share counts once. Pages of files, which the system
    drops when it needs the memory, are apart: programs, libraries, and the decoded images of the cache.
    """

    megabytes: float = 0.0
    megabytes_with_files: float = 0.0

    def note(self, megabytes: float, megabytes_with_files: float) -> None:
        """Take what there is now."""
        self.megabytes = max(self.megabytes, megabytes)
        self.megabytes_with_files = max(self.megabytes_with_files, megabytes_with_files)


def memory_now(process: psutil.Process) -> np.ndarray:
    """Megabytes of a process without and with pages of files; 0 where it has ended. Linux."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return np.zeros(2)
    sizes = {name: int(text.split()[0]) for name, text in (line.split(":", 1) for line in lines[1:])}
    return np.array([sizes["Pss_Anon"] + sizes["Pss_Shmem"], sizes["Pss"]]) * 1024 / 1e6


@dataclass(frozen=True)
class Watched:
    """A process that has ended: its time, and the most memory of it and of it with its children."""

    seconds: float
    processor_seconds: float
    main: Memory
    all: Memory
    output: str = ""

    @property
    def first_step(self) -> float:
        """Seconds from the start of the process to its first step."""
        return float(self.output.split()[-2])

    @property
    def processor_first_step(self) -> float:
        """The same in processor time of the process and its threads."""
        return float(self.output.split()[-1])


def trained(flags: argparse.Namespace, source: str, work: Path, steps: int) -> Watched:
    """Train some steps in a process of its own."""
    words = [source, "--recipe", flags.recipe, "--size", str(flags.size), "--model", flags.model]
    script = [sys.executable, __file__, *words, "--until-first-step", str(steps), str(time.time())]
    return watch(script, work)


def watch(words: list[str], work: Path) -> Watched:
    """Run a command and watch its memory; the cache is a folder of ``work``.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    environment = psutil.Process().environ() | {"LONGTAIL_CACHE": str(work / "cache")}
    begun, before, main, everything = time.perf_counter(), _children_seconds(), Memory(), Memory()
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(words, stdout=output, env=environment) as process:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    own = memory_now(watched)
                    main.note(*own.tolist())
                    everything.note(*sum(map(memory_now, watched.children(recursive=True)), own).tolist())
                time.sleep(1)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)
        output.seek(0)
        text = output.read()
    return Watched(time.perf_counter() - begun, _children_seconds() - before, main, everything, text)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Stop(Callback):
    """Print the seconds since the command was given at the first step, and leave after some."""

    def __init__(self, steps: int, begun: float) -> None:
        self.steps, self.begun, self.done = steps, begun, 0

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        """Count."""
        del stage, progress
        self.done += 1
        if self.done == 1:
            print(time.time() - self.begun, time.process_time(), flush=True)
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
        "model.pretrained": False,
        "model.trainable": [],
        "stage1.epochs": 1,
        "stage1.schedule.milestones": [],
        "stage1.schedule.factors": [],
        "stage2.epochs": 1,
        "stage2.cached_views": 1,
        "stage2.mixing": "feature-mixup",
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


def built_sampler(name: str, images: int) -> dict[str, float]:
    """Build a sampler in a process of its own."""
    words = [sys.executable, __file__, "--build-sampler", name, str(images)]
    figures: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return figures


def build_in_this_process(name: str, images: int) -> dict[str, float]:
    """Return the processor seconds to build a sampler, and the most resident bytes of building it and of drawing."""
    labels = long_tailed_labels(images, images // 100)
    begun = time.process_time()
    sampler = build_sampler(name, labels, images // 100)
    build = time.process_time() - begun
    for _ in islice(sampler, DRAWN):
        pass
    return {"build": build, "resident": peak_bytes()}


def samplers() -> Iterator[Row]:
    """Yield what each sampler needs for 100 million images of a million classes, by the law of what was measured.

    Memory and time to build are ``a + b N`` for N images, the classes being a hundredth of them; the largest measured
    size is left out of the fit, and tells how far the law is off there. Memory is that of the whole process.
    """
    for name in SAMPLERS:
        measured = [built_sampler(name, images) for images in MEASURED]
        for key, unit, scale in (("resident", "MB", 1e6), ("build", "s", 1.0)):
            values = np.array([each[key] for each in measured]) / scale
            if values[-1] < NOTHING:
                continue
            slope, start = np.polyfit(MEASURED[:-1], values[:-1], 1)
            off = values[-1] / (start + slope * MEASURED[-1]) - 1
            law = f"{start:.3g} {unit} + {1e6 * slope:.3g} {unit} a million images"
            what = "memory" if key == "resident" else "build, processor time"
            title = f"sampler {name}, {what}: {LAW[0]:,} images, {LAW[1]:,} classes, by {law}"
            expected = start + slope * LAW[0]
            name_with_error = f"{title} ({off:+.0%} off at {MEASURED[-1]:,})"
            yield row(name_with_error, expected, None, unit, higher_is_better=False, device=CPU)


def _flags() -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("source", nargs="?", help="images with a training and a test split")
    options.add_argument("--recipe", default="inaturalist/gcl")
    options.add_argument("--model", default="resnet20")
    options.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    options.add_argument("--parts", nargs="+", default=["first-step", "loader", "network", "memory", "inspect"])
    options.add_argument("--samplers", action="store_true", help="only the law of the samplers")
    options.add_argument("--build-sampler", nargs=2, metavar=("NAME", "IMAGES"), help=argparse.SUPPRESS)
    options.add_argument("--until-first-step", nargs=2, metavar=("STEPS", "BEGUN"), help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
