"""Evaluating a run again: figures on stored features are those of the whole network."""

from __future__ import annotations

from pathlib import Path

import pytest
from mode_config import mode_config

from longtail.console import Reporter
from longtail.experiments.evaluate import evaluate_run
from longtail.training.launch import start_run


def test_evaluation_on_features_is_that_of_the_whole_network(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    metrics = start_run(mode_config("gcl", "linear"), tmp_path / "run", quiet)
    again = evaluate_run(tmp_path / "run")
    assert again["accuracy"] == metrics["test"]["accuracy"]
    assert again["nll"] == pytest.approx(metrics["test"]["nll"], rel=1e-4)
