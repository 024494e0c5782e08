"""The store through which the processes of a run meet, and wait for each other while one of them works for long."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from torch.distributed import DistError, DistStoreError, PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

_SCHEME: Final = "fresh"
INIT_METHOD: Final = f"{_SCHEME}://"
"""How processes meet, for :func:`torch.distributed.init_process_group`: as by ``env://``, in a :func:`fresh_store`.

The agents of torchrun keep one store for all restarts, with what ended processes wrote in it: their addresses too, at
which a process that is early would look for the others (https://github.com/pytorch/pytorch/issues/135712).
"""
_SECONDS_BETWEEN_LOOKS = 0.05
_SIGNS = 20  # of life within a timeout
_met: list[Store] = []
_works = itertools.count()


def _meet(_: str, timeout: timedelta, **options: Any) -> Iterator[tuple[Store, int, int]]:
    store, rank, world_size = next(rendezvous("env://", timeout=timeout, **options))
    _met[:] = [fresh_store(store, rank, world_size, timeout)]
    yield _met[0], rank, world_size


register_rendezvous_handler(_SCHEME, _meet)  # type: ignore[no-untyped-call]


def fresh_store(store: Store, rank: int, world_size: int, timeout: timedelta) -> Store:
    """Agree with the other processes on a part of a store in which nothing is written yet.

    Each process puts a random word at its rank. The first one answers each word with the name of the part, its own
    word, until the processes have said that they read it: words of processes that have ended are answered in vain.

    Args:
        store: The store of all processes, with or without the words of earlier ones.
        rank: Index of this process.
        world_size: Number of processes.
        timeout: Longest wait for the others.

    Raises:
        DistStoreError: Another process does not come.

    Example:
        >>> from torch.distributed import HashStore
        >>> part = fresh_store(HashStore(), 0, 1, timedelta(seconds=1))
        >>> part.set("address", "a"); part.get("address")
        b'a'
    """
    word = secrets.token_hex(8)
    store.set(f"here/{rank}", word)
    if rank:
        store.wait([f"part/{word}"], timeout)
        part = store.get(f"part/{word}").decode()
        store.set(f"read/{part}/{rank}", "")
        return PrefixStore(part, store)
    missing, end = set(range(1, world_size)), time.monotonic() + timeout.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"read/{word}/{other}"]):
                missing.remove(other)
            elif store.check([f"here/{other}"]):
                store.set(f"part/{store.get(f'here/{other}').decode()}", word)
        if time.monotonic() > end:
            raise DistStoreError(f"timed out: processes {sorted(missing)} have not come")
        time.sleep(_SECONDS_BETWEEN_LOOKS if missing else 0)
    return PrefixStore(word, store)


def store_of_work() -> Store | None:
    """Return a part of the store for one use of :func:`long_work`, which all processes make in the same order.

    None where the processes have not met by :data:`INIT_METHOD`.
    """
    return PrefixStore(f"work/{next(_works)}", _met[0]) if _met else None


@contextmanager
def long_work(store: Store, world_size: int, timeout: timedelta) -> Iterator[None]:
    """Do work that takes some processes longer than others, then wait until all of them have done theirs.

    Collective operations end with an error after a fixed time; here a process that works gives signs of life.

    Args:
        store: A part of the store that is used for nothing else.
        world_size: Number of processes.
        timeout: Longest wait without a sign of life.

    Raises:
        DistStoreError: A process has not done its work, and none gives signs of life.

    Example:
        >>> from torch.distributed import HashStore
        >>> with long_work(HashStore(), 1, timedelta(seconds=1)):
        ...     time.sleep(0.01)
    """
    worked, everywhere = threading.Event(), threading.Event()
    heard, failed = 0.0, True

    def tell_and_listen() -> None:  # in a thread of its own, as a store whose process is stopped does not answer
        nonlocal heard
        with suppress(DistError):  # the end of this thread says that the store is gone
            while not worked.wait(timeout.total_seconds() / _SIGNS):
                store.add("signs", 1)
            if failed:
                return
            store.add("done", 1)
            signs = 0
            while store.add("done", 0) < world_size:
                before, signs = signs, store.add("signs", 0)
                heard = heard if signs == before else time.monotonic()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            everywhere.set()

    thread = threading.Thread(target=tell_and_listen, daemon=True)
    thread.start()
    try:
        yield
        failed = False
    finally:
        heard = time.monotonic()
        worked.set()
    while not everywhere.wait(_SECONDS_BETWEEN_LOOKS):
        is_silent = not thread.is_alive() or time.monotonic() - heard > timeout.total_seconds()
        if is_silent and not everywhere.is_set():
            raise DistStoreError("timed out: another process gives no sign of life")
