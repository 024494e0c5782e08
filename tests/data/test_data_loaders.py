"""Resident and streaming batches: the same images in the same order, whichever the budget gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtail.data.decoding import Decoder
from longtail.data.image_data import Split
from longtail.data.loaders import ResidentLoader, StreamingLoader, build_loader
from longtail.data.sources import load_source
from longtail.errors import LongtailError

CPU = torch.device("cpu")


@pytest.fixture
def split() -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3)).astype(np.uint8)
    return Split.from_arrays(pixels, [i % 3 for i in range(11)])


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_what_resident_gives(split: Split, workers: int) -> None:
    decoder = Decoder(split, None, 8)
    resident = build_loader(decoder, CPU, workers=workers, resident_gigabytes=1.0)
    streaming = build_loader(decoder, CPU, workers=workers, resident_gigabytes=0.0)
    assert isinstance(resident, ResidentLoader)
    assert isinstance(streaming, StreamingLoader)
    rows = torch.tensor([3, 3, 10, 0, 7, 2, 1])
    pairs = list(zip(resident.batches(rows, 2), streaming.batches(rows, 2), strict=True))
    assert [len(first.rows) for first, _ in pairs] == [2, 2, 3]  # a last single image joins the batch before it
    for first, second in pairs:
        assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
        assert first.images.dtype == torch.uint8


def test_labels_and_rows_belong_to_the_images(split: Split) -> None:
    loader = build_loader(Decoder(split, None, 8), CPU, workers=0, resident_gigabytes=None)
    (batch,) = loader.batches(torch.tensor([5, 1]), 8)
    assert batch.rows.tolist() == [5, 1]
    assert batch.labels.tolist() == [2, 1]
    assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), np.asarray(split.image(5)))


@pytest.mark.parametrize("gigabytes", [0.0, 1.0])
def test_a_damaged_image_stops_with_its_name(gigabytes: float, tmp_path: Path) -> None:
    for name in ("cat", "lynx"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    bad = tmp_path / "lynx" / "1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    train = load_source(f"folder:{tmp_path}").splits["train"]

    def read_all() -> None:
        loader = build_loader(Decoder(train, None, 8), CPU, workers=1, resident_gigabytes=gigabytes)
        list(loader.batches(torch.arange(4), 2))

    with pytest.raises(LongtailError, match=r"1\.png") as caught:
        read_all()
    assert "Traceback" not in str(caught.value)  # a worker process adds its own, which no user can read
