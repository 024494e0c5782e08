"""Each sampler over millions of images: seconds to build, draws a second, and memory, each in a process of its own.

python benchmarks/samplers.py --json docs/performance/samplers.json

The floor of a draw is its random numbers alone, that of iterating these and a bare loop of Python; a build has none.
On two cores it takes 4 minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from longtail.data.samplers import SAMPLERS, build_sampler

Figures = dict[str, float]


def main() -> None:
    """Measure every sampler, or with ``--measure`` one of them in this process."""
    from common import parser, rows_to_json, show

    options = parser(__doc__ or "")
    options.add_argument("--images", type=int, default=10_000_000)
    options.add_argument("--classes", type=int, default=100_000)
    options.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS), metavar="NAME")
    flags = options.parse_args()
    rows = [each for name in flags.samplers for each in rows_of(name, flags)]
    show(rows)
    rows_to_json(flags.json, rows)


def rows_of(name: str, flags: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of one sampler."""
    import torch
    from common import row

    figures = in_its_own_process(name, flags.images, flags.classes, flags.repeats)
    # What has to be there: the libraries, the label and the order of each image, and then an epoch's int64 indices.
    needed = figures["imported"] + 8 * flags.images
    half = in_its_own_process(name, flags.images // 2, flags.classes, 1)
    each, each_of_half = (
        (run["whole"] - run["imported"]) / count for run, count in ((figures, flags.images), (half, flags.images // 2))
    )
    higher = {"device": torch.device("cpu")}
    lower = {"higher_is_better": False, **higher}
    title = f"sampler {name}, {flags.images:,} images, {flags.classes:,} classes:"
    return [
        row(f"{title} build", figures["build"], None, "s", **lower),
        row(f"{title} draw an epoch", figures["indices"], None, "draws/s", floor=figures["generator"], **higher),
        row(f"{title} iterate", figures["iterate"], None, "draws/s", floor=figures["loop"], **higher),
        row(
            f"{title} resident, iterating, labels and libraries included",
            figures["resident"] / 1e6,
            None,
            "MB",
            floor=needed / 1e6,
            **lower,
        ),
        row(
            f"{title} resident, an epoch's indices included",
            figures["whole"] / 1e6,
            None,
            "MB",
            floor=(needed + 8 * flags.images) / 1e6,
            **lower,
        ),
        row(f"{title} memory per image, against half as many images", each, each_of_half, "bytes", **lower),
    ]


def in_its_own_process(name: str, images: int, classes: int, repeats: int) -> Figures:
    """Run :func:`measure` in a fresh process, whose memory nothing else has touched."""
    words = [sys.executable, __file__, "--measure", name, str(images), str(classes), str(repeats)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def measure(name: str, images: int, classes: int, repeats: int) -> Figures:
    """Seconds to build, draws a second by both ways, and the most bytes after the imports and after each way."""
    imported = peak_bytes()
    labels = long_tailed_labels(images, classes)
    sampler = build_sampler(name, labels, classes)
    sum(1 for _ in sampler)
    figures = {"imported": imported, "resident": peak_bytes()}
    sampler.indices()
    figures["whole"] = peak_bytes()
    figures |= floors(name, images, repeats)
    figures["build"] = median(_seconds(lambda: build_sampler(name, labels, classes)) for _ in range(repeats))
    figures["indices"] = images / median(_seconds(sampler.indices) for _ in range(repeats))
    figures["iterate"] = images / median(_seconds(lambda: sum(1 for _ in sampler)) for _ in range(repeats))
    return figures


def floors(name: str, images: int, repeats: int) -> Figures:
    """Draws a second of the random numbers alone, one to shuffle an image and two to draw one, and of a bare loop."""
    random, block = np.random.default_rng(0), (1 << 14, 1 if name == "shuffle" else 2)
    ready = range(images)
    generator = median(_seconds(lambda: [random.random(block) for _ in range(64)]) for _ in range(repeats))
    loop = median(_seconds(lambda: sum(1 for _ in ready)) for _ in range(repeats))
    drawn = 64 * block[0] / generator
    return {"generator": drawn, "loop": 1 / (1 / drawn + loop / images)}


def long_tailed_labels(images: int, classes: int) -> np.ndarray:
    """Labels in a random order, class j about ``1 / (j + 1)`` as often as class 0 and at least once; int32."""
    shares = 1 / np.arange(1, classes + 1)
    counts = 1 + np.floor((images - classes) * shares / shares.sum()).astype(np.int64)
    counts[0] += images - counts.sum()
    labels = np.repeat(np.arange(classes, dtype=np.int32), counts)
    np.random.default_rng(0).shuffle(labels)
    return labels


def peak_bytes() -> int:
    """The most memory this process has had resident. Linux: other systems also count what came before it."""
    with open("/proc/self/status") as file:  # noqa: PTH123  (a path object would be one more import to count)
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], *map(int, sys.argv[3:6]))))
    else:
        main()
