"""Two processes of one distributed run, out of one interpreter that has imported everything once."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import torch
from torch.optim import SGD

WORLD_SIZE = 2


def fork(work: Callable[..., None], *words: str) -> None:
    """Do the work as both ranks; exit with 1 if one of them fails."""
    sys.exit(int(any(run_both(work, *words))))


def run_both(work: Callable[..., None], *words: str) -> list[int]:
    """Do the work as both ranks, with the variables that ``torchrun`` sets; return their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    SGD([torch.zeros(1, requires_grad=True)])  # loads once what PyTorch loads with the first optimizer
    shared = {"WORLD_SIZE": str(WORLD_SIZE), "LOCAL_WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= shared | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [_child(rank, work, *words) for rank in range(WORLD_SIZE)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _child(rank: int, work: Callable[..., None], *words: str) -> int:
    child = os.fork()
    if not child:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        end_after(work, *words)
    return child


def end_after(work: Callable[..., None], *words: str) -> NoReturn:
    """Do the work of a forked process and end it, with status 1 and the traceback where the work fails."""
    code = 1
    try:
        work(*words)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
