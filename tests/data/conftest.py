"""Fixtures for data tests: a private Hugging Face cache, image files, and the shared real data where present."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[[dict[str, int]], Path]


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what ``datasets`` caches inside the test's own folder."""
    import datasets

    cache = tmp_path / "hf-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


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
def shared_data() -> Path:
    """The folder of real image sets beside the repository."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data, the real image sets that are not part of the repository, is absent")
    return folder
