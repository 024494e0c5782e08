"""Two processes of one run, of which the second stops itself, without ending, in the middle of an epoch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

from longtail.cli import main
from longtail.training import experiment
from longtail.training.loop import Progress, StageRun


def work(folder: str) -> None:
    """Train; keep what each process says in the end, and let the stopped one go on once the other has given up."""
    rank, pid = int(os.environ["RANK"]), Path(folder) / "pid"
    if rank == 1:
        pid.write_text(str(os.getpid()))
        experiment.Experiment.on_step_end = stop  # type: ignore[method-assign]
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        status = main(["train", "digits", "--recipe", "cifar-lt/ce", "--model.name", "plain-cnn", "--epochs", "1",
                       "--out", f"{folder}/run", "--quiet", "--training.timeout", "4s"])  # fmt: skip
    (Path(folder) / f"{rank}.json").write_text(json.dumps([status, complaint.getvalue()]))
    if rank == 0:
        os.kill(int(pid.read_text()), signal.SIGCONT)


def stop(self: experiment.Experiment, stage: StageRun, progress: Progress) -> None:
    """Stop after the third step, in place of what a run does there."""
    del self, stage
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    from two_processes import fork  # here: who collects doctests imports this file without its path

    fork(work, *sys.argv[1:])
