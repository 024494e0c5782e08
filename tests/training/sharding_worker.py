"""One of two processes that divide a network: begins a run that is stopped, and goes on with that of one process."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from ctrl_c import CtrlC
from torch.distributed.tensor import DTensor

from longtail.config.build import with_options
from longtail.console import Interrupted, Reporter
from longtail.run.layout import read_config
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, StageRun

STOP = (1, 1, 10)  # stage, epoch, step: several processes ask each other every ten steps


class IsDivided(Callback):
    """Fails a run whose weights are whole."""

    def on_stage_begin(self, stage: StageRun) -> None:
        assert all(isinstance(weight, DTensor) for weight in stage.model.parameters())


def work(of_one: str, out: str) -> None:
    torch.set_num_threads(1)
    config, quiet = read_config(Path(of_one)), Reporter(quiet=True)
    sharded = with_options(config, {"training.shard": True})
    with contextlib.suppress(Interrupted):
        start_run(sharded, Path(out), quiet, callbacks=[IsDivided(), CtrlC(*STOP)])
    resume_run(sharded, Path(of_one), quiet, callbacks=[IsDivided()])
    PartialState().destroy_process_group()


if __name__ == "__main__":
    import sklearn.datasets  # noqa: F401 - what a run imports on its way, once for both
    from two_processes import fork  # here: who collects doctests imports this file without its path

    import longtail.evaluation.tallies  # noqa: F401

    fork(work, *sys.argv[1:])
