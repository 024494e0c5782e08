"""The class folder of stamps, and the samples that presentations of images are compared on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, found as it finds its neighbors when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__(name)


def save(path: Path, color: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA" if len(color) == 4 else "RGB", (4, 3), color).save(path)


def test_a_third_of_each_class_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = load("stamps", monkeypatch)
    package, out = tmp_path / "unpacked", tmp_path / "out"
    for number in range(9):
        style = "birds/cartoon" if number % 2 else "birds"
        save(package / stamps.STAMPS / "animals" / style / f"{number}.png", (255, 0, 0, 0))
    save(package / stamps.STAMPS / "food" / "fruit" / "pear.png", (0, 255, 0))
    monkeypatch.setattr(sys, "argv", ["stamps.py", str(package), str(out)])
    assert stamps.main() == 0
    assert sorted(path.name for path in out.glob("*/*")) == ["animals-birds"] * 2  # food has too few
    assert [len(list((out / split).rglob("*.png"))) for split in ("train", "test")] == [6, 3]
    with Image.open(next(out.rglob("*.png"))) as image:
        assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))  # transparent red on white


def test_a_folder_without_stamps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="dpkg-deb"):
        load("stamps", monkeypatch).pictures_by_class(tmp_path, 6)


def test_a_sample_keeps_every_class_and_whole_units(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = load("presentation", monkeypatch).sample
    labels = np.repeat([0, 1, 2], [600, 60, 6])
    units = np.arange(len(labels)) // 3  # three images of a class stay together
    rows = sample(labels, units, 150, seed=0)
    assert np.bincount(labels[rows]).tolist() == [84, 60, 6]  # as many of each as there are, or 84
    assert np.bincount(units[rows])[np.unique(units[rows])].tolist() == [3] * 50
    assert rows.tolist() == sorted(rows.tolist())
    assert rows.tolist() != sample(labels, units, 150, seed=1).tolist()
    assert len(sample(labels, units, 10_000, seed=0)) == len(labels)
