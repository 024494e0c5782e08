"""Decoded images on disk: identified by content, shared by processes, and bounded."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import PIL
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from longtail.data.dataset import Split
from longtail.data.loading import cache, loaders
from longtail.data.loading.cache import cached_images, kept_on_disk
from longtail.data.loading.cache_folder import Contents, cache_root, remove_entry
from longtail.data.loading.loaders import (
    FillingLoader,
    Loader,
    ResidentBudget,
    ResidentLoader,
    StreamingLoader,
    build_loader,
)
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.sources.registry import load_source
from longtail.data.square import Fit, Square
from longtail.errors import LongtailError

SOURCES = Path(__file__).parents[3] / "src"
COUNT, SIZE = 12, 8
BYTES = COUNT * 3 * SIZE**2
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which no set is too small."""
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST_BYTES", 0)
    return tmp_path / "cache"


def split_of(seed: int = 0) -> Split:
    return Split.from_arrays(PIXELS if seed == 0 else np.roll(PIXELS, seed), [0] * COUNT)


def cached(
    split: Split, size: int = SIZE, resize: int | None = None, fit: Fit = "crop"
) -> tuple[Tensor, int, list[str]]:
    """The images, how many of them were decoded, and what was said."""
    ticks: list[None] = []
    messages: list[str] = []
    images = cached_images(Decoder(split, Square(size, resize, fit=fit)), lambda: ticks.append(None), messages.append)
    return images, len(ticks), messages


def stored(folder: Path, ending: str = "pixels") -> list[Path]:
    return sorted(folder.glob(f"*.{ending}"))


# --- lookup -----------------------------------------------------------------------------------------------------------


