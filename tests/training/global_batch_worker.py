"""One of two processes that make the steps of one: keeps the weights that each case ends with."""

from __future__ import annotations

import sys

import torch
from accelerate import PartialState
from global_batch import CASES, three_steps
from safetensors.torch import save_file


def work(folder: str) -> None:
    torch.set_num_threads(1)
    for apart in (False, True):
        for name in CASES:
            weights = three_steps(name, exact=not apart)
            if PartialState().process_index == 0:
                save_file(weights, f"{folder}/{name.replace(':', '-')}{'-apart' * apart}.safetensors")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    from two_processes import fork  # here: who collects doctests imports this file without its path

    fork(work, *sys.argv[1:])
