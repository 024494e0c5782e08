"""Fixtures of the audit: folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[[dict[str, int]], Path]


@pytest.fixture
def photos(tmp_path: Path) -> MakeFolder:
    """Write folders of noise, every image its own."""

    def make(classes: dict[str, int]) -> Path:
        random = np.random.default_rng(0)
        for class_folder, count in classes.items():
            (tmp_path / "photos" / class_folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(0, 255, (16, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / class_folder / f"{number}.png")
        return tmp_path / "photos"

    return make
