"""Rate of `longtail predict` of many tiny images: one process on one core, beside Ray on two local nodes of one core.

python benchmarks/ray_predict.py --images 20000 100000 --json docs/performance/ray_predict.json

The images are digits with noise, JPEGs of 32 pixels, each another file; the network is small. Both sides are whole
commands, from their start to the finished parts; the cluster is there before. The head has no cores for tasks, but it
and the command run on the same two cores. Images a second of a core's time count all processes of a side, and what two
free cores gain is twice their ratio, however busy the machine is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import common
import numpy as np
import psutil
import torch
from local_cluster import LocalCluster
from PIL import Image
from sklearn.datasets import load_digits

CPU = torch.device("cpu")
SIZE, PER_FOLDER, MILLION = 32, 5_000, 1_000_000
TRAINING = (
    f"train digits --recipe cifar-lt/ce --epochs 1 --data.image_size {SIZE} --model.name plain-cnn --data.workers 0 "
    "--training.device cpu --training.precision fp32"
).split()


def make_images(folder: Path, start: int) -> None:
    """Write the images of one folder."""
    digits = load_digits().images
    here, noise = folder / f"{start:08}", np.random.default_rng(start)
    here.mkdir(parents=True)
    for number in range(PER_FOLDER):
        large = np.kron(digits[(start + number) % len(digits)] * 12, np.ones((SIZE // 8, SIZE // 8)))
        pixels = (large + noise.integers(0, 60, large.shape)).astype(np.uint8)
        Image.fromarray(pixels).convert("RGB").save(here / f"{number:04}.jpg")


class ProcessorTime:
    """Seconds of processor time of this process's children while the block runs, those that end in it included.

    It looks every half second, so that of a process that ends up to that much is missed.

    Attributes:
        seconds: Of all of them.
        by_name: Of each program.
    """

    def __enter__(self) -> ProcessorTime:
        self._names = dict[int, str]()
        self._before, self._now, self._over = self._read(), dict[int, float](), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        used = {pid: now - self._before.get(pid, 0.0) for pid, now in self._now.items()}
        self.seconds, self.by_name = sum(used.values()), Counter[str]()
        for pid, seconds in used.items():
            self.by_name[self._names[pid]] += seconds

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self._now |= self._read()

    def _read(self) -> dict[int, float]:
        seconds = {}
        for process in psutil.Process().children(recursive=True):
            try:
                times, words = process.cpu_times(), process.cmdline()
            except psutil.NoSuchProcess:
                continue
            seconds[process.pid] = times.user + times.system
            self._names[process.pid] = " ".join(Path(word).name for word in words[:3])
        return seconds


def measure(words: list[str], cores: set[int]) -> tuple[float, float]:
    """Run a command, and return its seconds and those of processors that it and its cluster took."""
    begun = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with ProcessorTime() as used:
        subprocess.run(
            [sys.executable, "-m", "longtail", *words],
            check=True,
            env=environment,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
        )
    for name, seconds in used.by_name.most_common(12):
        print(f"{seconds:8.1f} s of processors: {name}")
    return time.perf_counter() - begun, used.seconds


def main() -> None:
    """Make images and a run, predict on each side, and show the rows."""
    options = common.parser(__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[1_000_000], help="numbers of images, in 5,000s")
    flags = options.parse_args()
    rows, processors = list[common.Row](), list[tuple[float, ...]]()
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary, "run")
        subprocess.run([sys.executable, "-m", "longtail", *TRAINING, "--out", str(run)], check=True)
        for number in sorted(flags.images):
            measured = compare(Path(temporary, str(number)), run, number)
            rows += measured
            processors.append((number, *(number / measured[1][side] for side in ("other", "ours"))))
            common.rows_to_json(flags.json, with_ray(rows))
    if len(processors) > 1:
        rows.append(million(processors[0], processors[-1]))
    common.show(rows)
    common.rows_to_json(flags.json, with_ray(rows))


def million(small: tuple[float, ...], large: tuple[float, ...]) -> common.Row:
    """A row for a million images, by the line through two measurements: images, seconds of one process and of Ray."""
    steps = (MILLION - large[0]) / (large[0] - small[0])
    one, two = (large[side] + (large[side] - small[side]) * steps for side in (1, 2))
    words = f"predict of {MILLION:,} images, by the line through {small[0]:,.0f} and {large[0]:,.0f}"
    name = f"{words}: images a second of a core's time"
    return common.row(name, MILLION / two, MILLION / one, "images/s", device=CPU)


def compare(here: Path, run: Path, images: int) -> list[common.Row]:
    """Predict so many images on each side."""
    cores = os.sched_getaffinity(0)
    with ProcessPoolExecutor(len(cores)) as pool:
        list(pool.map(partial(make_images, here / "images"), range(0, images, PER_FOLDER)))
    predict = ["predict", str(run), str(here / "images"), "--device", "cpu", "--engine", "torch", "--out"]
    busy = sum(psutil.cpu_times()[:3])
    one = measure([*predict, str(here / "one.parquet")], {min(cores)})
    with LocalCluster(nodes=2, cores=1, pinned=True) as cluster:
        two = measure([*predict, str(here / "parts"), "--ray", cluster.address], cores)
    others = sum(psutil.cpu_times()[:3]) - busy - one[1] - two[1]
    words = f"predict of {images:,} images of {SIZE} pixels on two Ray nodes of one core, against one process"
    per_core = f"{words}: images a second of a core's time"
    return [
        common.row(f"{words}: images/s", images / two[0], images / one[0], "images/s", device=CPU),
        common.row(per_core, images / two[1], images / one[1], "images/s", device=CPU),
        common.row(f"{words}: processor time of other work meanwhile", others, None, "s", device=CPU),
    ]


def with_ray(rows: list[common.Row]) -> list[common.Row]:
    """Add the version of Ray to rows."""
    return [each | {"versions": each["versions"] | {"ray": version("ray")}} for each in rows]


if __name__ == "__main__":
    main()
