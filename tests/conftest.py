"""What holds for every test: one thread, no network, caches of their own; and the fixtures that several areas share."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

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
from PIL import Image  # noqa: E402

torch.set_num_threads(1)

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write ``{"train/cat": 3, ...}`` as folders of that many small images, each of its own colour."""

    def make(classes: dict[str, int], name: str = "photos") -> Path:
        root = tmp_path / name
        for place, count in classes.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                colour = tuple(int(x) for x in np.random.default_rng(number).integers(0, 255, 3))
                Image.new("RGB", (6, 4), colour).save(root / place / f"{number}.png")
        return root

    return make


@pytest.fixture(scope="session")
def launch_two() -> Callable[..., None]:
    """Run a script that ends in ``two_processes.fork``; fail with what it said."""
    tests = Path(__file__).parent

    def launch(worker: Path, *words: str) -> None:
        environment = os.environ | {"PYTHONPATH": f"{tests.parent / 'src'}{os.pathsep}{tests}"}
        command = [sys.executable, str(worker), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    return launch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real image sets beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data, the real image sets that are not part of the repository, is absent")
    return folder
