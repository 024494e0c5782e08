"""Runs whose predictions are known image by image, for the sections that are made of predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_predictions import first_right, predict

from longtail.compare.comparison import compare_runs
from longtail.compare.table import Comparison


@pytest.fixture
def ce_and_gcl(make_run: Callable[..., Path]) -> Comparison:
    """The tail goes to the head under ce, and half of it to the other few-shot class under gcl."""
    ce = predict(make_run("ce"), first_right([20, 20, 10, 10, 0, 0], [1, 0, 0, 0, 0, 0]), 0.9)
    gcl = predict(
        make_run("gcl", recipe="cifar-lt/gcl"), first_right([10, 20, 10, 10, 10, 10], [4, 0, 0, 0, 0, 4]), 0.6, 0.3
    )
    return compare_runs([ce, gcl])
