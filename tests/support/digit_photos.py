"""Real handwritten digits as image files in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(folder: Path, per_class: int = 2, classes: tuple[str, ...] = ("0", "1", "2")) -> Path:
    """Real handwritten digits as files, in folders named after them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(np.flatnonzero(bunch.target == int(name))[:per_class]):
            pixels = (bunch.images[row] * (255 / 16)).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
