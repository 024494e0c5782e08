"""What holds for every test: one thread, no network, caches of their own; and the fixtures that several areas share."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch, datasets and huggingface_hub are imported: they read these once.
_CACHES = tempfile.mkdtemp(prefix="longtail-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HOME": _CACHES, "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
os.environ["LONGTAIL_CACHE"] = f"{_CACHES}/decoded"
os.environ.pop("LONGTAIL_CACHE_GB", None)
for _name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
    os.environ.pop(_name, None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from fake_runs import exponential_counts, fake_analysis, fake_recording, fake_run  # noqa: E402
from PIL import Image  # noqa: E402
from untrained_run import write_run as write_untrained_run  # noqa: E402

from longtail.config.build import build  # noqa: E402
from longtail.config.options import merge  # noqa: E402
from longtail.config.recipes import base_config  # noqa: E402
from longtail.config.resolve import complete  # noqa: E402
from longtail.config.schema import RunConfig  # noqa: E402
from longtail.console import Reporter  # noqa: E402

torch.set_num_threads(1)

MakeFolder = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of training and experiments, the longest: the last ones to run keep all processes busy."""
    items.sort(key=lambda item: not {"training", "experiments"} & set(item.path.parent.parts))


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write ``{"train/cat": 3, ...}`` as folders of that many small images, each of its own color."""

    def make(classes: dict[str, int], name: str = "photos") -> Path:
        root = tmp_path / name
        for folder, count in classes.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                color = tuple(int(x) for x in np.random.default_rng(number).integers(0, 255, 3))
                Image.new("RGB", (6, 4), color).save(root / folder / f"{number}.png")
        return root

    return make


@pytest.fixture(scope="session")
def launch_two() -> Callable[..., None]:
    """Run a script that ends in ``two_processes.fork``; fail with what it said."""
    tests = Path(__file__).parent

    def launch(worker: Path, *words: str) -> None:
        environment = os.environ | {"PYTHONPATH": f"{tests.parent / 'src'}{os.pathsep}{tests / 'support'}"}
        command = [sys.executable, str(worker), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    return launch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real image sets next to the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data, the real image sets that are not part of the repository, is absent")
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run("name", **options)`` writes a fake run under the test's own folder; see ``fake_run``."""
    return lambda name, **options: fake_run(tmp_path / name, **options)


@pytest.fixture(scope="module")
def write_run() -> Callable[..., Path]:
    """``write_run(folder, **options)``: :func:`fake_run` for pages that several tests of a module share."""
    return fake_run


@pytest.fixture(scope="module")
def write_analysis() -> Callable[..., None]:
    """``write_analysis(folder, counts, **options)``: :func:`fake_analysis`."""
    return fake_analysis


@pytest.fixture(scope="module")
def record() -> Callable[..., Path]:
    """``record(folder, **options)``: :func:`fake_recording`."""
    return fake_recording


@pytest.fixture
def cifar_counts() -> list[int]:
    """The counts of CIFAR-100-LT at an imbalance ratio of 100."""
    return exponential_counts(100, 500, 100)


@pytest.fixture
def untrained_run() -> Callable[..., Path]:
    return write_untrained_run


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run for tests that change nothing in it."""
    return write_untrained_run(tmp_path_factory.mktemp("ready") / "run")


@pytest.fixture
def small_config() -> Callable[..., RunConfig]:
    """Build a configuration on the digits with a network that trains in under a second; overrides as nested dicts."""

    def make(recipe: str | None = None, epochs: int | None = None, **overrides: Any) -> RunConfig:
        tiny = {
            "data": {"source": "digits", "imbalance_ratio": 10, "image_size": 16},
            "model": {"name": "plain-cnn"},
            "stage1": {"optimizer": {"lr": 0.02}},
            "training": {"precision": "fp32"},  # the same numbers on every processor
        }
        return complete(build(merge(merge(base_config(recipe, epochs=epochs), tiny), overrides)))

    return make


@pytest.fixture
def quiet() -> Reporter:
    return Reporter(quiet=True)


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment of a child process: one thread, our sources first."""
    source = Path(__file__).parents[1] / "src"
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source), "TOKENIZERS_PARALLELISM": "false"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what is imported by now out of the collections after each stage, which take a third of a test's time."""
    del session
    gc.collect()
    gc.freeze()
