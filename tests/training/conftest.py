"""A small, fast experiment that the training tests start from."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longtail.training.config import RunConfig
from longtail.training.progress import Reporter
from longtail.training.recipe import base_config, config_from_dict, merge


@pytest.fixture(scope="session", autouse=True)
def _loaded_once() -> None:
    """Keep the libraries out of the collections after each stage, which would take a third of a test's time."""
    import longtail.training.run  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture
def small_config() -> Callable[..., RunConfig]:
    """Build a configuration on the digits with a network that trains in under a second; overrides as nested dicts."""

    def build(recipe: str | None = None, epochs: int | None = None, **overrides: Any) -> RunConfig:
        tiny = {
            "data": {"source": "digits", "imbalance_ratio": 10, "image_size": 16},
            "model": {"name": "plain-cnn"},
            "stage1": {"optimizer": {"lr": 0.02}},
            "training": {"precision": "fp32"},  # the same numbers on every processor
        }
        return config_from_dict(merge(merge(base_config(recipe, epochs=epochs), tiny), overrides))

    return build


@pytest.fixture
def quiet() -> Reporter:
    return Reporter(quiet=True)


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment of a child process: one thread, our sources first."""
    source = Path(__file__).parents[2] / "src"
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source), "TOKENIZERS_PARALLELISM": "false"}
