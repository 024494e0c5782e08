"""The meeting of the processes that torchrun has started, which it may have started before."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from torch.distributed import DistStoreError, PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

SCHEME: Final = "fresh"
"""Scheme of an ``init_method`` of :func:`torch.distributed.init_process_group` that uses :func:`fresh_store`."""
_SECONDS_BETWEEN_LOOKS = 0.05


def init_method() -> str | None:
    """Return how this process meets the others, for :func:`torch.distributed.init_process_group`.

    The agents of torchrun keep one store for all restarts, with what ended processes wrote in it: their addresses too,
    at which a process that is early would look for the others (https://github.com/pytorch/pytorch/issues/135712).

    Example:
        >>> init_method() is None  # torchrun has not started this process
        True
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return f"{SCHEME}://"


def _meet(_: str, timeout: timedelta, **options: Any) -> Iterator[tuple[Store, int, int]]:
    store, rank, world_size = next(rendezvous("env://", timeout=timeout, **options))
    yield fresh_store(store, rank, world_size, timeout), rank, world_size


register_rendezvous_handler(SCHEME, _meet)  # type: ignore[no-untyped-call]


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
