"""Images decoded by workers that stay and end with their loader, and the time that is waited for them."""

from __future__ import annotations

import gc
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
import torch

from longtail.data.dataset import Split
from longtail.data.loading import loaders
from longtail.data.loading.loaders import ResidentLoader, StreamingLoader
from longtail.data.loading.workers import Decoder
from longtail.data.square import Square
from longtail.errors import LongtailError

SOURCES = Path(__file__).parents[3] / "src"
CPU = torch.device("cpu")


# --- workers ----------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(1).integers(0, 256, (23, 8, 8, 3)).astype(np.uint8)
LABELS = torch.arange(23)


def streaming(workers: int = 2, *, keep_workers: bool = True) -> StreamingLoader:
    decoder = Decoder(Split.from_arrays(PIXELS, LABELS.tolist()), Square(8))
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
    assert not children() - before


def test_workers_that_are_not_kept_end_with_the_pass() -> None:
    before = children()
    loader = streaming(keep_workers=False)
    for seed in range(2):
        assert epoch(loader, seed) == epoch(resident(), seed)
        gc.collect()
        assert not children() - before


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


def test_workers_outlive_a_signal_to_the_process_group() -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    command = [sys.executable, "-c", SIGNALED]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, start_new_session=True)
    assert ended.stdout.strip() == "True", ended.stderr


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
from longtail.data.square import Square
from longtail.data.dataset import Split
from longtail.data.loading.workers import Decoder
from longtail.data.loading.loaders import StreamingLoader
worker.MP_STATUS_CHECK_INTERVAL = 0.2  # seconds between two looks at the parent
split = Split.from_arrays(np.zeros((8, 4, 4, 3), np.uint8), [0] * 8)
loader = StreamingLoader(Decoder(split, Square(4)), torch.zeros(8).long(), torch.device("cpu"), 2)
batches = loader.batches(torch.arange(8), 2)
next(batches)
print(*(child.pid for child in psutil.Process().children()), flush=True)
sys.stdin.readline()
"""


SIGNALED = """
import os, signal, sys, torch, numpy as np
from longtail.data.dataset import Split
from longtail.data.loading.loaders import StreamingLoader
from longtail.data.loading.workers import Decoder
from longtail.data.square import Square
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: None)
split = Split.from_arrays(np.zeros((400, 4, 4, 3), np.uint8), [0] * 400)
loader = StreamingLoader(Decoder(split, Square(4)), torch.zeros(400).long(), torch.device("cpu"), 2)
batches = loader.batches(torch.arange(400), 2)
seen = [next(batches).rows.tolist() for _ in range(2)]  # both workers are there
os.killpg(0, signal.SIGTERM)
os.killpg(0, signal.SIGINT)
seen += [batch.rows.tolist() for batch in batches]
print(sum(seen, []) == list(range(400)))
"""


LATE = """
import multiprocessing, os, signal, sys, time
from longtail.data.loading.workers import follow_parent
def child():
    follow_parent(0)
    while multiprocessing.parent_process().is_alive():
        time.sleep(0.01)
    follow_parent(0)
    print("stays", flush=True)
worker = multiprocessing.get_context("fork").Process(target=child)
worker.start()
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_comes_to_life_after_its_process_died_leaves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        text=True,
        timeout=60,
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [done.stdout.strip()]  # its number, and nothing that it says after


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_no_worker_outlives_its_process(end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a worker may miss its parent aloud
    )
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
