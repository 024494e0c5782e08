"""Shared by benchmarks: timing in turns, rows of one form, the physical floors of this machine, and grids of runs."""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from longtail.cli import main as longtail
from longtail.commands.output import EXIT_INTERRUPTED
from longtail.counts import IntArray
from longtail.data.samplers import EpochSampler
from longtail.device import hardware
from longtail.models.model import build_model
from longtail.version import versions

Row = dict[str, Any]
KEYS = ("name", "ours", "other", "unit", "ratio", "floor_share", "device", "versions")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # settings of mallopt, as malloc.h has them
_LEAST_SECONDS = 0.02  # of one measurement: a shorter one measures the clock


class FixedRows(EpochSampler):
    """The same rows in every epoch, for a training loop that is timed."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(int(rows.max()) + 1, num_samples=len(rows), seed=0, rank=0, world_size=1)
        self.fixed = rows

    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IntArray]:
        del random, progress
        yield self.fixed.numpy()


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows to this file")
    options.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements of each side; the median")
    return options


def median_of(work: Callable[[], object], repeats: int = 5, warmup: int = 1) -> float:
    """Seconds of one call, the median of ``repeats`` measurements."""
    return medians_of({"": work}, repeats, warmup)[""]


def medians_of(
    sides: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds of one call of each side, medians of ``repeats``; in turns, so that all sides see the same machine.

    With :func:`time.process_time` as the clock they are those of processors, as a machine that is shared needs.
    """
    calls = {}
    for name, work in sides.items():
        _seconds(work, max(1, warmup), clock)
        calls[name] = max(1, round(_LEAST_SECONDS / max(_seconds(work, 1, clock), 1e-9)))
    seconds_of: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            seconds_of[name].append(_seconds(work, calls[name], clock) / calls[name])
    return {name: median(seconds) for name, seconds in seconds_of.items()}


def _seconds(work: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    wait_for_device()
    begun = clock()
    for _ in range(calls):
        work()
    wait_for_device()
    return clock() - begun


def keep_memory() -> None:
    """Have the C library keep what is freed, for itself.

    A result of megabytes is otherwise given new pages, or not, by what happens to lie above it, and an operation on new
    pages takes several times as long: the same cross-entropy measured against itself was four times as slow.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 1 << 30)):
                if not library.mallopt(setting, value):
                    raise OSError(f"mallopt({setting}, {value}) was refused")


def wait_for_device() -> None:
    """Wait until the GPU, where there is one, has done all it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def row(
    name: str,
    ours: float,
    other: float | None,
    unit: str,
    *,
    higher_is_better: bool = True,
    floor: float | None = None,
    device: torch.device | None = None,
) -> Row:
    """One line of a table.

    Args:
        name: Name of the measurement.
        ours: The figure of this package.
        other: The figure of the reference, in the same unit and run; ``None`` for nothing.
        unit: The unit of both.
        higher_is_better: Whether the larger figure is the better one.
        floor: The best figure that the machine allows, in the same unit; ``None`` where it is not known.
        device: Device it ran on; the GPU where there is one when not given.

    Returns:
        A row with :data:`KEYS`: ``ratio`` says how many times better ours is, and ``floor_share`` is 1 at the floor.
    """

    def better(figure: float, than: float) -> float:
        return figure / than if higher_is_better else than / figure

    facts = hardware(device or best_device())
    machine = facts["processor"] if facts["device"] == "cpu" else facts["device"]
    package_versions = versions()
    return {
        "name": name,
        "ours": ours,
        "other": other,
        "unit": unit,
        "ratio": None if other is None else better(ours, other),
        "floor_share": None if floor is None else better(ours, floor),
        "device": f"{machine}, {facts['cores']} cores",
        "versions": {package: package_versions[package] for package in ("python", "torch", "longtail", "numpy")},
    }


def rows_to_json(path: Path | None, rows: Iterable[Row]) -> None:
    """Write the rows, replacing the file: one file is one run of one benchmark. No path, no file."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show(rows: Iterable[Row]) -> None:
    """Print the rows as a table."""
    table = Table("work", "ours", "reference", "unit", "ratio", "of the floor")
    for each in rows:
        share = "" if each["floor_share"] is None else f"{each['floor_share']:.0%}"
        figures = [number(each[key]) for key in ("ours", "other")]
        table.add_row(each["name"], *figures, each["unit"], number(each["ratio"]), share)
    Console().print(table)


def number(value: float | None) -> str:
    """Three significant digits, without an exponent; nothing for ``None``."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def train_grid(spec: Mapping[str, Any], out: Path, jobs: int | None) -> int:
    """Train what is not finished of a grid, as ``longtail compare --grid`` does; return the exit status.

    Raises:
        SystemExit: Ctrl-C or SIGTERM; the checkpoints are written.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "wanted.yaml"
    file.write_text(yaml.safe_dump(dict(spec), sort_keys=False))
    words = ["compare", "--grid", str(file), "--out", str(out)]
    ended = longtail(words + (["--jobs", str(jobs)] if jobs else []))
    if ended == EXIT_INTERRUPTED:
        raise SystemExit(ended)
    return ended


def matmul_rate(dtype: torch.dtype) -> float:
    """Additions and multiplications a second of a large matrix product: what the arithmetic of a step cannot pass."""
    device = best_device()
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / median_of(lambda: left @ right)


def flops_per_image(*, backward: bool = True) -> float:
    """Multiplications and additions of a ResNet-32 for one image, forward and backward."""
    model = build_model("resnet32", 100)
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.zeros(2, 3, 32, 32))
        if backward:
            logits.sum().backward()
    return int(counter.get_total_flops()) / 2


def memory_bandwidth() -> float:
    """Bytes a second read and written by a copy far larger than any cache."""
    source = torch.ones(1 << 28, dtype=torch.uint8, device=best_device())
    target = torch.empty_like(source)
    return 2 * source.numel() / median_of(lambda: target.copy_(source))
