"""Large photos: decoded no larger than needed, by workers that stay, with the time that is waited for them."""

from __future__ import annotations

import gc
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import sklearn.datasets
import torch
from PIL import Image

from longtail.data import decode as images_module
from longtail.data.dataset import Split, portable_pixmap
from longtail.data.decode import decode, open_image, read_square, shrink, to_uint8
from longtail.data.loading import loaders
from longtail.data.loading.loaders import ResidentLoader, StreamingLoader
from longtail.data.loading.workers import Decoder
from longtail.errors import LongtailError

SOURCES = Path(__file__).parents[3] / "src"
CPU = torch.device("cpu")


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture without symmetry, as photos are on the scale of a few pixels."""
    shapes = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


# --- no larger than needed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shorter", "size"),
    [(750, (1000, 750)), (301, (1000, 750)), (300, (500, 375)), (256, (500, 375)),
     (150, (500, 375)), (149, (250, 188)), (75, (250, 188)), (74, (125, 94)), (8, (125, 94))],
)  # fmt: skip
def test_a_jpeg_comes_at_the_smallest_fraction_that_is_large_enough(shorter: int, size: tuple[int, int]) -> None:
    with open_image(encoded(photo(1000, 750))) as image:
        extent = shrink(image, shorter)
        assert image.size == size
        assert min(size) >= shorter
        assert extent == (None if size == (1000, 750) else (1000 / (1000 // size[0]), 750 / (1000 // size[0])))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_come_whole(kind: str) -> None:
    with open_image(encoded(photo(100, 80), kind)) as image:
        assert shrink(image, 8) is None
        assert image.size == (100, 80)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize(("resize", "size"), [(None, 224), (256, 224), (None, 32), (None, 100)])
def test_the_pixels_are_those_of_a_whole_decode(mode: str, options: dict, resize: int | None, size: int) -> None:
    content = encoded(photo(1003, 751, mode), quality=95, **options)
    whole = to_uint8(decode(content), resize, size)
    assert difference(read_square(content, resize=resize, size=size), whole) < 0.5
    assert difference(np.roll(whole, 1, axis=1), whole) > 0.5, "a picture that is out of place would be noticed"


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("size", [16, 32, 64, 100, 170])
def test_so_they_are_of_real_photos(name: str, size: int) -> None:
    content = (Path(sklearn.datasets.__file__).parent / "images" / name).read_bytes()
    with open_image(content) as image:
        assert shrink(image, size) is not None
    whole = to_uint8(decode(content), None, size)
    assert difference(read_square(content, resize=None, size=size), whole) < 2.5
    assert difference(np.roll(whole, 1, axis=1), whole) > 6, "a picture that is out of place would be noticed"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_right_side_is_up(orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(901, 603, mode), quality=95, exif=exif)
    whole = to_uint8(decode(content), None, 64)
    assert difference(read_square(content, resize=None, size=64), whole) < 0.5
    assert all(difference(turned, whole) > 5 for turned in (np.rot90(whole), np.rot90(whole, 2), whole[:, ::-1]))


def test_a_truncated_jpeg_is_named_also_at_a_fraction_of_its_size() -> None:
    content = encoded(photo(800, 600))
    with pytest.raises(LongtailError, match=r"'cut\.jpg' is damaged"):
        read_square(content[: len(content) // 2], "cut.jpg", resize=None, size=64)


@pytest.mark.parametrize("shape", [(256, 256), (320, 256), (256, 298)])
def test_cutting_out_is_what_scaling_by_one_was(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    left, top = (image.width - 224) / 2, (image.height - 224) / 2
    box = (left, top, left + 224, top + 224)
    scaled = image.resize((224, 224), Image.Resampling.BICUBIC, box=box)
    assert np.array_equal(to_uint8(image, 256, 224), np.asarray(scaled))


# --- raw pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (80, 64), (50, 90), (65, 64)])
@pytest.mark.parametrize(("resize", "size"), [(None, 64), (64, 48), (40, 32)])
def test_raw_pixels_are_what_a_decoder_makes_of_them(
    mode: str, width: int, height: int, resize: int | None, size: int
) -> None:
    content = portable_pixmap(np.asarray(photo(width, height, mode)))
    ours = read_square(content, resize=resize, size=size)
    assert np.array_equal(ours, to_uint8(decode(content), resize, size))
    assert ours.flags.writeable


def test_raw_pixels_need_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "decode", lambda *_, **__: pytest.fail("Pillow was asked"))
    assert read_square(portable_pixmap(np.asarray(photo(40, 30))), resize=30, size=20).shape == (20, 20, 3)


@pytest.mark.parametrize(
    "content",
    [b"P6\n40 30\n255\n" + bytes(100), b"P6\n0 3\n255\n", b"P6\n999999 999999\n255\n", b"P6\n4 4\n"],
)
def test_damaged_raw_pixels_are_named(content: bytes) -> None:
    with pytest.raises(LongtailError, match="'row 3'"):
        read_square(content, "row 3", resize=None, size=4)


def test_a_pixmap_with_a_comment_or_sixteen_bits_is_left_to_the_decoder() -> None:
    assert read_square(b"P5\n# by hand\n1 1\n255\n\x07", resize=None, size=1).tolist() == [[[7, 7, 7]]]
    assert read_square(b"P5\n1 1\n65535\n\xff\xff", resize=None, size=1).tolist() == [[[255, 255, 255]]]


# --- workers ----------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(1).integers(0, 256, (23, 8, 8, 3)).astype(np.uint8)
LABELS = torch.arange(23)


def streaming(workers: int = 2, *, keep_workers: bool = True) -> StreamingLoader:
    decoder = Decoder(Split.from_arrays(PIXELS, LABELS.tolist()), None, 8)
    return StreamingLoader(decoder, LABELS, CPU, workers, keep_workers=keep_workers)


def resident() -> ResidentLoader:
    return ResidentLoader(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), LABELS, CPU)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if lives(child)}


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def epoch(loader: StreamingLoader | ResidentLoader, seed: int, size: int = 4) -> list[list[int]]:
    """The rows of each batch; the images and labels must be theirs."""
    rows = torch.randperm(23, generator=torch.Generator().manual_seed(seed))
    seen = []
    for batch in loader.batches(rows, size):
        assert torch.equal(batch.images, torch.from_numpy(PIXELS[batch.rows]).permute(0, 3, 1, 2))
        assert torch.equal(batch.labels, batch.rows)
        seen.append(batch.rows.tolist())
    return seen


def test_workers_live_from_epoch_to_epoch_and_end_with_their_loader() -> None:
    before = children()
    loader = streaming()
    assert epoch(loader, 0) == epoch(resident(), 0)
    first = children() - before
    assert len(first) == 2
    assert epoch(loader, 1, size=11) == epoch(resident(), 1, size=11)
    assert children() - before == first
    del loader
    gc.collect()
    assert children() == before


def test_workers_that_are_not_kept_end_with_the_pass() -> None:
    before = children()
    loader = streaming(keep_workers=False)
    for seed in range(2):
        assert epoch(loader, seed) == epoch(resident(), seed)
        gc.collect()
        assert children() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_two_iterations_side_by_side_do_not_mix(workers: int) -> None:
    loader = streaming(workers)
    rows = torch.arange(23)
    for forth, back in zip(loader.batches(rows, 5), loader.batches(rows.flip(0), 5), strict=True):
        for batch in (forth, back):
            assert torch.equal(batch.images, torch.from_numpy(PIXELS[batch.rows]).permute(0, 3, 1, 2))
        assert forth.rows[0] == 22 - back.rows[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iteration_that_is_given_up_does_not_disturb_the_next(workers: int) -> None:
    loader = streaming(workers)
    begun = loader.batches(torch.arange(23), 2)
    next(begun)
    del begun
    assert epoch(loader, 3) == epoch(resident(), 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_draws_no_number_that_a_loss_would_have_drawn(workers: int) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loader = streaming(workers)
    list(loader.batches(torch.arange(23), 4))
    list(loader.batches(torch.arange(23), 4))
    assert torch.equal(torch.rand(3), expected)


def test_a_killed_worker_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "pixels", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(LongtailError, match=r"killed.*--data\.workers"):
        list(streaming().batches(torch.arange(23), 4))


# --- waiting ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by one second each time it is looked at."""
    seconds = itertools.count()
    monkeypatch.setattr(loaders, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("make", [lambda: streaming(0), resident], ids=["streaming", "resident"])
def test_waiting_is_what_passes_inside_the_loader(make) -> None:
    loader = make()
    assert loader.waited == 0
    begun = loader.batches(torch.arange(23), 10)
    next(begun)
    assert loader.waited == 1
    loaders.time.perf_counter()  # the consumer works
    next(begun)
    assert loader.waited == 2
    list(begun)
    assert loader.waited == 4, "the third batch, and finding that there is no fourth"
    list(loader.batches(torch.arange(4), 2))
    assert loader.waited == 3, "a new call starts from zero"


@pytest.mark.usefixtures("clock")
def test_a_second_iteration_beside_the_first_adds_to_its_waiting() -> None:
    loader = resident()
    first = loader.batches(torch.arange(20), 5)
    next(first)
    second = loader.batches(torch.arange(20), 5)
    next(second)
    assert loader.waited == 2
    del second
    list(first)
    assert loader.waited == 6


# --- whatever happens, no worker stays --------------------------------------------------------------------------------

PARENT = """
import sys, time
import numpy as np, psutil, torch
import torch.utils.data._utils.worker as worker
from longtail.data.dataset import Split
from longtail.data.loading.workers import Decoder
from longtail.data.loading.loaders import StreamingLoader
worker.MP_STATUS_CHECK_INTERVAL = 0.2  # seconds between two looks at the parent
split = Split.from_arrays(np.zeros((8, 4, 4, 3), np.uint8), [0] * 8)
loader = StreamingLoader(Decoder(split, None, 4), torch.zeros(8).long(), torch.device("cpu"), 2)
batches = loader.batches(torch.arange(8), 2)
next(batches)
print(*(child.pid for child in psutil.Process().children()), flush=True)
sys.stdin.readline()
"""


LATE = """
import multiprocessing, os, signal, sys, time
from longtail.data.loading.workers import leave_if_orphaned
def child():
    leave_if_orphaned(0)
    while multiprocessing.parent_process().is_alive():
        time.sleep(0.01)
    leave_if_orphaned(0)
    print("stays", flush=True)
worker = multiprocessing.get_context("fork").Process(target=child)
worker.start()
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_comes_to_life_after_its_process_died_leaves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE], env=os.environ | {"PYTHONPATH": str(SOURCES)}, text=True, timeout=60,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [done.stdout.strip()]  # its number, and nothing that it says after


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_no_worker_outlives_its_process(end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=os.environ | {"PYTHONPATH": str(SOURCES)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,  # a worker may miss its parent aloud
    )  # fmt: skip
    assert parent.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    if end == "kill":
        parent.send_signal(signal.SIGKILL)
    parent.communicate("\n" if end == "leave" else None, timeout=60)
    assert parent.returncode == (0 if end == "leave" else -signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(map(lives, workers)):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.05)
