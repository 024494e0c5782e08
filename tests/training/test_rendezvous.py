"""Processes that are started again meet in a part of the store in which those before them have written nothing."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import DistStoreError, HashStore, Store, TCPStore
from torch.distributed.rendezvous import rendezvous

from longtail.training.rendezvous import INIT_METHOD, fresh_store, long_work

SOON = timedelta(seconds=30)


def test_who_comes_late_is_not_taken_for_who_was_there_before() -> None:
    store = HashStore()

    def come(pool: ThreadPoolExecutor, rank: int) -> Future[Store]:
        return pool.submit(fresh_store, store, rank, 3, SOON)

    with ThreadPoolExecutor(6) as pool:
        first = [part.result() for part in [come(pool, rank) for rank in range(3)]]
        first[2].set("address", "old")
        assert [part.get("address") for part in first] == [b"old"] * 3
        words = {rank: store.get(f"here/{rank}") for rank in (1, 2)}

        early = [come(pool, 0), come(pool, 1)]
        while store.get("here/1") == words[1] or not store.check([f"part/{words[2].decode()}"]):
            time.sleep(0.01)
        late = come(pool, 2)
        parts = [part.result() for part in (*early, late)]
    assert not any(part.check(["address"]) for part in parts)
    parts[2].set("address", "new")
    assert [part.get("address") for part in parts] == [b"new"] * 3


def test_under_torchrun_the_store_of_its_agent_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    agent.set("default_pg/address", "old")
    variables = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": agent.port}
    for name, value in (variables | {"TORCHELASTIC_USE_AGENT_STORE": True}).items():
        monkeypatch.setenv(name, str(value))
    store, rank, world_size = next(rendezvous(INIT_METHOD, timeout=SOON))
    assert (rank, world_size, store.check(["default_pg/address"])) == (0, 1, False)
    assert agent.check(["here/0"])


def test_who_does_not_come_is_named() -> None:
    with pytest.raises(DistStoreError, match="2"):
        fresh_store(HashStore(), 0, 3, timedelta(seconds=0))
    with pytest.raises(DistStoreError):
        fresh_store(HashStore(), 1, 3, timedelta(seconds=0.05))


def test_processes_wait_for_one_that_works_and_not_for_one_that_is_silent() -> None:
    store, timeout = HashStore(), timedelta(seconds=2)

    def work(seconds: float) -> None:
        with long_work(store, 2, timeout):
            time.sleep(seconds)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (3.0, 0.0)))  # of which the second one would be waiting in vain after two
    with pytest.raises(DistStoreError, match="sign of life"), long_work(HashStore(), 2, timedelta(seconds=0.2)):
        pass
