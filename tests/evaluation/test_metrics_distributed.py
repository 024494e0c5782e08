"""The metric over two gloo processes with shares of unequal size equals the metric over one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from longtail import ClassCounts
from longtail.evaluation.metrics import EvaluationMetrics, summarize

WORKER = Path(__file__).parent / "metric_worker.py"


def test_two_processes_agree_with_one(tmp_path: Path, launch_two: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, counts = torch.randn(100, 6, generator=generator), torch.tensor([400, 150, 60, 30, 12, 3])
    target = torch.randint(0, 5, (100,), generator=generator)  # class 5 has no test image
    torch.save({"scores": scores, "target": target, "counts": counts}, tmp_path / "scores.pt")
    shares = ["73", "100"]  # images of the first process: an unequal share, and one that leaves the other nothing
    launch_two(WORKER, str(tmp_path), *shares)

    metric = EvaluationMetrics(num_classes=6)
    metric.update(scores, target)
    expected = summarize(metric, ClassCounts(counts.tolist()))
    for path in [tmp_path / f"summary-{first}-{rank}.json" for first in shares for rank in range(2)]:
        found = json.loads(path.read_text())
        assert found["per_class"] == expected["per_class"]
        assert found["num_images"] == 100
        for name, value in expected.items():
            if isinstance(value, float):
                assert found[name] == pytest.approx(value, rel=1e-12), name
