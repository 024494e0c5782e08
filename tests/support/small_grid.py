"""A small grid of two recipes on digits, and runs of it that were never trained."""

from __future__ import annotations

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


def spec(out: Path | str = "runs", **changes: Any) -> dict[str, Any]:
    return {"source": "digits", "out": str(out), "epochs": 2, "set": SMALL, "runs": RUNS} | changes


def fake_run(run: PlannedRun, *files: str) -> PlannedRun:
    write_yaml(run.folder / "config.yaml", asdict(run.config))
    for name in files:
        (run.folder / name).mkdir() if name == "checkpoint" else (run.folder / name).write_text("{}")
    return run
