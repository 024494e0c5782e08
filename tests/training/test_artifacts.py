"""examples.parquet: pictures of every class, small ones of many classes, and nothing that a page must shrink."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from longtail.analysis.confusions import FULL, usual_detail
from longtail.data.dataset import Split
from longtail.run.tables import write_examples
from longtail.training.artifacts import example_images


def written(run: Path, size: int, *, side: int) -> list[dict[str, object]]:
    """Examples of a model that takes every class for the one before it; class c is a plain image of gray c."""
    gray = np.arange(size)
    pixels = np.broadcast_to(gray[:, None, None], (size, side, side)).astype(np.uint8)
    train = Split.from_arrays(pixels, gray)
    predictions = {"label": gray, "prediction": (gray - 1) % size, "confidence": np.linspace(0.5, 1, size)}
    write_examples(run, example_images(train, train, predictions, np.ones(size, dtype=int)))
    return pq.read_table(run / "examples.parquet").to_pylist()


def test_every_class_has_its_own_training_images_and_errors(tmp_path: Path) -> None:
    rows = written(tmp_path, 30, side=120)
    assert [(row["class"], row["role"]) for row in rows[:2]] == [(0, "train"), (0, "error")]
    assert len(rows) == 2 * 30
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as picture:
            assert (picture.format, picture.size) == ("WEBP", (FULL.side, FULL.side))
            assert abs(int(np.asarray(picture).mean()) - row["class"]) <= 2
    errors = [row for row in rows if row["role"] == "error"]
    assert all(row["prediction"] == (row["class"] - 1) % 30 for row in errors)
    assert all(row["path"] == f"row {row['class']}" for row in rows)


def test_where_there_are_many_classes_most_pictures_are_small(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("longtail.training.artifacts.usual_detail", lambda _: usual_detail(8142))
    rows = written(tmp_path, 60, side=64)
    sides = {row["class"]: Image.open(io.BytesIO(row["image"])).width for row in rows}
    assert set(sides.values()) == {64, 32}
    assert list(sides.values())[:24] == [64] * 24  # the hardest come first