def test_the_second_time_nothing_is_decoded(folder: Path) -> None:
    first, decoded, _ = cached(split_of())
    assert decoded == COUNT
    assert [file.stat().st_size for file in stored(folder)] == [BYTES]
    second, decoded, messages = cached(split_of())
    assert (decoded, messages) == (0, [])
    assert torch.equal(first, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert torch.equal(first, second)


def test_labels_do_not_matter_but_rows_order_and_sizes_do(folder: Path) -> None:
    cached(split_of())
    assert cached(Split.from_arrays(PIXELS, list(range(COUNT))))[1] == 0
    for other in (split_of().select(range(COUNT - 1)), split_of().select(range(COUNT)[::-1]), split_of(1)):
        assert cached(other)[1] == len(other)
    assert cached(split_of(), size=4)[1] == COUNT
    assert cached(split_of(), size=4, resize=6)[1] == COUNT
    assert len(stored(folder)) == 6


def test_how_an_image_is_made_square_matters(folder: Path) -> None:
    long = Split.from_arrays(PIXELS.reshape(COUNT, 2 * SIZE, SIZE // 2, 3), [0] * COUNT)
    images = {fit: cached(long, fit=fit)[0] for fit in get_args(Fit)}
    assert len(stored(folder)) == 3
    assert not torch.equal(images["crop"], images["pad"])
    for fit in get_args(Fit):
        again, decoded, _ = cached(long, fit=fit)
        assert decoded == 0
        assert torch.equal(again, images[fit])


def test_what_was_stored_before_there_was_a_choice_stays_valid() -> None:
    assert cache.scaling(Decoder(split_of(), Square(8, 9))) == f"1 {PIL.__version__} 9 8 bicubic"


def test_a_changed_photo_is_decoded_anew(tmp_path: Path) -> None:
    photos = [tmp_path / "photos" / name / "1.png" for name in ("cat", "lynx")]
    for photo in photos:
        photo.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (10, 10, 10)).save(photo)

    def brightest() -> tuple[int, int]:
        images, decoded, _ = cached(load_source(f"folder:{tmp_path / 'photos'}").splits["train"])
        return int(images.max()), decoded

    assert [brightest(), brightest()] == [(10, 2), (10, 0)]
    size = photos[0].stat().st_size
    Image.new("RGB", (8, 8), (99, 99, 99)).save(photos[0])
    assert photos[0].stat().st_size == size, "the time alone tells the two apart"
    os.utime(photos[0], ns=(0, photos[0].stat().st_mtime_ns + 1))
    assert brightest() == (99, 2)


def test_a_file_of_another_length_is_not_believed(folder: Path) -> None:
    first, _, _ = cached(split_of())
    (file,) = stored(folder)
    file.write_bytes(file.read_bytes()[:-1])
    images, decoded, _ = cached(split_of())
    assert decoded == COUNT
    assert torch.equal(images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert file.stat().st_size == BYTES
    del first


def test_nobody_can_write_to_the_file_through_the_images(folder: Path) -> None:
    images, _, _ = cached(split_of())
    images.zero_()
    assert cached(split_of())[0].any()


def test_an_empty_split_is_empty() -> None:
    assert cached(split_of().select([]))[0].shape == (0, 3, SIZE, SIZE)


# --- where ------------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_users_choice_then_the_desktops_then_the_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/desktop")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_root() == Path("/home/somebody/mine")
    monkeypatch.delenv("LONGTAIL_CACHE")
    assert cache_root() == Path("/desktop/longtail")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path("/home/somebody/.cache/longtail")


def test_a_small_set_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALLEST_BYTES", BYTES + 1)
    assert cached(split_of())[1] == cached(split_of())[1] == COUNT
    assert not folder.exists()


@pytest.mark.parametrize("keep", [True, False])
def test_the_loader_uses_it_unless_told_not_to(folder: Path, keep: bool) -> None:
    decoder = Decoder(split_of(), Square(SIZE))
    for _ in range(2):
        budget = ResidentBudget(torch.device("cpu"), 1.0)
        loader = build_loader(decoder, torch.device("cpu"), workers=0, budget=budget, cache=keep)
        (batch,) = loader.batches(torch.tensor([3, 1]), 2)
        assert torch.equal(batch.images, torch.from_numpy(PIXELS[[3, 1]]).permute(0, 3, 1, 2))
    assert len(stored(folder)) == keep


def test_where_decoding_takes_long_the_file_is_filled_while_images_are_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "_LONGEST_WAIT", 0.0)

    def built() -> Loader:
        budget = ResidentBudget(torch.device("cpu"), 1.0)
        return build_loader(Decoder(split_of(), Square(SIZE)), torch.device("cpu"), workers=1, budget=budget)

    def images(loader: Loader, rows: Tensor) -> Tensor:
        return torch.cat([batch.images for batch in loader.batches(rows, 2)])

    expected, everything = torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.arange(COUNT)
    filling = built()
    assert isinstance(filling, FillingLoader)
    assert torch.equal(images(filling, everything[1:]), expected[1:])
    assert not stored(folder), "one image is missing"
    assert isinstance(built(), StreamingLoader), "nobody waits for an epoch of another loader"
    assert torch.equal(cached_images(Decoder(split_of(), Square(SIZE))), expected)
    (file,) = stored(folder)  # all at once, without waiting
    file.unlink()
    del filling
    assert not list(folder.glob("*.unfinished"))
    again = built()
    assert torch.equal(images(again, everything), expected)
    (file,) = stored(folder)
    assert file.stat().st_size == expected.numel()
    assert isinstance(built(), ResidentLoader)
    assert torch.equal(images(built(), everything), torch.cat([batch.images for batch in again.batches(everything, 2)]))


# --- where the disk does not help -------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file" / "cache"))
    images, _, messages = cached(split_of())
    assert torch.equal(images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert len(messages) == 1
    assert f"{tmp_path}/file/cache" in messages[0]
    assert "LONGTAIL_CACHE" in messages[0]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), OSError(errno.EIO, "a source that fails")])
def test_what_fails_in_the_work_itself_is_not_laid_on_the_disk(folder: Path, error: Exception) -> None:
    calls, messages = list[None](), list[str]()

    def fill(_out: Tensor) -> None:
        calls.append(None)
        raise error

    with pytest.raises(type(error)) as caught:
        kept_on_disk("key", 9, fill, Contents("features", "", "", 0), warn=messages.append)
    assert caught.value is error
    assert len(calls) == 1, "not a second time, into memory"
    assert not messages
    assert not stored(folder)


