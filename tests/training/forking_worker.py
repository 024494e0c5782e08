"""An interpreter that has imported everything: for each line of words it forks one that runs `longtail` with them.

It answers with the number of that process, and, when that has ended, with how: an exit code, or minus a signal.
"""

from __future__ import annotations

import os
import sys

import torch
from torch.optim import SGD

import longtail.evaluation.tallies
import longtail.report.page
import longtail.training.experiment  # noqa: F401
from longtail.cli import main


def serve() -> None:
    SGD([torch.zeros(1, requires_grad=True)])  # loads once what PyTorch loads with the first optimizer
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)  # standard output is for the answers
            os._exit(main(line.rstrip("\n").split("\t")))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
