"""Six small runs as one grid against the same six one after another, on one GPU (or, to try it, on a CPU)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from common import parser, row, rows_to_json, show

RECIPES = ("ce", "kps-ga", "fbl", "ldam-drw", "logit-adjustment", "balanced-softmax")


def main() -> None:
    """Time whole grids, start-up included, in turns."""
    options = parser(__doc__ or "")
    options.add_argument("--source", default="mnist5k", help="SOURCE; CIFAR for the figure that counts")
    options.add_argument("--imbalance-ratio", type=float, default=100.0)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--jobs", type=int, default=6)
    flags = options.parse_args()
    spec = {
        "source": flags.source,
        "epochs": flags.epochs,
        "set": {"data.imbalance_ratio": flags.imbalance_ratio, "training.precision": "bf16"},
        "runs": {name: {"recipe": f"cifar-lt/{name}"} for name in RECIPES},
    }
    one_by_one, together = [], []
    for _ in range(flags.repeats):
        one_by_one.append(seconds(spec, 1))
        together.append(seconds(spec, flags.jobs))
    rows = [
        row(
            f"grid of {len(RECIPES)} runs, {flags.epochs} epochs: {flags.jobs} at once",
            float(np.median(together)),
            float(np.median(one_by_one)),
            "s",
            higher_is_better=False,
        )
    ]
    show(rows)
    rows_to_json(flags.json, rows)


def seconds(spec: dict[str, object], jobs: int) -> float:
    """Run the grid in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grid.yaml"
        file.write_text(yaml.safe_dump(spec))
        words = ["compare", "--grid", str(file), "--out", f"{folder}/runs", "--jobs", str(jobs)]
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "longtail", *words], check=True, capture_output=True)
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
