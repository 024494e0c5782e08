"""Two processes that evaluate different shares of the same scores; run by test_tallies.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from longtail import ClassCounts
from longtail.evaluation.tallies import EvaluationMetrics, summarize


def work(to: str, *shares: str) -> None:
    """Read scores.pt; for each way to share it out, update with this rank's share and write what it summarizes."""
    folder, rank = Path(to), int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    data = torch.load(folder / "scores.pt", weights_only=True)
    for first in map(int, shares):
        share = slice(0, first) if rank == 0 else slice(first, None)
        metric = EvaluationMetrics(num_classes=data["scores"].shape[1])
        for scores, target in zip(data["scores"][share].split(16), data["target"][share].split(16), strict=True):
            metric.update(scores, target)
        summary = summarize(metric, ClassCounts(data["counts"].tolist()))
        (folder / f"summary-{first}-{rank}.json").write_text(json.dumps(summary, allow_nan=False))
    dist.destroy_process_group()


if __name__ == "__main__":
    from two_processes import fork  # here: who collects doctests imports this file without its path

    fork(work, *sys.argv[1:])
