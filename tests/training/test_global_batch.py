"""Two processes with ``training.exact`` and synchronized batch normalization make the steps that one makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from global_batch import CASES, NORMALIZED, three_steps
from safetensors.torch import load_file

from longtail.config.schema import RunConfig
from longtail.errors import UsageError


@pytest.fixture(scope="module")
def of_two(launch_two: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that two processes end with, a file a case."""
    folder = tmp_path_factory.mktemp("two")
    launch_two(Path(__file__).with_name("global_batch_worker.py"), str(folder))
    return folder


def difference(folder: Path, name: str, ending: str = "") -> float:
    """The largest difference of a weight to those of one process."""
    weights = load_file(folder / f"{name.replace(':', '-')}{ending}.safetensors")
    return max((weights[key] - value).abs().max().item() for key, value in three_steps(name).items())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_steps_of_one(of_two: Path, name: str) -> None:
    assert difference(of_two, name) < (1e-4 if name == NORMALIZED else 1e-6)


@pytest.mark.parametrize(
    "name", ["weighted", "gcl", "agcl", "feature-noise", "mixup", "cutmix", "late weights", NORMALIZED]
)
def test_without_the_options_they_do_not(of_two: Path, name: str) -> None:
    assert difference(of_two, name, "-apart") > 1e-3


@pytest.mark.parametrize(
    "options",
    [{"exact": True, "compile": True}, {"sync_batch_norm": True, "compile": True}, {"exact": True, "accumulation": 2}],
)
def test_options_that_do_not_go_together(small_config: Callable[..., RunConfig], options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="leave one"):
        small_config(training=options)
