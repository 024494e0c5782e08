"""A small grid of two recipes on digits, and runs of it that were never trained."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longtail.experiments.grid_plan import PlannedRun
from longtail.files import write_yaml

SMALL = {
    "data.imbalance_ratio": 10,
    "data.image_size": 8,
    "data.augmentation": "none",
    "data.workers": 0,
    "model.name": "plain-cnn",
    "stage1.optimizer.lr": 0.02,
    "training.device": "cpu",
}
RUNS = {"ce": {"recipe": "cifar-lt/ce"}, "gcl": {"recipe": "cifar-lt/gcl"}}


def spec(out: Path | str = "/runs", **changes: Any) -> dict[str, Any]:
    return {"source": "digits", "out": str(out), "epochs": 2, "set": SMALL, "runs": RUNS} | changes


def fake_run(run: PlannedRun, *files: str) -> PlannedRun:
    write_yaml(run.folder / "config.yaml", asdict(run.config))
    for name in files:
        (run.folder / name).mkdir() if name == "checkpoint" else (run.folder / name).write_text("{}")
    return run


_WAITS = """
import os, pathlib, select, signal, sys
run = pathlib.Path(sys.argv[1])
def save(*_):
    (run / "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
with (run / "begun").open("a") as file:
    file.write(f"{os.getppid()}\\n")
(run / "checkpoint").mkdir(exist_ok=True)
while not (run.parent.parent / "go").exists():
    if select.select([0], [], [], 0.05)[0] and not os.read(0, 1):
        sys.exit(130)  # the grid is gone
(run / "metrics.json").write_text("{}")
(run / "checkpoint").rmdir()
"""


def waiting_command(run: PlannedRun) -> list[str]:
    """Return a process that has a checkpoint and waits for the file ``go`` in the folder of the grid, then finishes.

    It writes the number of its parent process to ``begun`` in its folder, and ``saved`` when it is asked to stop.
    """
    return [sys.executable, "-c", _WAITS, str(run.folder)]


def starts_of(run: PlannedRun) -> list[int]:
    """Return the parent process of each start of the :func:`waiting_command` of a run."""
    file = run.folder / "begun"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []
