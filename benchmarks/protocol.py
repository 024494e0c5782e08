"""A whole run by the published protocol (GCL, 200 + 30 epochs, CIFAR-100-LT, ratio 100): seconds, start-up apart.

python benchmarks/protocol.py --json docs/performance/protocol.json

Each repeat is a whole run: a minute or two on a GPU; on a processor it takes hours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import parser, row, rows_to_json, show


def main() -> None:
    """Train with ``longtail train`` and read the seconds that the run itself recorded."""
    options = parser(__doc__ or "")
    options.add_argument("--source", default="cifar100")
    options.add_argument("--recipe", default="cifar-lt/gcl")
    options.add_argument("--epochs", type=int, default=200, help="fewer, to try the script out")
    options.add_argument("options", nargs="*", help="further options of longtail train, after --")
    flags = options.parse_args()
    parts: dict[str, list[float]] = {
        "training and evaluation": [],
        "evaluation alone": [],
        "start-up and compiling": [],
    }
    for _ in range(flags.repeats):
        with tempfile.TemporaryDirectory() as folder:
            words = ["train", flags.source, "--recipe", flags.recipe, "--epochs", str(flags.epochs)]
            words += ["--imbalance-ratio", "100", "--training.precision", "bf16", "--quiet", "--out", f"{folder}/run"]
            subprocess.run([sys.executable, "-m", "longtail", *words, *flags.options], check=True)
            taken = json.loads((Path(folder) / "run" / "metrics.json").read_text())["seconds"]
        working = ("stage1", "stage2", "features", "saving", "evaluation")
        parts["training and evaluation"].append(sum(taken[part] for part in working))
        parts["evaluation alone"].append(taken["evaluation"])
        parts["start-up and compiling"].append(taken["startup"] + taken["compile"])
    rows = [
        row(
            f"{flags.recipe}, {flags.epochs} epochs of stage 1: {name}",
            float(np.median(seconds)),
            None,
            "s",
            higher_is_better=False,
        )
        for name, seconds in parts.items()
    ]
    show(rows)
    rows_to_json(flags.json, rows)


if __name__ == "__main__":
    main()
