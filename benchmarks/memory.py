"""The most memory that a real training run has resident, its child processes included.

python benchmarks/memory.py --source cifar100 --json docs/performance/memory.json

The floor is a Python that has imported what training imports, and does nothing. It takes a minute on two cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import best_device, parser, row, rows_to_json, show

_POLL_SECONDS = 0.02


def main() -> None:
    """Train for a moment, as a user would, and watch."""
    options = parser(__doc__ or "")
    options.add_argument("--source", default="mnist5k", help="what to train on, cut to an imbalance ratio of 100")
    options.add_argument("--recipe", default="cifar-lt/gcl")
    options.add_argument("--epochs", type=int, default=2, help="of stage 1; memory does not grow with more")
    options.add_argument("options", nargs="*", help="further options of longtail train, after --")
    flags = options.parse_args()
    libraries = peak_bytes_of([sys.executable, "-c", "import longtail.training.experiment"])
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", flags.source, "--recipe", flags.recipe, "--epochs", str(flags.epochs)]
        words += ["--imbalance-ratio", "100", "--quiet", *flags.options]
        most = peak_bytes_of([sys.executable, "-m", "longtail", *words, "--out", str(Path(folder) / "run")])
    name = f"memory: longtail {' '.join(words)} --out FOLDER"
    rows = [row(name, most / 1e6, None, "MB", higher_is_better=False, floor=libraries / 1e6, device=best_device())]
    show(rows)
    rows_to_json(flags.json, rows)


def peak_bytes_of(words: list[str]) -> int:
    """The most bytes that the command and its children have resident together.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    with subprocess.Popen(words) as process:
        most, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, _resident(watched))
            time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return most


def _resident(process: psutil.Process) -> int:
    try:
        return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:  # it ended while we looked
        return 0


if __name__ == "__main__":
    main()
