"""Fake runs for the tests of the report: with given predictions, with an analysis, and two to compare."""

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


@pytest.fixture
def two(make_run: Callable[..., Path]) -> list[Path]:
    """Two runs, the second one of two stages and better on small classes."""
    return [make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", slope=0.4, stages=2)]


@pytest.fixture
def analyzed(
    make_run: Callable[..., Path], cifar_counts: list[int], write_analysis: Callable[..., None]
) -> Callable[..., Path]:
    """``analyzed("ce", slope=1.0)``: a fake run whose feature norms and ratios follow the class size by ``slope``."""

    def make(
        name: str,
        *,
        slope: float = 1.0,
        within: float = 2.0,
        bias: bool = True,
        counts: list[int] | None = None,
        projections: tuple[str, ...] = ("pca", "tsne"),
        **options: object,
    ) -> Path:
        folder = make_run(name, recipe=f"cifar-lt/{name}", counts=counts or cifar_counts, **options)
        write_analysis(folder, counts or cifar_counts, slope=slope, within=within, bias=bias, projections=projections)
        return folder

    return make
