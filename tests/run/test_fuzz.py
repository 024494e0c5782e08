"""Damaged files of a RUN end in a result or in one sentence, in time; the cases are those of ``benchmarks/fuzz.py``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

CASES = 25  # for each test, the same on every machine
READERS = ("evaluate", "compare", "predict", "export", "push", "adjust", "plan", "prior.json", "prior.csv")


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    """The script, found as it finds its neighbors when it is run."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import fuzz

        yield fuzz
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def base(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run: Path = fuzz.make_run(tmp_path_factory.mktemp("fuzz"), is_whole=False)
    return run


@pytest.mark.parametrize("seed", [0, 10_000])
def test_a_damaged_run_ends_in_a_result_or_a_sentence(fuzz: ModuleType, base: Path, seed: int) -> None:
    for number in range(CASES):
        case = fuzz.run_case(base, seed + number, commands=READERS, limit=60.0)
        assert case.is_right, f"case {case.seed}: {case.change} in {case.file}, {case.command}: {case.message}"
