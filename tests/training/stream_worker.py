"""One process of a run that streams its images: trains, stops and resumes, and counts its steps."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from accelerate import PartialState
from ctrl_c import CtrlC

from longtail.config.build import build, read_config_file
from longtail.config.resolve import complete
from longtail.console import Interrupted, Reporter
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, Progress, StageRun


class Steps(Callback):
    count = 0

    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        del stage, progress
        self.count += 1


def work(file: str, out: str) -> None:
    config, run, quiet, steps = complete(build(read_config_file(file).values)), Path(out), Reporter(quiet=True), Steps()
    with contextlib.suppress(Interrupted):
        start_run(config, run, quiet, callbacks=[steps, CtrlC(1, 0, 9)])
    resume_run(config, run, quiet, callbacks=[steps])
    run.with_name(f"steps-{PartialState().process_index}.json").write_text(json.dumps(steps.count))
    PartialState().destroy_process_group()


if __name__ == "__main__":
    from two_processes import fork  # here: who collects doctests imports this file without its path

    fork(work, *sys.argv[1:])
