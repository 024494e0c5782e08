"""Resident and streaming batches: the same images in the same order, whichever the budget gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from longtail.data.dataset import Split
from longtail.data.loading import loaders
from longtail.data.loading.loaders import (
    FillingLoader,
    ResidentBudget,
    ResidentLoader,
    SinglePassLoader,
    StreamingLoader,
    build_loader,
)
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.device import default_workers
from longtail.errors import LongtailError

CPU = torch.device("cpu")


@pytest.fixture
def split() -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3)).astype(np.uint8)
    return Split.from_arrays(pixels, [i % 3 for i in range(11)])


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_what_resident_gives(split: Split, workers: int) -> None:
    decoder = Decoder(split, Square(8))
    resident = build_loader(decoder, CPU, workers=workers, budget=ResidentBudget(CPU, 1.0))
    streaming = build_loader(decoder, CPU, workers=workers, budget=ResidentBudget(CPU, 0.0))
    assert isinstance(resident, ResidentLoader)
    assert isinstance(streaming, StreamingLoader)
    rows = torch.tensor([3, 3, 10, 0, 7, 2, 1])
    pairs = list(zip(resident.batches(rows, 2), streaming.batches(rows, 2), strict=True))
    assert [len(first.rows) for first, _ in pairs] == [2, 2, 3]  # a last single image joins the batch before it
    for first, second in pairs:
        assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
        assert first.images.dtype == torch.uint8


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_single_pass_gives_what_resident_gives(split: Split, threads: int, batch_size: int) -> None:
    decoder = Decoder(split, Square(8))
    resident = ResidentLoader(decode_all(decoder), torch.from_numpy(split.labels.copy()), CPU)
    single = SinglePassLoader(decoder, CPU, threads)
    assert single.large_batch == resident.large_batch
    rows = torch.tensor([3, 3, 10, 0, 7, 2, 1, 9, 8, 0, 4])
    for first, second in zip(resident.batches(rows, batch_size), single.batches(rows, batch_size), strict=True):
        assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
        assert first.images.stride() == second.images.stride()


@pytest.mark.parametrize("threads", [1, 3])
def test_images_kept_as_they_are_drawn_are_those_of_resident(split: Split, threads: int) -> None:
    decoded, full = list[int](), list[None]()

    class Counting(Decoder):
        def __call__(self, row: int) -> npt.NDArray[np.uint8]:
            decoded.append(row)
            return super().__call__(row)

    resident = ResidentLoader(decode_all(Decoder(split, Square(8))), torch.from_numpy(split.labels.copy()), CPU)
    images = torch.zeros(11, 3, 8, 8, dtype=torch.uint8)
    filling = FillingLoader(Counting(split, Square(8)), CPU, images, threads, lambda: full.append(None))
    assert filling.large_batch == resident.large_batch
    for rows, expected in (([3, 10, 0], 0), ([3, 0, 9], 0), (range(11), 1), ([2, 2, 10, 1], 1)):
        drawn = torch.tensor(list(rows))
        for first, second in zip(resident.batches(drawn, 2), filling.batches(drawn, 2), strict=True):
            assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
            assert first.images.stride() == second.images.stride()
        assert len(full) == expected
    assert sorted(decoded) == list(range(11))
    assert torch.equal(images, resident.images)


def test_a_single_pass_that_is_left_early_decodes_no_more(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "IMAGES_AHEAD", 2)
    decoded: list[int] = []

    class Counting(Decoder):
        def __call__(self, row: int) -> npt.NDArray[np.uint8]:
            decoded.append(row)
            return super().__call__(row)

    batches = SinglePassLoader(Counting(split, Square(8)), CPU, 1).batches(torch.arange(11), 1)
    next(batches)
    batches.close()
    assert decoded[0] == 0
    assert len(decoded) <= 5


def test_labels_and_rows_belong_to_the_images(split: Split) -> None:
    loader = build_loader(Decoder(split, Square(8)), CPU, workers=0, budget=ResidentBudget(CPU))
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
        loader = build_loader(Decoder(train, Square(8)), CPU, workers=1, budget=ResidentBudget(CPU, gigabytes))
        list(loader.batches(torch.arange(4), 2))

    with pytest.raises(LongtailError, match=r"1\.png") as caught:
        read_all()
    assert "Traceback" not in str(caught.value)  # a worker process adds its own, which no user can read


def test_splits_share_one_budget(split: Split) -> None:
    """Two of three splits of 2,112 bytes fit 5,000: the third would take what the network needs."""
    budget = ResidentBudget(CPU, 5e-6)
    kinds = [type(build_loader(Decoder(split, Square(8)), CPU, workers=0, budget=budget)) for _ in range(3)]
    assert kinds == [ResidentLoader, ResidentLoader, StreamingLoader]


def test_images_for_a_gpu_have_to_fit_the_host_and_what_other_runs_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda": 80.0, "cpu": 64.0}
    monkeypatch.setattr(loaders, "memory_budget", lambda device, size=None: size or free[device.type] / 2)
    gpu = torch.device("cuda")
    assert ResidentBudget(gpu).left == 32
    free["cuda"] = 40
    assert ResidentBudget(gpu).left == 20
    monkeypatch.setenv("LONGTAIL_JOBS", "4")
    assert ResidentBudget(gpu).left == 5
    assert ResidentBudget(CPU).left == 32  # runs on a processor map one copy from disk
    assert ResidentBudget(gpu, 7.0).left == 7  # as asked


def test_every_core_decodes_unless_others_need_it(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.device.cores", lambda: 16)
    loader = build_loader(Decoder(split, Square(8)), CPU, workers=None, budget=ResidentBudget(CPU, 0.0))
    assert isinstance(loader, StreamingLoader)
    assert loader.workers == 16
    for jobs, processes, workers in (("2", "", 8), ("2", "4", 2), ("", "8", 2), ("16", "4", 1)):
        monkeypatch.setenv("LONGTAIL_JOBS", jobs)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert default_workers() == workers


@pytest.mark.parametrize("count", [1, 63, 64, 200, 2500])
def test_all_rows_are_decoded_and_counted(count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3)).astype(np.uint8)
    ticks: list[None] = []
    decoded = decode_all(Decoder(Split.from_arrays(pixels, [0] * count), Square(2)), lambda: ticks.append(None))
    assert torch.equal(decoded, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert len(ticks) == count


def test_a_single_pass_over_no_images_has_one_empty_batch() -> None:
    split = Split.from_arrays(np.zeros((2, 4, 4), np.uint8), [0, 1])
    loader = loaders.SinglePassLoader(Decoder(split, Square(4)), torch.device("cpu"))
    assert [len(batch.images) for batch in loader.batches(torch.arange(0), 3)] == [0]
