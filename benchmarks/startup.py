"""Seconds until ``import longtail`` is done and until the command line has printed its help, in fresh processes.

python benchmarks/startup.py --json docs/performance/startup.json
"""

from __future__ import annotations

import subprocess
import sys

import torch
from common import medians_of, parser, row, rows_to_json, show

COMMANDS = {
    "import longtail": ["-c", "import longtail"],
    "longtail --help": ["-m", "longtail", "--help"],
    "longtail train --help": ["-m", "longtail", "train", "--help"],
}


def main() -> None:
    """Measure in turns with a Python that does nothing, which is the floor."""
    options = parser(__doc__ or "")
    flags = options.parse_args()
    nothing = "python -c pass"
    sides = {name: lambda words=words: run(words) for name, words in (COMMANDS | {nothing: ["-c", "pass"]}).items()}
    seconds = medians_of(sides, flags.repeats)
    rows = [
        row(
            f"start: {name}",
            seconds[name],
            None,
            "s",
            higher_is_better=False,
            floor=seconds[nothing],
            device=torch.device("cpu"),
        )
        for name in COMMANDS
    ]
    show(rows)
    rows_to_json(flags.json, rows)


def run(words: list[str]) -> None:
    """Run Python once, from its start to its end."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
