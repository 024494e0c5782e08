"""The configurations of a section: what is left out is named, with the way in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from longtail.compare.comparison import compare_runs
from longtail.compare.table import Comparison
from longtail.report.configurations import absent_notes


def compared(*folders: Path) -> Comparison:
    return compare_runs(folders)


def test_what_is_left_out_is_said_with_the_way_in(
    analyzed: Callable[..., Path], make_run: Callable[..., Path], cifar_counts: list[int]
) -> None:
    seen, plain = analyzed("ce"), make_run("gcl", recipe="cifar-lt/gcl", counts=cifar_counts)
    notes = absent_notes(compared(seen, plain))
    assert len(notes) == 1
    assert "gcl" in notes[0]
    assert "longtail analyze" in notes[0]
    assert absent_notes(compared(plain)) == absent_notes(compared(seen)) == []