def test_a_full_disk_is_a_note_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    images, decoded, messages = cached(split_of())
    assert torch.equal(images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert decoded == COUNT, "found out before anything was decoded"
    assert [os.strerror(errno.ENOSPC) in sentence for sentence in messages] == [True]
    assert stored(folder) == stored(folder, "unfinished") == []


def test_space_is_taken_also_where_the_system_has_no_call_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(cache, "BLOCK_BYTES", 1000)
    assert torch.equal(cached(split_of())[0], torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert [file.stat().st_size for file in stored(folder)] == [BYTES]


def test_a_damaged_image_stops_with_its_name_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "lynx"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "photos" / "lynx" / "1.png").write_bytes(b"no image")
    with pytest.raises(LongtailError, match=r"lynx/1\.png"):
        cached(load_source(f"folder:{tmp_path / 'photos'}").splits["train"])
    assert stored(folder) == stored(folder, "unfinished") == []


# --- how much ---------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_files_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE_GB", str(2.5 * BYTES / 1e9))
    ages = {}
    for seed in (1, 2):
        before = set(stored(folder))
        cached(split_of(seed))
        (ages[seed],) = set(stored(folder)) - before
    os.utime(ages[1], (2000, 2000))
    os.utime(ages[2], (1000, 1000))
    cached(split_of(3))
    assert ages[1].exists()
    assert not ages[2].exists()
    assert len(stored(folder)) == 2


def test_what_this_process_uses_stays_and_the_rest_is_a_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE_GB", str(1.5 * BYTES / 1e9))
    images, _, _ = cached(split_of())
    (file,) = stored(folder)
    os.utime(file, (1000, 1000))
    others, _, messages = cached(split_of(1))
    assert torch.equal(others, decode_all(Decoder(split_of(1), Square(SIZE))))
    assert ["raise LONGTAIL_CACHE_GB" in sentence for sentence in messages] == [True]
    assert stored(folder) == [file]
    assert cached(split_of())[1] == 0, "found again, and used twice for now"
    assert remove_entry(file)
    assert torch.equal(images, decode_all(Decoder(split_of(), Square(SIZE)))), "a map outlives its file"
    assert not cached(split_of(1))[2], "and then it no longer counts"


def test_using_a_file_makes_it_recent(folder: Path) -> None:
    cached(split_of())
    (file,) = stored(folder)
    os.utime(file, (1000, 1000))
    cached(split_of())
    assert file.stat().st_mtime > 1000


def test_a_file_that_another_process_is_about_to_map_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(split_of(1))
    (file,) = stored(folder)
    monkeypatch.setenv("LONGTAIL_CACHE_GB", str(1.5 * BYTES / 1e9))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(file.with_suffix(".lock")):
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    cached(split_of(2))
    release.set()
    holder.join()
    assert file.exists()
    cached(split_of(3))
    assert not file.exists()


def test_a_set_larger_than_the_cache_is_a_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE_GB", "0.000001")
    _, decoded, messages = cached(split_of())
    assert decoded == COUNT
    assert ["raise LONGTAIL_CACHE_GB" in sentence for sentence in messages] == [True]
    assert stored(folder) == []


@pytest.mark.parametrize("limit", ["lots", "nan", "-1"])
def test_a_limit_that_is_no_size_is_named(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE_GB", limit)
    with pytest.raises(LongtailError, match=f"LONGTAIL_CACHE_GB.*'{limit}'"):
        cached(split_of())


# --- several processes ------------------------------------------------------------------------------------------------

OTHER = """
import os, sys, time
import numpy as np
from longtail.data.square import Square
from longtail.data.loading import cache, loaders
from longtail.data.loading.workers import Decoder
from longtail.data.dataset import Split
cache.SMALLEST_BYTES = 0
pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
decoder = Decoder(Split.from_arrays(pixels, [0] * 12), Square(8))
ticks = []
def tick():
    ticks.append(None)
    os.write(1, b"decoding\\n")  # in one piece: several threads tick
    time.sleep({pause})
print("ready", flush=True)
sys.stdin.readline()
images = cache.cached_images(decoder, tick, lambda text: print(text, flush=True))
print("decoded", len(ticks), "sum", int(images.sum()), flush=True)
"""


def start(pause: float) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER.format(pause=pause)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_decode_once() -> None:
    processes = [start(0.05), start(0.05)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    last_lines = sorted(process.communicate(timeout=60)[0].splitlines()[-1] for process in processes)
    assert last_lines == [f"decoded 0 sum {PIXELS.sum()}", f"decoded 12 sum {PIXELS.sum()}"]


@pytest.mark.parametrize("then", ["the same set", "another set"])
def test_a_killed_process_leaves_nothing_that_stays(folder: Path, then: str) -> None:
    process = start(60)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert stored(folder) == []
    assert len(stored(folder, "unfinished")) == 1
    split = split_of() if then == "the same set" else split_of(1)
    assert torch.equal(cached(split)[0], decode_all(Decoder(split, Square(SIZE))))
    assert stored(folder, "unfinished") == []
    assert len(stored(folder)) == 1
