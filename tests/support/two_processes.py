"""Two processes of one distributed run, out of one interpreter that has imported everything once."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable

WORLD_SIZE = 2


def fork(work: Callable[..., None], *words: str) -> None:
    """Do the work as both ranks, with the variables that ``torchrun`` sets; exit with 1 if one of them fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(WORLD_SIZE), "LOCAL_WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= shared | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [_child(rank, work, *words) for rank in range(WORLD_SIZE)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(int(any(codes)))


def _child(rank: int, work: Callable[..., None], *words: str) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    code = 1
    try:
        work(*words)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
